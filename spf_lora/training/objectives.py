"""What a step minimises: plain fine-tuning, or the dual path as SPF-Portrait has it.

An objective is called with a batch and returns an `Outcome`. What our own second stage minimises is
in `distil`, what the rivals do in `baselines`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from spf_lora.method import losses
from spf_lora.method.control_map import answer, control_map, phrase_answer
from spf_lora.method.dual_path import Path, dual_path
from spf_lora.training.batch import Batch, of_batch
from spf_lora.training.prepare import Prepared


@dataclass(frozen=True)
class Outcome:
    """A step's loss with gradient, its terms before weighting, and the map's mean area."""

    loss: torch.Tensor
    terms: dict[str, float]
    map_area: float | None = None


class Objective(Protocol):
    """What the trainer minimises."""

    def __call__(self, batch: Any) -> Outcome:
        """Return the loss of a batch."""


@dataclass(frozen=True)
class Weights:
    """Weights of the published objective's terms, each >= 0; none was published, so all are ours.

    With ten times the weights of what is held, the target is not learned (docs/experiments.md).

    Attributes:
        denoise: of the denoising loss.
        fine_grained: of the loss on queries outside the control map.
        text_consistent: of the loss on attention outside the control map.
        response: of the CLIP loss on the one-step picture.
        response_max_t: last time step of the response loss: one-step pictures are too wrong beyond.
        phrases: share of the base phrases' attention that the control map loses.
        area_cap: largest share of the picture where the control map is above 0.
    """

    denoise: float = 1.0
    fine_grained: float = 0.05
    text_consistent: float = 0.5
    response: float = 0.1
    response_max_t: int = 300
    phrases: float = 1.0
    area_cap: float = 0.4


def time_weights(scheduler: Any, cap: float) -> torch.Tensor:
    """Return (steps,) weights that turn an error of noise into one of the picture, mean 1.

    The one-step picture's error is the noise's times (1 - a) / a; large times, where an attribute's
    shape is decided, count for more. Capped, since it has no bound (min-SNR, arXiv 2303.09556, caps
    the same ratio for the same reason).
    """
    kept = scheduler.alphas_cumprod.double()
    ratio = ((1 - kept) / kept).clamp(max=cap)
    weights: torch.Tensor = (ratio / ratio.mean()).float()
    return weights


class Learn:
    """Ordinary fine-tuning on picture and full prompt: the denoising loss.

    Args:
        unet: carries the adapter.
        data: what is learned.
    """

    def __init__(self, unet: Any, data: Prepared) -> None:
        self.unet, self.data = unet, data

    def __call__(self, batch: Batch) -> Outcome:
        """Return the denoising loss, of what lies inside drawn masks where there are any."""
        eps = self.unet(batch.noisy, batch.t, batch.full_states, return_dict=False)[0]
        where = None if self.data.masks is None else of_batch(self.data.masks, batch)
        loss = losses.denoise(eps, batch.noise, where)
        return Outcome(loss, {"denoise": loss.item()})


class SpfPortrait:
    """The second stage of SPF-Portrait as printed (arXiv 2504.00396, section 3).

    denoise + text-consistent + fine-grained + response, outside and inside of the semantic-aware
    fine control map. The paper has no code and names no weight, so `Weights` are ours.

    Args:
        unet: carries the adapter.
        data: what is learned; with CLIP's embeddings.
        weights: of the terms.
        alphas: the scheduler's cumulated alphas, (steps,).
        embed: scaled latents of predictions -> CLIP embeddings with gradient.
        everywhere: whether the control map is the whole picture, as for a global attribute.
    """

    def __init__(
        self,
        unet: Any,
        data: Prepared,
        *,
        weights: Weights,
        alphas: torch.Tensor,
        embed: Callable[[torch.Tensor], torch.Tensor] | None,
        everywhere: bool = False,
    ) -> None:
        self.unet, self.data, self.weights, self.embed = unet, data, weights, embed
        self.alphas, self.everywhere = alphas.to(data.latents.device), everywhere

    def __call__(self, batch: Batch) -> Outcome:
        """Return the weighted terms of the paper."""
        weights = self.weights
        reference, response = dual_path(
            self.unet,
            batch.noisy,
            batch.t,
            base_states=batch.base_states,
            full_states=batch.full_states,
        )
        control = self._map(batch, reference, response)
        terms = {
            "denoise": losses.denoise(response.eps, batch.noise),
            "fine_grained": losses.fine_grained(response.queries, reference.queries, control),
            "text_consistent": losses.text_consistent(
                response.attention,
                reference.attention,
                batch.full_groups,
                batch.base_groups,
                control,
            ),
        }
        if self.embed is not None:
            terms["response"] = self._response(batch, response.eps)
        loss = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
        area = control.mean().item()
        return Outcome(loss, {name: term.item() for name, term in terms.items()}, area)

    def _map(self, batch: Batch, reference: Path, response: Path) -> torch.Tensor:
        """Return the control map: where the paths differ, less what the base phrases attend to."""
        answers = answer(response.eps, reference.eps)
        if self.everywhere:
            return torch.ones_like(answers)
        size = (answers.shape[2], answers.shape[3])
        assert self.data.phrases is not None, "prepare was not told the phrases"
        phrases = phrase_answer(reference.attention, self.data.phrases[batch.rows], size)
        answers = (answers - self.weights.phrases * phrases).clamp(min=0)
        return control_map(answers, area_cap=self.weights.area_cap)

    def _response(self, batch: Batch, eps: torch.Tensor) -> torch.Tensor:
        """Judge one-step pictures by the base's own CLIP, at small times only."""
        assert self.embed is not None
        assert self.data.target is not None
        assert self.data.embeddings is not None
        chosen = batch.t <= self.weights.response_max_t
        if not chosen.any():
            return eps.sum() * 0.0
        kept = self.alphas[batch.t][chosen][:, None, None, None].to(eps)
        clean = (batch.noisy[chosen] - (1 - kept).sqrt() * eps[chosen]) / kept.sqrt()
        # of the whole batch, like the other terms, so that passes and processes add up
        share = torch.full((int(chosen.sum()),), chosen.float().mean().item(), device=eps.device)
        return losses.response(
            self.embed(clean), self.data.embeddings[batch.rows[chosen]], self.data.target, share
        )
