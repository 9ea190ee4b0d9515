"""Phases of a long command: each is a row with a name, a bar, the time left and its seconds.

Where stderr is no terminal they are plain lines, one at least every `_LINE_EVERY` seconds.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from spf_lora.cli import out

_LINE_EVERY = 2.5  # seconds: nothing is silent for 3
_TICK = 0.25


class Phases:
    """Shows one phase after the other; use `showing_phases`.

    Attributes:
        seconds: of each finished phase, in order.
    """

    def __init__(self, rows: "_Rows") -> None:
        self._rows, self._name, self._began = rows, "", 0.0
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, done: int = 0, total: int = 0, note: str = "") -> None:
        """Show how far a phase is; another name ends the phase before.

        Args:
            name: what is being done.
            done: how much of it, of `total`.
            total: 0 where nobody knows.
            note: shown behind the bar.
        """
        if name != self._name:
            self.end()
            self._name, self._began = name, time.monotonic()
        self._rows.show(name, done, total, note, time.monotonic() - self._began)

    def end(self) -> None:
        """End the phase that is shown."""
        if self._name:
            spent = time.monotonic() - self._began
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + spent
            self._rows.end(self._name, spent)
        self._name = ""

    def drop(self) -> None:
        """Show no more of a phase that did not come to its end."""
        if self._name:
            self._rows.drop(self._name)
        self._name = ""


@contextmanager
def showing_phases(*, first: bool = True) -> Iterator[Phases]:
    """Yield what a long command tells its phases to; of several processes the first one shows."""
    rows: _Rows = _Rows() if not first else _Bars() if out.talk().is_terminal else _Lines()
    phases = Phases(rows)
    with rows:
        yield phases
        phases.end()


class _Rows:
    """How phases look; here not at all."""

    def __enter__(self) -> "_Rows":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""

    def show(self, name: str, done: int, total: int, note: str, spent: float) -> None:
        """Show how far it is."""

    def end(self, name: str, spent: float) -> None:
        """Show that it is over."""

    def drop(self, name: str) -> None:
        """Show no more of it."""


class _Bars(_Rows):
    """Rows that stay, the last one moving; rich moves it from a thread of its own."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
        from rich.progress import TimeElapsedColumn as Spent
        from rich.progress import TimeRemainingColumn as Left

        def text(field: str) -> Any:
            return TextColumn("{task." + field + "}", markup=False)

        self._bar = Progress(
            SpinnerColumn(finished_text="✓"),
            text("description"),
            BarColumn(bar_width=24),
            text("fields[count]"),
            Spent(),
            Left(),
            text("fields[note]"),
            console=out.talk(),
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "_Rows":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, name: str, done: int, total: int, note: str, spent: float) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=None, count="", note="")
        count = f"{done}/{total}" if total else ""
        self._bar.update(
            self._tasks[name], completed=done, total=total or None, count=count, note=note
        )

    def end(self, name: str, spent: float) -> None:
        task = self._tasks.pop(name)
        self._bar.update(task, total=1, completed=1, note=f"{spent:.0f} s")

    def drop(self, name: str) -> None:
        self._bar.stop_task(self._tasks.pop(name))


class _Lines(_Rows):
    """Lines; a thread of its own says that a phase goes on where nobody tells of it."""

    def __init__(self) -> None:
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._line: Callable[[float], str] = lambda spent: ""
        self._name, self._began, self._said = "", 0.0, 0.0
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __enter__(self) -> "_Rows":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def show(self, name: str, done: int, total: int, note: str, spent: float) -> None:
        with self._lock:
            now = time.monotonic()
            if name != self._name:
                self._name, self._began, self._said = name, now, now
                out.say(f"{name} ...")
            self._line = lambda spent: _line(name, done, total, note, spent)
            self._perhaps(now)

    def end(self, name: str, spent: float) -> None:
        with self._lock:
            self._name = ""
            out.say(f"{name}: done in {spent:.0f} s")

    def drop(self, name: str) -> None:
        with self._lock:
            self._name = ""

    def _perhaps(self, now: float) -> None:
        if self._name and now - self._said >= _LINE_EVERY:
            self._said = now
            out.say(self._line(now - self._began))

    def _go_on(self) -> None:
        while not self._stop.wait(_TICK):
            with self._lock:
                self._perhaps(time.monotonic())


def _line(name: str, done: int, total: int, note: str, spent: float) -> str:
    count = f" {done}/{total}" if total else ""
    left = f", {spent / done * (total - done):.0f} s left" if 0 < done < total else ""
    return f"{name}{count}, {spent:.0f} s{left}{f', {note}' if note else ''}"
