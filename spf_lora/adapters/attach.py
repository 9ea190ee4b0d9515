"""Put a trainable LoRA on a U-Net with peft, switch it off and on, and take it off as an adapter.

Drawing with finished adapters goes another way: see `spf_lora.draw.weights`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from spf_lora.adapters.module import Adapter, Module

_PREFIX = "unet."
_DOWN, _UP = ".lora_A.default.weight", ".lora_B.default.weight"
_CROSS = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
_SELF = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
# name -> endings of the U-Net's module names that get an adapter
PRESETS: dict[str, tuple[str, ...]] = {
    "kv": ("attn2.to_k", "attn2.to_v"),
    "cross": _CROSS,
    "attention": _CROSS + _SELF,
    "full": (
        *_CROSS,
        *_SELF,
        "ff.net.0.proj",
        "ff.net.2",
        "proj_in",
        "proj_out",
        "conv1",
        "conv2",
        "conv_shortcut",
    ),
}


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


def trained_adapter(unet: nn.Module, metadata: Mapping[str, str]) -> Adapter:
    """Take the LoRA that `attach_trainable` put on as an adapter in canonical names."""
    alphas = {layer.lora_alpha["default"] for _, layer in _layers(unet)}
    trained = {name: p for name, p in unet.named_parameters() if _DOWN in name or _UP in name}
    return adapter_of(trained, float(alphas.pop()), metadata)


def adapter_of(
    parameters: Mapping[str, torch.Tensor], alpha: float, metadata: Mapping[str, str] | None = None
) -> Adapter:
    """Return the parameters that `attach_trainable` named as an adapter in canonical names."""
    modules = {}
    for name, down in parameters.items():
        if _DOWN in name:
            path = _PREFIX + name.removesuffix(_DOWN)
            up = parameters[name.replace(_DOWN, _UP)]
            modules[path] = Module(path, _numbers(down), _numbers(up), alpha)
    return Adapter(dict(sorted(modules.items())), dict(metadata or {}))


def _numbers(part: torch.Tensor) -> np.ndarray:
    numbers: np.ndarray = part.detach().cpu().float().numpy().copy()
    return numbers
