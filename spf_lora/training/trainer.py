"""The training loop: plain, yields facts; the caller prints, logs, saves and stops.

Everything random follows from the seed and the step's number, so a run that was stopped and
resumed gives the same adapter, bit for bit, as one that was not.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spf_lora.errors import CheckpointError, TrainingError
from spf_lora.method import losses
from spf_lora.method.control_map import difference_map
from spf_lora.method.dual_path import dual_path
from spf_lora.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from spf_lora.training.optim import rate_at, set_rate
from spf_lora.training.prepare import Prepared


@dataclass(frozen=True)
class Weights:
    """Weights of the align stage's terms, each >= 0; 0 leaves the term out."""

    fine_grained: float
    text_consistent: float
    outside_map: float
    map_area_cap: float


@dataclass(frozen=True)
class Plan:
    """What the loop needs to know.

    Attributes:
        learn_steps: of stage 1.
        align_steps: of stage 2.
        batch_size: pictures a step.
        learning_rate: its peak.
        warmup_steps: of linear warm-up.
        empty_prompts: share of stage 2's samples without a prompt; they hold the adapter to the
            frozen model's answer to no prompt, which guidance subtracts.
        base_prompts: share of stage 2's samples whose response gets the base prompt, so that the
            adapter learns to do nothing where it is not asked.
        max_grad_norm: gradients are clipped to it.
        seed: of order, noise and time steps.
        weights: of stage 2's terms.
    """

    learn_steps: int
    align_steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    empty_prompts: float
    base_prompts: float
    max_grad_norm: float
    seed: int
    weights: Weights

    @property
    def steps(self) -> int:
        """Of both stages."""
        return self.learn_steps + self.align_steps


@dataclass(frozen=True)
class Step:
    """What one step did: its terms before weighting, and the control map's mean area."""

    stage: str
    index: int
    steps: int
    loss: float
    terms: dict[str, float]
    seconds: float
    map_area: float | None


@dataclass(frozen=True)
class _Batch:
    latents: torch.Tensor
    noise: torch.Tensor
    noisy: torch.Tensor
    t: torch.Tensor
    rows: torch.Tensor
    dropped: torch.Tensor
    unasked: torch.Tensor


