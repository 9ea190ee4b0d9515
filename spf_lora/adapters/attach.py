"""Put adapters on a U-Net and take them off again: what is switched is switched back.

Training goes through peft; drawing adds the update to the weights and afterwards puts the very
weights back, so that a detached U-Net is bitwise what it was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from spf_lora.adapters.module import Adapter, Module
from spf_lora.base.sample import begun
from spf_lora.errors import AdapterFileError

_PREFIX = "unet."
_CROSS = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
_SELF = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
# name -> endings of the U-Net's module names that get an adapter
PRESETS: dict[str, tuple[str, ...]] = {
    "kv": ("attn2.to_k", "attn2.to_v"),
    "cross": _CROSS,
    "attention": _CROSS + _SELF,
    "full": (
        *_CROSS, *_SELF, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2",
        "conv_shortcut",
    ),
}  # fmt: skip


def attach_trainable(
    unet: nn.Module, *, preset: str, rank: int, alpha: float, seed: int
) -> dict[str, nn.Parameter]:
    """Put a fresh LoRA on a frozen U-Net with peft; its update is zero until trained.

    Args:
        unet: the frozen model, changed in place.
        preset: a key of `PRESETS`.
        rank: of every module.
        alpha: scale is alpha / rank.
        seed: of the down factors' random start.

    Returns:
        The trainable parameters by name, in a fixed order.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(PRESETS[preset]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, unet, adapter_name="default")
    return {name: p for name, p in sorted(unet.named_parameters()) if p.requires_grad}


def _layers(unet: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in unet.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


@contextmanager
def adapter_off(unet: nn.Module) -> Iterator[None]:
    """Run the frozen model; afterwards the adapter is on and trainable as before.

    peft's switch rewrites `requires_grad` (peft issue 3447), so it is saved and restored.
    """
    layers = [layer for _, layer in _layers(unet)]
    wanted = [(p, p.requires_grad) for p in unet.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, grad in wanted:
            parameter.requires_grad_(grad)


def set_alpha(unet: nn.Module, alpha: float) -> None:
    """Scale the LoRA that `attach_trainable` put on by alpha / rank."""
    for _, layer in _layers(unet):
        layer.lora_alpha["default"] = alpha
        layer.scaling["default"] = alpha / layer.r["default"]


def trained_adapter(unet: nn.Module, metadata: Mapping[str, str]) -> Adapter:
    """Take the LoRA that `attach_trainable` put on as an adapter in canonical names."""
    modules = {}
    for path, layer in _layers(unet):
        name = _PREFIX + path
        down = layer.lora_A["default"].weight.detach().cpu().float().numpy()
        up = layer.lora_B["default"].weight.detach().cpu().float().numpy()
        modules[name] = Module(name, down, up, float(layer.lora_alpha["default"]))
    return Adapter(dict(sorted(modules.items())), dict(metadata))


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


def starts_of_each(start_percent: float | Sequence[float], count: int) -> tuple[float, ...]:
    """Return the start of each of `count` adapters, from one for all or from their own."""
    if isinstance(start_percent, float | int):
        return count * (float(start_percent),)
    return tuple(start_percent)


@contextmanager
def attached(
    unet: nn.Module, adapters: Sequence[tuple[Adapter, float]], *,
    start_percent: float | Sequence[float] = 0.0,
) -> Iterator[None]:  # fmt: skip
    """Add adapters at their strengths to the U-Net's weights; afterwards the old weights are back.

    Args:
        unet: changed in place while the context lasts.
        adapters: with their strengths.
        start_percent: share of the sampling's time steps, in [0, 1), in which they do not act yet:
            with 0.4 of 1000 they act at t <= 600. ComfyUI's hooks call it so. Of all, or of each.

    Raises:
        AdapterFileError: an adapter has a module that this U-Net has not, or of another shape.
    """
    saved: dict[str, tuple[nn.Parameter, torch.Tensor]] = {}
    rows = list(zip(adapters, starts_of_each(start_percent, len(adapters)), strict=True))
    starts = sorted({start for _, start in rows})
    added: list[dict[str, torch.Tensor]] = []  # the weights from each start on
    try:
        for start in starts:
            for adapter, strength in (row for row, begins in rows if begins == start):
                for name, module in adapter.modules.items():
                    _add(unet, name, module, strength, saved)
            added.append({
                path: weight.data if start == starts[-1] else weight.data.clone()
                for path, (weight, _) in saved.items()
            })  # fmt: skip
        with switched_by_time(unet, starts, _switch(saved, added)):
            yield
    finally:
        with torch.no_grad():
            for weight, before in saved.values():  # its name may have changed: peft wraps layers
                weight.copy_(before)


def _switch(
    saved: Mapping[str, tuple[nn.Parameter, torch.Tensor]], added: Sequence[dict[str, torch.Tensor]]
) -> Callable[[int], None]:
    """Return what puts the weights in place that hold when so many starts have begun."""

    def switch(count: int) -> None:
        now = added[count - 1] if count else {}
        for path, (weight, before) in saved.items():
            weight.data = now.get(path, before)

    return switch


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


@torch.no_grad()
def _add(
    unet: nn.Module, name: str, module: Module, strength: float,
    saved: dict[str, tuple[nn.Parameter, torch.Tensor]],
) -> None:  # fmt: skip
    path = name.removeprefix(_PREFIX)
    try:
        weight = unet.get_parameter(f"{path}.weight")
    except AttributeError as error:
        raise AdapterFileError(
            f"the base has no module {name} for this adapter",
            hint="text encoder adapters and other architectures cannot be drawn with here",
        ) from error
    if path not in saved:
        saved[path] = weight, weight.clone()
    weight.add_(_update(module, strength, weight))
