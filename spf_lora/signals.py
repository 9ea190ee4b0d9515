"""Signals that ask a process to end: Ctrl-C, SIGTERM as Slurm sends it, SIGHUP of a terminal.

All three end a command alike: `Stopped` is raised where it is, or asked for between two steps. A
second one ends the process at once, whatever it does; files are written beside and renamed, so that
leaves at most a file that nobody reads. A closed terminal sends SIGHUP twice, and launchers repeat
SIGTERM: what comes within a second of the first counts as the same.
"""

import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # not every system has all
_SAME_SECONDS = 1.0
_TOLD = b"\nstopping; once more stops at once\n"


class Stopped(BaseException):
    """The process was asked to end. No KeyboardInterrupt, for others make 130 of that.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell tells of a process that a signal ended."""
        return 128 + self.number


@contextmanager
def ending_politely() -> Iterator[None]:
    """Raise `Stopped` where the process is when it is first asked to end."""

    def stop(number: int) -> None:
        raise Stopped(number)

    with _handled(stop):
        yield


@contextmanager
def asked_to_end() -> Iterator[Callable[[], int]]:
    """Yield a question to ask between two steps: the signal that asks to end, or 0."""
    signals: list[int] = []

    def note(number: int) -> None:
        signals.append(number)
        with suppress(OSError):  # stderr may be the terminal that went
            os.write(2, _TOLD)

    with _handled(note):
        yield lambda: signals[0] if signals else 0


@contextmanager
def _handled(act: Callable[[int], None]) -> Iterator[None]:
    """Act on the first signal; leave alone what the caller's parent had ignored, as nohup does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say
        return
    before: dict[int, Any] = {}
    since: list[float] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if not since:
            since.append(time.monotonic())
            _leave_dead_terminal()
            if signal.SIGINT in before:  # a key is pressed twice on purpose
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            act(number)
        elif time.monotonic() - since[0] > _SAME_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_dead_terminal() -> None:
    """Let what is written to a terminal that went away go nowhere, and not end in an error."""
    for stream in (1, 2):
        with suppress(OSError):
            # a terminal after its hang-up is still a device, but no terminal any more
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream)
                os.close(nowhere)
