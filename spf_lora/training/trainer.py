"""The training loop: plain, yields facts; the caller prints, logs, saves and stops.

Everything random follows from the seed and the step's number, so a run that was stopped and
resumed gives the same adapter, bit for bit, as one that was not.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from spf_lora.errors import CheckpointError, TrainingError
from spf_lora.training.batch import NOTHING_ELSE, Mix, draw_batch
from spf_lora.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from spf_lora.training.objectives import Objective
from spf_lora.training.optim import rate_at, set_rate
from spf_lora.training.prepare import Prepared


@dataclass(frozen=True)
class Stage:
    """A part of the run.

    Attributes:
        name: learn, align, or a rival's.
        steps: how many, from where the stage before ended.
        objective: what is minimised.
        mix: what the batches hold.
    """

    name: str
    steps: int
    objective: Objective
    mix: Mix = NOTHING_ELSE


@dataclass(frozen=True)
class Plan:
    """What the loop needs to know.

    Attributes:
        batch_size: pictures a step.
        learning_rate: its peak.
        warmup_steps: of linear warm-up.
        max_grad_norm: gradients are clipped to it.
        seed: of order, noise and time steps.
    """

    batch_size: int
    learning_rate: float
    warmup_steps: int
    max_grad_norm: float
    seed: int


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


class Trainer:
    """Trains the adapter on `unet`; iterate over `run()`.

    Args:
        unet: carries the adapter.
        parameters: the adapter's tensors by name.
        optimizer: over those parameters.
        scheduler: adds noise.
        data: what is learned.
        stages: what is minimised, in order.
        plan: how.
        checkpoint: where to save, and what to resume from.
        run_id: digest of everything that decides the result; a checkpoint of another is refused.
        after_step: called after each optimizer step, to put the parameters where they may be.
    """

    def __init__(
        self,
        *,
        unet: Any,
        parameters: dict[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        data: Prepared,
        stages: Sequence[Stage],
        plan: Plan,
        checkpoint: Path,
        run_id: str,
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.unet, self.parameters, self.optimizer = unet, parameters, optimizer
        self.scheduler, self.data, self.plan = scheduler, data, plan
        self.stages, self.after_step = tuple(stages), after_step
        self.checkpoint, self.run_id = checkpoint, run_id
        self.done = 0
        self.after_step()

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def _stage(self, index: int) -> Stage:
        for stage in self.stages:
            if index < stage.steps:
                return stage
            index -= stage.steps
        raise IndexError(index)

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
        for stage in self.stages:
            if memory := groups.get(stage.name):
                stage.objective.restore(memory)
        self.done = int(facts["step"])
        return self.done

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        tensors, scalars = optimizer_tensors(self.optimizer)
        facts = {"run_id": self.run_id, "step": self.done, "scalars": scalars}
        groups: dict[str, Mapping[str, torch.Tensor]] = {
            "adapter": self.parameters,
            "optimizer": tensors,
        }
        groups |= {stage.name: stage.objective.tensors() for stage in self.stages}
        save_checkpoint(self.checkpoint, groups, facts)

    def run(self) -> Iterator[Step]:
        """Train to the end, one `Step` at a time.

        Raises:
            TrainingError: the loss is not finite; the adapter is as it was before that step.
        """
        for index in range(self.done, self.steps):
            begun = time.perf_counter()
            stage = self._stage(index)
            batch = draw_batch(
                self.data, self.scheduler, index=index, size=self.plan.batch_size,
                seed=self.plan.seed, mix=stage.mix,
            )  # fmt: skip
            outcome = stage.objective(batch)
            self._check(outcome.loss, "loss", index)
            self.optimizer.zero_grad()
            outcome.loss.backward()  # type: ignore[no-untyped-call]
            norm = clip_grad_norm_(self.parameters.values(), self.plan.max_grad_norm)
            self._check(norm, "gradient's norm", index)
            factor = rate_at(index, steps=self.steps, warmup_steps=self.plan.warmup_steps)
            set_rate(self.optimizer, self.plan.learning_rate * factor)
            self.optimizer.step()
            self.after_step()
            self.done = index + 1
            yield Step(
                stage.name, self.done, self.steps, outcome.loss.item(), outcome.terms,
                time.perf_counter() - begun, outcome.map_area,
            )  # fmt: skip

    def _check(self, value: torch.Tensor, name: str, index: int) -> None:
        if not torch.isfinite(value):
            raise TrainingError(
                f"the {name} became {value.item()} at step {index + 1}",
                hint="lower optimizer.learning_rate; the last good checkpoint is kept: "
                f"{self.checkpoint}",
            )
