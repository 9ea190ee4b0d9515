"""What a step minimises: plain fine-tuning while learning, the dual path while aligning.

An objective is called with a batch and returns an `Outcome`. Everything it remembers between steps
is in `tensors()`, so that a checkpoint holds it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.functional import pad

from spf_lora.errors import TrainingError
from spf_lora.method import losses
from spf_lora.method.control_map import MapMemory, answer, control_map, phrase_answer
from spf_lora.method.dual_path import Path, dual_path
from spf_lora.training.batch import Batch, of_batch
from spf_lora.training.prepare import Prepared

_PATIENCE = 50  # steps with an empty or full map before the run stops


@dataclass(frozen=True)
class Outcome:
    """A step's loss with gradient, its terms before weighting, and the map's mean area."""

    loss: torch.Tensor
    terms: dict[str, float]
    map_area: float | None = None


class Objective(Protocol):
    """What the trainer minimises."""

    def __call__(self, batch: Batch) -> Outcome:
        """Return the loss of a batch."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what it remembers."""

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `tensors` gave."""

    def watch(self, area: float | None) -> None:
        """Be told the map's mean area over the whole step; stop a run that cannot get anywhere."""


@dataclass(frozen=True)
class Weights:
    """Weights of the align stage's terms, each >= 0; 0 leaves the term out.

    `response_max_t` is the last time step with a response loss: one-step predictions are too
    wrong beyond. `phrases` is the base phrases' share in the control map.
    """

    denoise: float
    outside_map: float
    fine_grained: float
    text_consistent: float
    response: float
    response_max_t: int
    phrases: float


@dataclass(frozen=True)
class MapSettings:
    """How answers become the control map; see `control_map`. `everywhere` opens all of it.

    `surprise` is the share of what the witnesses saw in a training picture.
    """

    area_cap: float
    decay: float
    everywhere: bool = False
    surprise: float = 0.0


def time_weights(scheduler: Any, cap: float) -> torch.Tensor:
    """Return (steps,) weights that turn an error of noise into one of the picture, mean 1.

    The one-step picture's error is the noise's times (1 - a) / a; large times, where an attribute's
    shape is decided, count for more. Capped, since it has no bound (min-SNR, arXiv 2303.09556, caps
    the same ratio for the same reason). All 1 for a cap of 0.
    """
    kept = scheduler.alphas_cumprod.double()
    if cap == 0:
        return torch.ones(len(kept))
    ratio = ((1 - kept) / kept).clamp(max=cap)
    weights: torch.Tensor = (ratio / ratio.mean()).float()
    return weights


class Learn:
    """Stage 1: fine-tuning on picture and full prompt, where the target may be.

    Args:
        unet: carries the adapter.
        data: what is learned.
        weights: of the time steps, (steps,).
        witnessed: where witnesses see the attribute in each picture, (n, 1, h, w); or None.
        area_cap: see `control_map`.
    """

    def __init__(
        self, unet: Any, data: Prepared, weights: torch.Tensor,
        witnessed: torch.Tensor | None = None, area_cap: float = 1.0,
    ) -> None:  # fmt: skip
        self.unet, self.data, self.times = unet, data, weights.to(data.latents.device)
        self.witnessed, self.area_cap = witnessed, area_cap

    def __call__(self, batch: Batch) -> Outcome:
        """Return the denoising loss inside drawn masks, else where witnesses see it."""
        eps = self.unet(batch.noisy, batch.t, batch.full_states, return_dict=False)[0]
        where = None
        if self.data.masks is not None:
            where = of_batch(self.data.masks, batch)
        elif self.witnessed is not None:
            where = control_map(of_batch(self.witnessed, batch), area_cap=self.area_cap)
        loss = losses.denoise(eps, batch.noise, self.times[batch.t], where)
        return Outcome(loss, {"denoise": loss.item()})

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return nothing: this stage remembers nothing."""
        return {}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put nothing back."""

    def watch(self, area: float | None) -> None:
        """Watch nothing: this stage has no map."""


