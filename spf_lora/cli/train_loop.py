"""The training loop as a command shows it: saved, logged, ended by a signal between steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spf_lora.cli import out
from spf_lora.cli.phases import Phases
from spf_lora.errors import OutputError
from spf_lora.signals import Stopped, asked_to_end

if TYPE_CHECKING:
    from spf_lora.training.trainer import Trainer


@contextmanager
def resumable() -> Iterator[None]:
    """Tell of a full disk and the like that nothing is to be trained twice."""
    try:
        yield
    except OutputError as error:
        raise OutputError(
            error.message, hint=f"{error.hint}; with --resume what is trained already is kept"
        ) from error


def run_trainer(
    trainer: "Trainer",
    phases: Phases,
    *,
    every: int,
    logs: Path | None,
    look: Callable[[Any], None] = lambda step: None,
) -> None:
    """Run the trainer; show, log and save what it does. A signal ends it between two steps."""
    first, told = trainer.processes.first, len(trainer.remarks)
    log = _tensorboard(logs if first else None)
    with asked_to_end() as asked:

        def tell(what: str, done: int, total: int) -> None:
            phases(what, done, total)
            if asked():  # before the next pair is drawn; those that are stay
                raise Stopped(asked())

        trainer.tell = tell
        try:
            for step in trainer.run():
                stop = trainer.processes.any(asked() > 0)
                if stop or step.index % every == 0 or step.stage_index == step.stage_steps:
                    trainer.save()  # before anything is shown: the terminal may be what went
                if stop:
                    raise Stopped(asked() or signal.SIGINT)
                with suppress(OSError):  # nobody watches: that stops no training
                    for remark in trainer.remarks[told:] if first else ():
                        out.say(remark)
                    told = len(trainer.remarks)
                    phases(step.stage, step.stage_index, step.stage_steps, f"loss {step.loss:.4f}")
                if first:
                    log(step)
                    look(step)
        except Stopped:
            phases.drop()
            if first:
                out.say(
                    f"stopped after step {trainer.done} of {trainer.steps}; the same command with "
                    "--resume goes on"
                )
            raise


def _tensorboard(log_dir: Path | None) -> Any:
    if log_dir is None:
        return lambda step: None
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(log_dir))

    def log(step: Any) -> None:
        values = {f"loss/{k}": v for k, v in step.terms.items()}
        values |= {"loss/total": step.loss, "seconds_per_step": step.seconds}
        if step.map_area is not None:
            values["control_map/mean_area"] = step.map_area
        for name, value in values.items():
            writer.add_scalar(name, value, step.index)
        writer.flush()

    return log
