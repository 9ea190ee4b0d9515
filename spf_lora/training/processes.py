"""More than one process: one adapter, one writer.

Each process takes its share of every batch. Gradients are put together after each step, so all
hold the same adapter; only the first one writes and talks. `accelerate launch` or `torchrun` start
them, or `train` itself (`cli.siblings`).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

_CPU = torch.device("cpu")
Mean = Callable[[torch.Tensor], torch.Tensor]  # of a vector of float32; all must ask


class Processes:
    """This process among its siblings.

    Attributes:
        rank: from 0.
        count: how many there are.
        divides: whether a recipe's batch is divided among them; else each takes one of that size.
        threads: that each computes with in a step, or None for as many as ever.
    """

    def __init__(
        self,
        rank: int = 0,
        count: int = 1,
        mean: Mean | None = None,
        *,
        device: torch.device = _CPU,
        divides: bool = False,
        threads: int | None = None,
    ) -> None:
        self.rank, self.count, self._mean, self._device = rank, count, mean, device
        self.divides, self.threads = divides, threads

    @property
    def first(self) -> bool:
        """Whether this one writes and talks."""
        return self.rank == 0

    def whole(self, size: int) -> int:
        """Return how many samples all see in a step, where the recipe's batch has `size`."""
        return size if self.divides else size * self.count

    def share(self, size: int) -> slice:
        """Return this process's part of a batch of `size`, which `count` divides."""
        own = size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def mean_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their mean over the processes."""
        if self._mean is None or not tensors:
            return
        flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
        parts = torch.split(self._mean(flat), [t.numel() for t in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.reshape(tensor.shape))

    def mean(self, value: float) -> float:
        """Return the mean of a number over the processes."""
        if self._mean is None:
            return value
        one = torch.tensor([value], device=self._device)
        self.mean_([one])
        return float(one)

    def any(self, flag: bool) -> bool:
        """Tell whether any process says yes; all must ask."""
        return self.mean(float(flag)) > 0

    def wait(self) -> None:
        """Go on when all have come here."""
        self.mean(0.0)

    @contextmanager
    def sharing_cores(self) -> Iterator[None]:
        """Within the block, leave the siblings their cores."""
        if self.threads is None:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def processes() -> Processes:
    """Return this process among those that `accelerate launch` or `torchrun` started, if any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    from accelerate import PartialState
    from accelerate.utils import reduce

    state = PartialState(cpu=not torch.cuda.is_available())
    mean = partial(reduce, reduction="mean")
    return Processes(state.process_index, state.num_processes, mean, device=state.device)
