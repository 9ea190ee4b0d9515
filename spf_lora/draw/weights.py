"""Add finished adapters to a model's weights and put the very weights back afterwards.

A model that no adapter is on any more is bitwise what it was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from spf_lora.adapters.format.layouts import TEXT_ENCODER
from spf_lora.adapters.module import Adapter, Module
from spf_lora.draw.late import starts_of_each, switched_by_time
from spf_lora.errors import AdapterFileError

_PREFIX = "unet."


@contextmanager
def attached(
    unet: nn.Module,
    adapters: Sequence[tuple[Adapter, float]],
    *,
    text_encoder: nn.Module | None = None,
    start_percent: float | Sequence[float] = 0.0,
) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Add adapters at their strengths to the weights; afterwards the old weights are back.

    Yields what makes the U-Net the frozen one again, while its own context lasts.

    Args:
        unet: changed in place while the context lasts.
        adapters: with their strengths.
        text_encoder: changed too, for adapters that have a part for it. Prompts are encoded once,
            so that part acts from the first step on. Without it such adapters are refused.
        start_percent: share of the sampling's time steps, in [0, 1), in which they do not act yet:
            with 0.4 of 1000 they act at t <= 600. ComfyUI's hooks call it so. Of all, or of each.

    Raises:
        AdapterFileError: an adapter has a module that the models have not, or of another shape.
    """
    saved: dict[str, tuple[nn.Parameter, torch.Tensor]] = {}
    words: dict[str, tuple[nn.Parameter, torch.Tensor]] = {}
    rows = list(zip(adapters, starts_of_each(start_percent, len(adapters)), strict=True))
    starts = sorted({start for _, start in rows})
    added: list[dict[str, torch.Tensor]] = []  # the weights from each start on
    try:
        for adapter, strength in adapters:
            for module in _of_text(adapter, there=True):
                _add(text_encoder, module, strength, words)
        for start in starts:
            for adapter, strength in (row for row, begins in rows if begins == start):
                for module in _of_text(adapter, there=False):
                    _add(unet, module, strength, saved)
            added.append(
                {
                    path: weight.data if start == starts[-1] else weight.data.clone()
                    for path, (weight, _) in saved.items()
                }
            )
        switch = _Switch(saved, added)
        with switched_by_time(unet, starts, switch):
            yield switch.frozen
    finally:
        with torch.no_grad():
            for weight, before in [
                *saved.values(),
                *words.values(),
            ]:  # its name may have changed: peft wraps layers
                weight.copy_(before)


@dataclass
class _Switch:
    """Puts the weights in place that hold when so many starts have begun.

    Attributes:
        saved: each weight with what it was before.
        added: the weights from each start on.
        still: whether they stay what they were before.
    """

    saved: Mapping[str, tuple[nn.Parameter, torch.Tensor]]
    added: Sequence[dict[str, torch.Tensor]]
    still: bool = False

    def __call__(self, count: int) -> None:
        now = self.added[count - 1] if count and not self.still else {}
        for path, (weight, before) in self.saved.items():
            weight.data = now.get(path, before)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Put the old weights in place, without copying any, while the context lasts."""
        self.still = True
        self(0)
        try:
            yield
        finally:
            self.still = False
            self(len(self.added))


def _update(module: Module, strength: float, like: torch.Tensor) -> torch.Tensor:
    down = torch.from_numpy(np.ascontiguousarray(module.down, dtype=np.float32))
    up = torch.from_numpy(np.ascontiguousarray(module.up, dtype=np.float32))
    delta = up.flatten(1) @ down.flatten(1)  # (out, in * kernel)
    if delta.numel() != like.numel():
        raise AdapterFileError(
            f"{module.name} is an update of shape {tuple(delta.shape)}, "
            f"the base's weight is {tuple(like.shape)}",
            hint="the adapter was trained on another model; name that one with --base",
        )
    return (strength * module.scale * delta).reshape(like.shape).to(like)


def _of_text(adapter: Adapter, *, there: bool) -> list[Module]:
    """Return the modules of the text encoder, or all others."""
    every = adapter.modules.items()
    return [module for name, module in every if name.startswith(TEXT_ENCODER) is there]


def path_in(model: nn.Module | None, name: str) -> str:
    """Return where a module with a canonical name is in the U-Net or the text encoder."""
    path = name.removeprefix(_PREFIX).removeprefix(TEXT_ENCODER)
    return path if hasattr(model, "text_model") else path.removeprefix("text_model.")


def weight_of(model: nn.Module | None, name: str) -> nn.Parameter:
    """Return the weight that a module with a canonical name moves.

    Raises:
        AdapterFileError: the model has none of that name.
    """
    try:
        if model is None:
            raise AttributeError(name)
        layer = model.get_submodule(path_in(model, name))
        weight: nn.Parameter = getattr(layer, "base_layer", layer).get_parameter("weight")
    except AttributeError as error:  # peft wraps layers
        raise AdapterFileError(
            f"the base has no module {name} for this adapter",
            hint="the adapter was trained on another architecture; inspect says which",
        ) from error
    return weight


@torch.no_grad()
def _add(
    model: nn.Module | None,
    module: Module,
    strength: float,
    saved: dict[str, tuple[nn.Parameter, torch.Tensor]],
) -> None:
    path = path_in(model, module.name)
    weight = weight_of(model, module.name)
    if path not in saved:
        saved[path] = weight, weight.clone()
    weight.add_(_update(module, strength, weight))
