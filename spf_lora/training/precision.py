"""How the U-Net computes: number format, memory layout, what is kept for backward."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def set_up(
    unet: Any,
    *,
    precision: str = "fp32",
    gradient_checkpointing: bool = False,
    channels_last: bool = False,
    compile_blocks: bool = False,
) -> None:
    """Change how a U-Net with its adapter computes; what it computes stays, but for rounding.

    Args:
        unet: in place; its trainable tensors stay in fp32.
        precision: a key of `PRECISIONS`: of the frozen weights and, by autocast, the computation.
        gradient_checkpointing: keep each block's input only and compute the block again in
            backward (arXiv 1604.06174).
        channels_last: keep convolutions' weights with the channels innermost.
        compile_blocks: compile the residual blocks. Not the attention: hooks that come and go
            there would be overlooked.
    """
    dtype = PRECISIONS[precision]
    if dtype != torch.float32:
        for parameter in unet.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
        device = next(unet.parameters()).device.type
        unet.forward = _in_fp32(torch.autocast(device, dtype=dtype)(unet.forward))
    if channels_last:
        for module in unet.modules():
            if isinstance(module, torch.nn.Conv2d):
                weight = module.weight.data
                module.weight.data = weight.contiguous(memory_format=torch.channels_last)
    if gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if compile_blocks:
        for module in unet.modules():
            if type(module).__name__ == "ResnetBlock2D":
                module.compile()


def _in_fp32(forward: Any) -> Any:
    def run(*inputs: Any, **settings: Any) -> Any:
        out = forward(*inputs, **settings)
        return tuple(one.float() for one in out) if isinstance(out, tuple) else out

    return run


@contextmanager
def resting(*models: Any) -> Iterator[None]:
    """Keep models that are not needed for a while out of the GPU's memory."""
    devices = [next(model.parameters()).device for model in models]
    if all(device.type == "cpu" for device in devices):
        yield
        return
    for model in models:
        torch.nn.Module.to(model, "cpu")
    torch.cuda.empty_cache()
    try:
        yield
    finally:
        for model, device in zip(models, devices, strict=True):
            torch.nn.Module.to(model, device)


@contextmanager
def awake(model: Any, *, device: torch.device) -> Iterator[None]:
    """Bring a model that rests back for a while."""
    before = next(model.parameters()).device
    torch.nn.Module.to(model, device)
    try:
        yield
    finally:
        torch.nn.Module.to(model, before)
