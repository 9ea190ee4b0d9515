"""More than one process, as `accelerate launch` starts them: one adapter, one writer.

Each process takes its share of every batch. Gradients are put together after each step, so all
hold the same adapter; only the first one writes and talks.
"""

import os
from collections.abc import Sequence
from typing import Any

import torch


class Processes:
    """This process among its siblings.

    Attributes:
        rank: from 0.
        count: how many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1, state: Any = None) -> None:
        self.rank, self.count, self._state = rank, count, state

    @property
    def first(self) -> bool:
        """Whether this one writes and talks."""
        return self.rank == 0

    def share(self, size: int) -> slice:
        """Return this process's part of a batch of `size`, which `count` divides."""
        own = size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def mean_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their mean over the processes."""
        if self.count == 1 or not tensors:
            return
        from accelerate.utils import reduce

        flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
        shared = reduce(flat, reduction="mean")
        for tensor, part in zip(tensors, shared.split([t.numel() for t in tensors]), strict=True):
            tensor.detach().copy_(part.reshape(tensor.shape))

    def mean(self, value: float) -> float:
        """Return the mean of a number over the processes."""
        if self.count == 1:
            return value
        one = torch.tensor([value], device=self._state.device)
        self.mean_([one])
        return float(one)

    def any(self, flag: bool) -> bool:
        """Tell whether any process says yes; all must ask."""
        return self.mean(float(flag)) > 0

    def wait(self) -> None:
        """Go on when all have come here."""
        if self._state is not None:
            self._state.wait_for_everyone()


def processes() -> Processes:
    """Return this process among those that `accelerate launch` or `torchrun` started."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return Processes(state.process_index, state.num_processes, state)
