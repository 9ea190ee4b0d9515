"""Put a trainable LoRA on models with peft, switch it off and on, and take it off as an adapter.

Drawing with finished adapters goes another way: see `spf_lora.draw.weights`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from spf_lora.adapters.module import Adapter, Module

_PREFIX = "unet."
_OF_TEXT = "text_encoder.text_model."
_DOWN, _UP = ".lora_A.default.weight", ".lora_B.default.weight"
_CROSS = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
_SELF = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
_TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")  # as kohya's
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
    return _injected(unet, PRESETS[preset], rank, alpha, seed)


def attach_trainable_text(
    text_encoder: nn.Module, *, rank: int, alpha: float, seed: int
) -> dict[str, nn.Parameter]:
    """Put a fresh LoRA on a frozen CLIP text encoder, on every layer that kohya's trainers adapt.

    Args:
        text_encoder: the frozen model, changed in place.
        rank: of every module.
        alpha: scale is alpha / rank.
        seed: of the down factors' random start.

    Returns:
        The trainable parameters by canonical name, in a fixed order.
    """
    found = _injected(text_encoder, _TEXT_LAYERS, rank, alpha, seed)
    return {_OF_TEXT + name.removeprefix("text_model."): p for name, p in found.items()}


def _injected(
    model: nn.Module, layers: Sequence[str], rank: int, alpha: float, seed: int
) -> dict[str, nn.Parameter]:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(layers))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name="default")
    return {name: p for name, p in sorted(model.named_parameters()) if p.requires_grad}


def _layers(model: nn.Module) -> Iterator[Any]:
    from peft.tuners.lora import LoraLayer

    return (module for module in model.modules() if isinstance(module, LoraLayer))


@contextmanager
def adapter_off(*models: nn.Module) -> Iterator[None]:
    """Run frozen models; afterwards the adapter is on and trainable as before.

    peft's switch rewrites `requires_grad` (peft issue 3447), so it is saved and restored.
    """
    layers = [layer for model in models for layer in _layers(model)]
    wanted = [(p, p.requires_grad) for model in models for p in model.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, grad in wanted:
            parameter.requires_grad_(grad)


@contextmanager
def adapter_at(strength: float, *models: nn.Module) -> Iterator[None]:
    """Run models with their trainable adapter at another strength, negative ones too."""
    layers = [layer for model in models for layer in _layers(model)]
    before = [dict(layer.scaling) for layer in layers]
    for layer in layers:
        layer.scaling = {name: strength * scale for name, scale in layer.scaling.items()}
    try:
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling = scaling


def trained_adapter(
    unet: nn.Module, metadata: Mapping[str, str], *, text_encoder: nn.Module | None = None
) -> Adapter:
    """Take the LoRA that was put on as an adapter in canonical names.

    Args:
        unet: carries it.
        metadata: of the adapter.
        text_encoder: carries a part of it, or nothing.
    """
    alphas = {layer.lora_alpha["default"] for layer in _layers(unet)}
    trained = {name: p for name, p in unet.named_parameters() if _DOWN in name or _UP in name}
    for name, p in text_encoder.named_parameters() if text_encoder is not None else ():
        if _DOWN in name or _UP in name:
            trained[_OF_TEXT + name.removeprefix("text_model.")] = p
    return adapter_of(trained, float(alphas.pop()), metadata)


def adapter_of(
    parameters: Mapping[str, torch.Tensor], alpha: float, metadata: Mapping[str, str] | None = None
) -> Adapter:
    """Return parameters, as the two functions above name them, as an adapter."""
    modules = {}
    for name, down in parameters.items():
        if _DOWN in name:
            path = name.removesuffix(_DOWN)
            path = path if path.startswith(_OF_TEXT) else _PREFIX + path
            up = parameters[name.replace(_DOWN, _UP)]
            modules[path] = Module(path, _numbers(down), _numbers(up), alpha)
    return Adapter(dict(sorted(modules.items())), dict(metadata or {}))


def _numbers(part: torch.Tensor) -> np.ndarray:
    numbers: np.ndarray = part.detach().cpu().float().numpy().copy()
    return numbers