class Trainer:
    """Trains the adapter on `unet`; iterate over `run()`.

    Args:
        unet: carries the adapter.
        parameters: the adapter's tensors by name.
        optimizer: over those parameters.
        scheduler: adds noise.
        data: what is learned.
        plan: how.
        checkpoint: where to save, and what to resume from.
        run_id: digest of everything that decides the result; a checkpoint of another is refused.
    """

    def __init__(
        self,
        *,
        unet: Any,
        parameters: dict[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        data: Prepared,
        plan: Plan,
        checkpoint: Path,
        run_id: str,
    ) -> None:
        self.unet, self.parameters, self.optimizer = unet, parameters, optimizer
        self.scheduler, self.data, self.plan = scheduler, data, plan
        self.checkpoint, self.run_id = checkpoint, run_id
        self.done = 0

    def resume(self) -> int:
        """Go on from the checkpoint; return the number of steps already done.

        Raises:
            CheckpointError: there is none, it is damaged, or it belongs to another run.
        """
        groups, facts = load_checkpoint(self.checkpoint)
        if facts.get("run_id") != self.run_id or set(groups["adapter"]) != set(self.parameters):
            raise CheckpointError(
                f"{self.checkpoint} belongs to a run with another recipe, data or base",
                hint="resume with the settings it was started with, or start again without "
                "--resume",
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(groups["adapter"][name])
        restore_optimizer(self.optimizer, groups.get("optimizer", {}), facts["scalars"])
        self.done = int(facts["step"])
        return self.done

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        tensors, scalars = optimizer_tensors(self.optimizer)
        facts = {"run_id": self.run_id, "step": self.done, "scalars": scalars}
        save_checkpoint(self.checkpoint, {"adapter": self.parameters, "optimizer": tensors}, facts)

    def run(self) -> Iterator[Step]:
        """Train to the end, one `Step` at a time.

        Raises:
            TrainingError: the loss is not finite; the adapter is as it was before that step.
        """
        for index in range(self.done, self.plan.steps):
            begun = time.perf_counter()
            learn = index < self.plan.learn_steps
            batch = self._batch(index)
            loss, terms, area = self._learn(batch) if learn else self._align(batch)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss became {loss.item()} at step {index + 1}",
                    hint="lower optimizer.learning_rate; the last good checkpoint is kept: "
                    f"{self.checkpoint}",
                )
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.plan.max_grad_norm)
            factor = rate_at(index, steps=self.plan.steps, warmup_steps=self.plan.warmup_steps)
            set_rate(self.optimizer, self.plan.learning_rate * factor)
            self.optimizer.step()
            self.done = index + 1
            yield Step(
                "learn" if learn else "align", self.done, self.plan.steps, loss.item(), terms,
                time.perf_counter() - begun, area,
            )  # fmt: skip

    def _batch(self, index: int) -> _Batch:
        """Draw what step `index` sees; every picture comes once before any comes twice."""
        n, size, seed = len(self.data), self.plan.batch_size, self.plan.seed
        first = index * size
        rows = [
            int(np.random.default_rng((seed, at // n)).permutation(n)[at % n])
            for at in range(first, first + size)
        ]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        device = self.data.latents.device
        chosen = torch.tensor(rows, device=device)
        latents = self.data.latents[chosen]
        noise = torch.randn(latents.shape, generator=generator).to(device)
        train_steps = self.scheduler.config.num_train_timesteps
        t = torch.randint(0, train_steps, (size,), generator=generator).to(device)
        dropped = torch.rand(size, generator=generator).to(device) < self.plan.empty_prompts
        unasked = torch.rand(size, generator=generator).to(device) < self.plan.base_prompts
        noisy = self.scheduler.add_noise(latents, noise, t)
        return _Batch(latents, noise, noisy, t, chosen, dropped, unasked)

    def _states(self, states: torch.Tensor, batch: _Batch) -> torch.Tensor:
        rows = states[batch.rows]
        return torch.where(batch.dropped[:, None, None], self.data.empty_state, rows)

    def _learn(self, batch: _Batch) -> tuple[torch.Tensor, dict[str, float], None]:
        states = self.data.full_states[batch.rows]
        eps = self.unet(batch.noisy, batch.t, states, return_dict=False)[0]
        loss = losses.denoise(eps, batch.noise, torch.ones_like(batch.t, dtype=eps.dtype))
        return loss, {"denoise": loss.item()}, None

    def _align(self, batch: _Batch) -> tuple[torch.Tensor, dict[str, float], float]:
        weights = self.plan.weights
        base_states = self._states(self.data.base_states, batch)
        full_states = self._states(self.data.full_states, batch)
        unasked = batch.unasked[:, None, None]
        base_groups = self.data.base_groups[batch.rows]
        reference, response = dual_path(
            self.unet, batch.noisy, batch.t, base_states=base_states,
            full_states=torch.where(unasked, base_states, full_states),
        )  # fmt: skip
        asked = (~batch.dropped & ~batch.unasked).to(response.eps.dtype)
        control = difference_map(response.eps, reference.eps, area_cap=weights.map_area_cap)
        control = control * asked[:, None, None, None]  # not asked: nothing may move
        terms = {
            "denoise": losses.denoise(response.eps, batch.noise, asked),
            "fine_grained": losses.fine_grained(response.queries, reference.queries, control),
            "text_consistent": losses.text_consistent(
                response.attention, reference.attention,
                torch.where(unasked, base_groups, self.data.full_groups[batch.rows]),
                base_groups, control,
            ),
            "outside_map": losses.outside_map(response.eps, reference.eps, control),
        }  # fmt: skip
        weighted = [
            terms["denoise"],
            weights.fine_grained * terms["fine_grained"],
            weights.text_consistent * terms["text_consistent"],
            weights.outside_map * terms["outside_map"],
        ]
        area = control[asked > 0].mean().item() if asked.any() else 0.0
        return torch.stack(weighted).sum(), {k: v.item() for k, v in terms.items()}, area
