"""The training loop: plain, yields facts; the caller prints, logs, saves and stops.

Everything random follows from the seed and the step's number, so a run that was stopped and
resumed gives the same adapter, bit for bit, as one that was not.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn.utils import clip_grad_norm_

from spf_lora.errors import CheckpointError, TrainingError
from spf_lora.training.batch import part_of
from spf_lora.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from spf_lora.training.objectives import Objective, Outcome
from spf_lora.training.optim import rate_at, set_rate
from spf_lora.training.processes import Processes

_MOST_SKIPPED = 30  # the loss's scale halves each time


class AnyBatch(Protocol):
    """What every stage's batches have."""

    @property
    def t(self) -> torch.Tensor:
        """Time steps, (batch,)."""


Tell = Callable[[str, int, int], None]  # what is being done, how much of it, of how much


@dataclass(frozen=True)
class Stage:
    """A part of the run.

    Attributes:
        name: learn, distil, or a rival's.
        steps: how many, from where the stage before ended.
        objective: what is minimised.
        batch: index of a step in the whole run and size -> its samples; the same for every call.
        begin: called before the stage's first step and again where a run resumes within it, with
            the adapter as the stage before left it, by parameter. It returns what a user should
            be told.
        fresh: whether it starts from an adapter that has learned nothing.
    """

    name: str
    steps: int
    objective: Objective
    batch: Callable[[int, int], AnyBatch]
    begin: Callable[[Mapping[str, torch.Tensor], Tell], Sequence[str]] | None = None
    fresh: bool = False


