"""The live view of a training: a table that moves on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.live import Live
from rich.table import Table

from spf_lora.cli import out

_EVERY_LINES = 25


class View(Protocol):
    """Shows one step after the other."""

    def __call__(self, step: Any) -> None:
        """Show a `spf_lora.training.trainer.Step`."""


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class _Average:
    """Exponential averages of what steps report, so that the numbers can be read."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def update(self, **values: float) -> None:
        for name, value in values.items():
            old = self.values.get(name, value)
            self.values[name] = 0.9 * old + 0.1 * value


def _facts(step: Any, average: _Average) -> list[tuple[str, str]]:
    area = {} if step.map_area is None else {"map area": step.map_area}
    average.update(loss=step.loss, seconds=step.seconds, **step.terms, **area)
    seconds = average.values["seconds"]
    shown = {k: v for k, v in average.values.items() if k != "seconds"}
    return [
        ("stage", step.stage),
        ("step", f"{step.index}/{step.steps}"),
        *((name.replace("_", " "), f"{value:.4f}") for name, value in shown.items()),
        ("s/step", f"{seconds:.2f}"),
        ("left", _clock((step.steps - step.index) * seconds)),
    ]


@contextmanager
def live_view() -> Iterator[View]:
    """Yield a function that shows a step."""
    average = _Average()
    if not out.talk().is_terminal:

        def line(step: Any) -> None:
            facts = _facts(step, average)
            if step.index % _EVERY_LINES == 0 or step.index in (1, step.steps):
                out.say("  ".join(f"{name} {value}" for name, value in facts))

        yield line
        return
    with Live(console=out.talk(), refresh_per_second=4) as live:

        def table(step: Any) -> None:
            facts = _facts(step, average)
            grid = Table(*(name for name, _ in facts), box=None)
            grid.add_row(*(value for _, value in facts))
            live.update(grid)

        yield table
