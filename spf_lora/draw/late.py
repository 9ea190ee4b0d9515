"""Adapters and words that begin late: the first time steps, which lay a picture out, go without."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

TIME_STEPS = 1000  # that SD1.5 was trained with


class Late(NamedTuple):
    """What is drawn until `start_percent`, in [0, 1), of the time steps are over."""

    prompts: Sequence[str]  # one per picture
    start_percent: float


def stages(
    starts: Sequence[float], without: Callable[[list[int]], str]
) -> tuple[tuple[str, float], ...]:
    """Return what to ask for until each start, the earliest first: nothing that has not begun.

    Args:
        starts: when each thing of a prompt begins, in [0, 1).
        without: tells the prompt without some of them, given their places.
    """
    moments = sorted({start for start in starts if start > 0})
    return tuple(
        (without([i for i, start in enumerate(starts) if start >= moment]), moment)
        for moment in moments
    )


def begun(t: float | torch.Tensor, start_percent: float) -> bool:
    """Tell whether a time step is late enough: with a start of 0.4, those up to 600 are."""
    return float(torch.as_tensor(t).max()) <= (1 - start_percent) * TIME_STEPS


def starts_of_each(start_percent: float | Sequence[float], count: int) -> tuple[float, ...]:
    """Return the start of each of `count` adapters, from one for all or from their own."""
    if isinstance(start_percent, float | int):
        return count * (float(start_percent),)
    return tuple(start_percent)


@contextmanager
def switched_by_time(
    unet: nn.Module, starts: Sequence[float], switch: Callable[[int], None]
) -> Iterator[None]:
    """Call `switch` before each of the U-Net's forwards with how many starts have begun by then.

    Args:
        unet: called with the time step as its second argument, or by name.
        starts: shares of the 1000 time steps of Stable Diffusion that are too early.
        switch: called with all of them once more at the end.
    """
    if not any(starts):
        yield
        return

    def hook(_unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        t = args[1] if len(args) > 1 else kwargs["timestep"]
        switch(sum(begun(t, start) for start in starts))

    handle = unet.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
        switch(len(starts))