@dataclass(frozen=True)
class Plan:
    """What the loop needs to know.

    Attributes:
        batch_size: pictures a step, in each process.
        passes: that a batch is computed in, one after the other; they change memory, not results.
        scaled: scale the loss, so that gradients in fp16 do not vanish.
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
    passes: int = 1
    scaled: bool = False


@dataclass(frozen=True)
class Step:
    """What one step did.

    Attributes:
        stage: its stage's name.
        index: how many steps of the run are done.
        steps: of the run.
        stage_index: how many steps of the stage are done.
        stage_steps: of the stage.
        loss: weighted sum of the terms.
        terms: before weighting.
        seconds: it took.
        map_area: the control map's mean area, or None where there is no map.
    """

    stage: str
    index: int
    steps: int
    stage_index: int
    stage_steps: int
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
        pictures: how many there are to learn from.
        stages: what is minimised, in order.
        plan: how.
        checkpoint: where to save, and what to resume from.
        run_id: digest of everything that decides the result; a checkpoint of another is refused.
        device: where it is trained.
        processes: this one and its siblings.
        remarks: what a user should be told before it starts; a stage that begins adds to them.
        details: of the remarks, for whoever asks.
        tell: called with how far the work before a stage is.
    """

    def __init__(
        self,
        *,
        unet: Any,
        parameters: dict[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        pictures: int,
        stages: Sequence[Stage],
        plan: Plan,
        checkpoint: Path,
        run_id: str,
        device: torch.device,
        processes: Processes | None = None,
        remarks: Sequence[str] = (),
        details: Sequence[str] = (),
        tell: Tell = lambda what, done, total: None,
    ) -> None:
        self.unet, self.parameters, self.optimizer = unet, parameters, optimizer
        self.pictures, self.plan, self.tell = pictures, plan, tell
        self.stages = tuple(stages)
        self.checkpoint, self.run_id = checkpoint, run_id
        self.processes = processes or Processes()
        self.remarks, self.details = list(remarks), tuple(details)
        self.scaler = torch.amp.GradScaler(device.type, enabled=plan.scaled)
        self.skipped = 0  # steps in a row whose gradient overflowed in fp16
        self.done = 0
        self._untrained, self._unused = self._copied(), self._settings()
        self._left: dict[str, torch.Tensor] = {}  # by the stage before

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def _stage(self, index: int) -> tuple[Stage, int]:
        """Return the stage of a step, and the step's number within it."""
        for stage in self.stages:
            if index < stage.steps:
                return stage, index
            index -= stage.steps
        raise IndexError(index)

    def _copied(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def _settings(self) -> list[dict[str, Any]]:
        """Return what the optimizer's groups say; prodigy keeps there what it has found."""
        groups = self.optimizer.param_groups
        return [{k: v for k, v in group.items() if k != "params"} for group in groups]

    def _begin(self, stage: Stage, *, first: bool) -> None:
        """Enter a stage: with what the one before left, and where it wants so from the start."""
        if first:
            self._left = self._copied()
            if stage.fresh:
                with torch.no_grad():
                    for name, parameter in self.parameters.items():
                        parameter.copy_(self._untrained[name])
                self.optimizer.state.clear()
                for group, settings in zip(self.optimizer.param_groups, self._unused, strict=True):
                    group.update(settings)
        if stage.begin:
            self.remarks += list(stage.begin(self._left, self.tell))

    def resume(self) -> int:
        """Go on from the checkpoint; return the number of steps already done.

        Raises:
            CheckpointError: there is none, it is damaged, or it belongs to another run.
        """
        groups, facts = load_checkpoint(self.checkpoint)
        if facts.get("run_id") != self.run_id or set(groups["adapter"]) != set(self.parameters):
            raise CheckpointError(
                f"{self.checkpoint} belongs to a run with another recipe, data, base or CLIP",
                hint="resume with the settings it was started with, or start again without "
                "--resume",
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(groups["adapter"][name])
        restore_optimizer(self.optimizer, groups.get("optimizer", {}), facts["scalars"])
        self._left = groups.get("left", {})
        if self.plan.scaled:
            self.scaler.load_state_dict(facts["scaler"])
        self.done = int(facts["step"])
        return self.done

    def save(self) -> None:
        """Write the checkpoint, whole or not at all; of several processes, the first does."""
        if not self.processes.first:
            return
        tensors, scalars = optimizer_tensors(self.optimizer)
        facts = {"run_id": self.run_id, "step": self.done, "scalars": scalars}
        if self.plan.scaled:
            facts["scaler"] = self.scaler.state_dict()
        groups: dict[str, Mapping[str, torch.Tensor]] = {
            "adapter": self.parameters,
            "optimizer": tensors,
        }
        if self._left:
            groups["left"] = self._left
        save_checkpoint(self.checkpoint, groups, facts)

    def run(self) -> Iterator[Step]:
        """Train to the end, one `Step` at a time.

        Raises:
            TrainingError: the loss is not finite; the adapter is as it was before that step.
        """
        entered = None
        for index in range(self.done, self.steps):
            begun = time.perf_counter()
            stage, own = self._stage(index)
            if stage is not entered:
                self._begin(stage, first=own == 0)
                entered, begun = stage, time.perf_counter()
            batch = stage.batch(index, self.plan.batch_size * self.processes.count)
            self.optimizer.zero_grad()
            outcome = self._gradients(stage.objective, batch, index)
            self.scaler.unscale_(self.optimizer)
            norm = clip_grad_norm_(self.parameters.values(), self.plan.max_grad_norm)
            self._check_norm(norm, index)
            factor = rate_at(own, steps=stage.steps, warmup_steps=self.plan.warmup_steps)
            set_rate(self.optimizer, self.plan.learning_rate * factor)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.done = index + 1
            yield Step(
                stage.name,
                self.done,
                self.steps,
                own + 1,
                stage.steps,
                outcome.loss.item(),
                outcome.terms,
                time.perf_counter() - begun,
                outcome.map_area,
            )

    def _gradients(self, objective: Objective, batch: AnyBatch, index: int) -> Outcome:
        """Leave the batch's mean gradient in the parameters, whatever it was computed in."""
        own = part_of(batch, self.processes.share(len(batch.t)))
        size = len(own.t) // self.plan.passes
        done = []
        for first in range(0, len(own.t), size):
            outcome = objective(part_of(own, slice(first, first + size)))
            self._check(outcome.loss, "loss", index)
            scaled = self.scaler.scale(outcome.loss / self.plan.passes)
            scaled.backward()  # type: ignore[no-untyped-call]
            done.append(outcome)
        self.processes.mean_([p.grad for p in self.parameters.values() if p.grad is not None])
        return self._together(done)

    def _together(self, done: Sequence[Outcome]) -> Outcome:
        """Return the whole batch's outcome, over passes and processes."""

        def mean(values: list[float]) -> float:
            return self.processes.mean(sum(values) / len(values))

        areas = [one.map_area for one in done if one.map_area is not None]
        return Outcome(
            torch.tensor(mean([one.loss.item() for one in done])),
            {name: mean([one.terms[name] for one in done]) for name in done[0].terms},
            mean(areas) if areas else None,
        )

    def _check_norm(self, norm: torch.Tensor, index: int) -> None:
        """Refuse a gradient that is not finite; in fp16 the scaler skips a few first."""
        self.skipped = 0 if torch.isfinite(norm) else self.skipped + 1
        if self.skipped and (not self.plan.scaled or self.skipped > _MOST_SKIPPED):
            self._check(norm, "gradient's norm", index)

    def _check(self, value: torch.Tensor, name: str, index: int) -> None:
        if self.processes.any(not torch.isfinite(value)):
            raise TrainingError(
                f"the {name} became {value.item()} at step {index + 1}",
                hint="lower optimizer.learning_rate; the last good checkpoint is kept: "
                f"{self.checkpoint}",
            )
