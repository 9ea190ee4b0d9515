"""Progress of drawing: a bar with the time left on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spf_lora.cli import out

_LINE_EVERY = 15.0  # seconds

Tell = Callable[[int, int], None]


@contextmanager
def drawing(title: str) -> Iterator[Tell]:
    """Yield a function that is told (pictures done, pictures to draw), first when none is."""
    if not out.talk().is_terminal:
        yield _lines(title)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeElapsedColumn as Spent

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Spent(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with Progress(*columns, console=out.talk(), transient=True) as bar:
        task = bar.add_task(title, total=None, left="")
        left = _clock()
        yield lambda done, total: bar.update(
            task, completed=done, total=total, left=left(done, total)
        )


def _clock() -> Callable[[int, int], str]:
    """Return what says how long it will take, from the first pictures that are done on."""
    began = time.monotonic()

    def left(done: int, total: int) -> str:
        nonlocal began
        if done <= 0:
            began = time.monotonic()
        if done <= 0 or done >= total:
            return ""
        minutes, seconds = divmod(round((time.monotonic() - began) / done * (total - done)), 60)
        return f"{minutes} min {seconds} s left" if minutes else f"{seconds} s left"

    return left


def _lines(title: str) -> Tell:
    """Return what prints a line at the start, one after the first pictures, then now and then."""
    last, told = 0.0, -1
    clock = _clock()

    def tell(done: int, total: int) -> None:
        nonlocal last, told
        left = clock(done, total)
        now = time.monotonic()
        first = told <= 0  # the start, and the first pictures, with the time they tell
        if not first and done < total and now - last < _LINE_EVERY:
            return
        last, told = now, done
        out.say(f"{title}: {done}/{total} pictures{f', {left}' if left else ''}")

    return tell
