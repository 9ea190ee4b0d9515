"""Who a base model is: a digest of its weights, whatever file they came from."""

import hashlib
from collections.abc import Mapping

import torch


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return sha256 (hex) over names, shapes and float32 values, independent of order and dtype.

    fp16 and bf16 convert to float32 exactly, so the same values give the same digest.
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu", torch.float32).contiguous()
        total.update(f"{name} {tuple(tensor.shape)} ".encode())
        total.update(hashlib.sha256(tensor.numpy().data).digest())
    return total.hexdigest()


def base_id(unet: torch.nn.Module, text_encoder: torch.nn.Module) -> str:
    """Return the base's id, 16 hex digits over the U-Net's and the text encoder's weights.

    transformers 4 and 5 name the text encoder's modules differently; both give one id. Buffers
    that are no weights (position ids) do not count.
    """
    weights = {f"unet.{n}": p for n, p in unet.named_parameters()}
    weights |= {
        f"text_encoder.{n.removeprefix('text_model.')}": p
        for n, p in text_encoder.named_parameters()
    }
    return tensors_digest(weights)[:16]
