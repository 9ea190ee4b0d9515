"""How many bytes of tensors a computation holds at its peak: counted, on real or fake tensors."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode


class Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that come and go while the context lasts.

    On fake tensors (`FakeTensorMode`) this costs no memory and no arithmetic, so that a model's
    training step can be weighed without its weights.

    Args:
        known: tensors that were there before and do not count.

    Attributes:
        live: bytes held now.
        peak: the most that was held.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._sizes = {_storage(tensor)._cdata: 0 for tensor in known}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count what it made."""
        if func is torch.ops.aten.convolution_backward.default:
            weight = args[2]  # oneDNN copies it to another layout, and drops the copy
            self.peak = max(self.peak, self.live + weight.nbytes)
        out = func(*args, **(kwargs or {}))
        for one in tree.tree_leaves(out):
            if isinstance(one, torch.Tensor):
                self._count(_storage(one))
        return out

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.live += self._sizes[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)


def _storage(tensor: torch.Tensor) -> Any:
    return tensor.untyped_storage()


def allocated_peak(run: Callable[[], object]) -> int:
    """Return the most bytes that torch's CPU allocator held beyond what it held before, in a run.

    The allocator itself reports each block to the profiler, so this checks `Tally`.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    results: Any = profiled.profiler
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak
