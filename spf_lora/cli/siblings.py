"""Processes that `train` starts beside itself where one would leave cores idle.

Threads within one process hardly help a small U-Net; a second process does the same work again in
the same time. Each is the same command once more, silent, which takes its share of every batch. It
hears its parent over stdin and answers over stdout. So nothing needs a network, and whoever ends,
however, is missed at once: siblings end with their parent, and the parent tells that one is gone.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import gcd
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

from spf_lora.cli import out
from spf_lora.errors import TrainingError
from spf_lora.recipe.schema import Recipe

if TYPE_CHECKING:
    import torch

    from spf_lora.training.processes import Processes

_COUNT = "_SPF_LORA_PROCESSES"  # in a sibling's environment, beside RANK
_MOST = 4  # a share of a batch of 8 is 2 pictures then
_LARGEST = 100e6  # bytes of a U-Net: SD1.5's 1.7 GB or more would be in memory in each process
_PATIENCE = 120.0  # seconds, for a sibling's imports and base on a busy machine
_READY = b"!"


def own_command() -> tuple[str, ...]:
    """Return what starts this process's command once more; nothing where Python code calls it."""
    words = sys.argv[1:]
    if not words or not sys.executable or sys.orig_argv[-len(words) :] != words:
        return ()
    return (sys.executable, *sys.orig_argv[1:])


@contextmanager
def team(command: Sequence[str], recipes: Sequence[Recipe]) -> Iterator["Callable[[], Processes]"]:
    """Start siblings where they help; they end with the block.

    Args:
        command: what starts this command once more, or nothing.
        recipes: what is trained, one after the other.

    Yields:
        What waits until all are ready and returns this process among them.
    """
    if _COUNT in os.environ:
        yield _Sibling().join
        return
    count = most_processes(recipes) if command else 1
    if count == 1:
        from spf_lora.training.processes import processes

        yield processes
        return
    parent = _Parent(command, count)
    try:
        yield parent.join
    finally:
        parent.end()


def most_processes(recipes: Sequence[Recipe]) -> int:
    """Return among how many processes on the CPU each recipe's batch can be divided with profit."""
    if os.name != "posix" or "WORLD_SIZE" in os.environ:
        return 1
    parts = gcd(*(one.data.batch_size // one.data.passes for one in recipes))
    count = next(n for n in range(min(_cores(), _MOST), 0, -1) if parts % n == 0)
    if count == 1:
        return 1
    from spf_lora.base.load import EMBEDDED, default_device

    base = recipes[0].training.base
    folder = EMBEDDED if base == "embedded" else Path(base)
    weights = sum(file.stat().st_size for file in (folder / "unet").glob("*.safetensors"))
    return count if 0 < weights < _LARGEST and default_device().type == "cpu" else 1


def _cores() -> int:
    """Return how many cores there are for this process; `OMP_NUM_THREADS` may say fewer."""
    affinity = getattr(os, "sched_getaffinity", None)  # not every system has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, max(1, int(told))) if told.isdecimal() else cores


class _Parent:
    """The process that the user started, and its siblings."""

    def __init__(self, command: Sequence[str], count: int) -> None:
        self._count, self._threads = count, max(1, _cores() // count)
        own = os.environ | {_COUNT: str(count), "OMP_NUM_THREADS": str(self._threads)}
        self._siblings: list[Any] = []
        with suppress(OSError):  # then fewer are ready than are waited for
            for rank in range(1, count):
                one = subprocess.Popen(
                    command,
                    env=own | {"RANK": str(rank)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
                self._siblings.append(one)

    def join(self) -> "Processes":
        from spf_lora.training.processes import Processes

        until = time.monotonic() + _PATIENCE
        ready = [_says_ready(one.stdout, until) for one in self._siblings]
        if all(ready) and len(ready) == self._count - 1:
            return Processes(0, self._count, self._mean, divides=True, threads=self._threads)
        self.end()
        out.say("training in one process: no other could be started beside it")
        return Processes()

    def _mean(self, flat: "torch.Tensor") -> "torch.Tensor":
        whole = flat.clone()
        for one in self._siblings:
            said = one.stdout.read(4 * flat.numel())
            if len(said) < 4 * flat.numel():
                self._miss(one)
            whole += _tensor(said)
        whole /= self._count
        for one in self._siblings:
            try:
                one.stdin.write(_bytes(whole))
                one.stdin.flush()
            except OSError:
                self._miss(one)
        return whole

    def _miss(self, one: Any) -> NoReturn:
        code = one.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise TrainingError(
            f"one of the {self._count} processes that share the training {how}",
            hint="the same command with --resume goes on from the last checkpoint; with "
            "OMP_NUM_THREADS=1 in its environment it stays in one process",
        )

    def end(self) -> None:
        for one in self._siblings:
            with suppress(OSError), one:  # what it was not sent yet is not wanted
                one.kill()
        self._siblings = []


class _Sibling:
    """A process that another training started; its parent answers signals."""

    def __init__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._answers = os.fdopen(os.dup(1), "wb")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what anyone prints goes nowhere
        self._heard: SimpleQueue[bytes] = SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while heard := os.read(0, 1 << 16):
            self._heard.put(heard)
        os._exit(1)  # the parent is gone

    def join(self) -> "Processes":
        from spf_lora.training.processes import Processes

        self._say(_READY)
        rank, count = int(os.environ["RANK"]), int(os.environ[_COUNT])
        return Processes(rank, count, self._mean, divides=True)

    def _say(self, what: bytes) -> None:
        self._answers.write(what)
        self._answers.flush()

    def _mean(self, flat: "torch.Tensor") -> "torch.Tensor":
        own, whole = _bytes(flat), b""
        self._say(own)
        while len(whole) < len(own):
            whole += self._heard.get()
        return _tensor(whole)


def _says_ready(pipe: Any, until: float) -> bool:
    """Wait for a sibling's word until a time; one that ended says nothing."""
    heard, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
    return bool(heard) and pipe.read(1) == _READY


def _bytes(flat: "torch.Tensor") -> bytes:
    return flat.numpy().tobytes()


def _tensor(said: bytes) -> "torch.Tensor":
    import torch

    return torch.frombuffer(bytearray(said), dtype=torch.float32)
