"""Progress of drawing: a bar with the time left on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spf_lora.cli import out

_LINE_EVERY = 15.0  # seconds


@contextmanager
def drawing(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that is told (pictures done, pictures to draw)."""
    if not out.talk().is_terminal:
        yield _lines(title)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeLeft(), console=out.talk(), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(title: str) -> Callable[[int, int], None]:
    began = last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < _LINE_EVERY:
            return
        last = now
        left = (now - began) / max(done, 1) * (total - done)
        out.say(f"{title}: {done}/{total} pictures, {left:.0f} s left")

    return tell
