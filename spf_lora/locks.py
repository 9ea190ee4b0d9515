"""Locks between processes: what two may change at once is changed under a lock file.

The system takes a lock back from a process that ends, however it ends, so one that a killed
process held is free. The library falls back to a marker file where a disk knows no locks.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from spf_lora.atomic import unwritable
from spf_lora.documents import read_json
from spf_lora.errors import LockedError

_PATIENCE_SECONDS = 60


@contextmanager
def locked(*paths: Path) -> Iterator[None]:
    """Hold lock files for a moment, one after the other in the order of their real paths.

    All who take several take them in this order, so no two wait for each other.

    Raises:
        LockedError: another process held one for a minute.
        OutputError: one cannot be written.
    """
    with ExitStack() as held:
        for path in sorted({Path(os.path.realpath(path)) for path in paths}):
            held.enter_context(_held(path, _PATIENCE_SECONDS))
        yield


@contextmanager
def held_alone(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file for the whole of a long work, and say in it who does.

    The file is removed at the end; one that a killed process left is taken over.

    Args:
        path: the lock file.
        what: what the lock is for, to tell others.

    Raises:
        LockedError: another process holds it; it says who.
        OutputError: it cannot be written.
    """
    from filelock import SoftFileLock

    try:
        with _held(path, 0) as lock:
            # a marker file has content of its own
            native = not isinstance(lock, SoftFileLock)
            if native:
                _sign(path)
            try:
                yield
            finally:
                if native:
                    with suppress(OSError):
                        path.unlink()
    except _HeldError:
        _refuse(path, what)


class _HeldError(LockedError):
    """Another process holds a lock; never leaves this module as such."""


@contextmanager
def _held(path: Path, seconds: float) -> Iterator[object]:
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout as error:
        raise _HeldError(
            f"another process has held {path.parent} for {_PATIENCE_SECONDS} seconds",
            hint="wait for it to end, then run the same command again",
        ) from error
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield lock
    finally:
        lock.release()


def _sign(path: Path) -> None:
    """Write into a lock file who holds it; the file stays the same one, for it is the lock."""
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
    with suppress(OSError):  # a full disk holds up no work
        path.write_text(json.dumps(who), encoding="utf-8")


def _refuse(path: Path, what: str) -> NoReturn:
    try:
        who = read_json(path, most_bytes=4096)
        here = "this machine" if who["host"] == socket.gethostname() else str(who["host"])[:100]
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(int(who["since"])))
        holder = f"process {int(who['pid'])} on {here}, since {since}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        holder = "another process"
    raise LockedError(
        f"{what} is being written by {holder}",
        hint="wait for it to end, stop it, or choose another file",
    )