class Align:
    """Stage 2: the target is learned inside the control map, and nothing moves outside it.

    Args:
        unet: carries the adapter.
        data: what is learned.
        weights: of the terms.
        settings: of the map.
        times: weight of each time step, (steps,); see `time_weights`.
        embed: scaled latents of predictions -> CLIP embeddings with gradient; None without a
            response loss.
        alphas: the scheduler's cumulated alphas, (steps,).
        witnessed: where witnesses see the attribute in each picture, (n, 1, h, w); see `witness`;
            None where the map needs none.
    """

    def __init__(
        self,
        unet: Any,
        data: Prepared,
        *,
        weights: Weights,
        settings: MapSettings,
        times: torch.Tensor,
        alphas: torch.Tensor,
        embed: Callable[[torch.Tensor], torch.Tensor] | None = None,
        witnessed: torch.Tensor | None = None,
    ) -> None:
        self.witnessed = witnessed
        device = data.latents.device
        self.unet, self.data, self.weights, self.settings = unet, data, weights, settings
        self.times, self.alphas, self.embed = times.to(device), alphas.to(device), embed
        size = (data.latents.shape[2], data.latents.shape[3])
        places = len(data) + (len(data.twins.latents) if data.twins else 0)
        self.memory = MapMemory(places, size, decay=settings.decay, device=device)
        self.stuck = torch.zeros(1)  # steps in a row with an empty or full map

    def __call__(self, batch: Batch) -> Outcome:
        """Return the weighted terms of method.md."""
        weights = self.weights
        watched = weights.fine_grained > 0 or weights.text_consistent > 0 or weights.phrases > 0
        reference, response = dual_path(
            self.unet, batch.noisy, batch.t, base_states=batch.base_states,
            full_states=batch.full_states, watched=watched,
        )  # fmt: skip
        control = self._map(batch, reference, response)
        times = self.times[batch.t]
        terms = {
            "denoise": losses.denoise(response.eps, batch.noise, times * batch.real, control),
            "outside_map": losses.outside_map(response.eps, reference.eps, control, times),
        }
        if weights.fine_grained:
            terms["fine_grained"] = losses.fine_grained(
                response.queries, reference.queries, control
            )
        if weights.text_consistent:
            terms["text_consistent"] = losses.text_consistent(
                response.attention, reference.attention, batch.full_groups, batch.base_groups,
                control,
            )  # fmt: skip
        if weights.response and self.embed is not None:
            terms["response"] = self._response(batch, response.eps)
        loss = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
        asked = batch.asked > 0
        area = control[asked].mean().item() if asked.any() else None
        return Outcome(loss, {name: term.item() for name, term in terms.items()}, area)

    def _map(self, batch: Batch, reference: Path, response: Path) -> torch.Tensor:
        asked = batch.asked > 0
        control = torch.zeros_like(batch.latents[:, :1])  # not asked: nothing may move
        if self.settings.everywhere:
            control[asked] = 1.0
            return control
        if not asked.any():
            return control
        drawn = asked & (batch.real > 0)
        if self.data.masks is not None:  # somebody drew where it is: no need to find out
            control[drawn] = of_batch(self.data.masks, batch)[drawn]
            asked = asked & ~drawn
            if not asked.any():
                return control
        answers = answer(response.eps, reference.eps)
        if self.weights.phrases:
            size = (answers.shape[2], answers.shape[3])
            phrases = phrase_answer(reference.attention, self.data.phrases[batch.rows], size)
            answers = (answers - self.weights.phrases * phrases).clamp(min=0)
        averaged = self._remembered(batch.places[asked], answers[asked])
        if self.witnessed is not None:  # the base's own pictures hold none
            share = self.settings.surprise * batch.real[asked][:, None, None, None]
            witness = of_batch(self.witnessed, batch)[asked]
            averaged = (1 - share) * averaged + share * witness
        control[asked] = control_map(averaged, area_cap=self.settings.area_cap)
        return control

    def watch(self, area: float | None) -> None:
        """Count steps with a useless map.

        Raises:
            TrainingError: the control map was empty or full for 50 steps.
        """
        if self.settings.everywhere or area is None:
            return
        wrong = "empty" if area == 0 else "full" if area > 0.95 else ""
        self.stuck = self.stuck + 1 if wrong else self.stuck * 0
        if self.stuck >= _PATIENCE:
            raise TrainingError(
                f"the control map was {wrong} for {_PATIENCE} steps",
                hint="raise learn.steps or align.surprise: the prompt is not answered yet"
                if wrong == "empty"
                else 'lower align.map_area_cap, or set attribute.scope = "global" if it is meant '
                "to change the whole picture",
            )

    def _remembered(self, places: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Average over noise draws; the memory has room for the largest size."""
        height, width = answers.shape[-2:]
        below, beside = (m - a for m, a in zip(self.memory.size, (height, width), strict=True))
        averaged = self.memory.update(places, pad(answers, (0, beside, 0, below)))
        return averaged[..., :height, :width]

    def _response(self, batch: Batch, eps: torch.Tensor) -> torch.Tensor:
        """Judge one-step pictures by the base's own CLIP, at small times only."""
        assert self.embed is not None
        assert self.data.target is not None
        assert self.data.embeddings is not None
        chosen = (batch.real > 0) & (batch.t <= self.weights.response_max_t)
        if not chosen.any():
            return eps.sum() * 0.0
        kept = self.alphas[batch.t][chosen][:, None, None, None].to(eps)
        clean = (batch.noisy[chosen] - (1 - kept).sqrt() * eps[chosen]) / kept.sqrt()
        # of the whole batch, like the other terms, so that passes and processes add up
        share = torch.full((int(chosen.sum()),), chosen.float().mean().item(), device=eps.device)
        return losses.response(
            self.embed(clean), self.data.embeddings[batch.rows[chosen]], self.data.target, share
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the map memory and the count of steps with a useless map."""
        return {**self.memory.tensors(), "stuck": self.stuck}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `tensors` gave."""
        self.memory.restore(tensors)
        self.stuck = tensors["stuck"].clone()
