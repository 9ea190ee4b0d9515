"""Where the stages compute: a GPU if there is one; random numbers always come from the CPU."""

import functools

import torch


@functools.cache
def device() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def native_bf16() -> bool:
    """Tell whether bf16 is computed as such; emulated, a step is far slower than in fp32."""
    return device().type == "cuda" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def noise_like(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return standard normal numbers, drawn on the CPU so that a seed means the same everywhere."""
    return torch.randn(tensor.shape, generator=generator).to(tensor.device)
