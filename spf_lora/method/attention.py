"""Read the cross-attention's queries and keys while the U-Net runs, without changing the run."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Recorder:
    """What the cross-attention layers computed in the last forward pass, by layer name.

    Attributes:
        queries: (batch, pixels, channels).
        keys: (batch, tokens, channels).
        heads: number of heads.
    """

    queries: dict[str, torch.Tensor] = field(default_factory=dict)
    keys: dict[str, torch.Tensor] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)

    def attention(self, layer: str) -> torch.Tensor:
        """Return head-mean attention probabilities, (batch, pixels, tokens)."""
        return attention_map(self.queries[layer], self.keys[layer], heads=self.heads[layer])


def attention_map(queries: torch.Tensor, keys: torch.Tensor, *, heads: int) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(d)) averaged over heads.

    Args:
        queries: (batch, pixels, channels).
        keys: (batch, tokens, channels).
        heads: divides channels.

    Returns:
        (batch, pixels, tokens); each row sums to 1.
    """
    batch, _, channels = queries.shape
    q = queries.reshape(batch, -1, heads, channels // heads).transpose(1, 2)
    k = keys.reshape(batch, -1, heads, channels // heads).transpose(1, 2)
    scores = q @ k.transpose(2, 3) / math.sqrt(channels // heads)  # (batch, heads, pixels, tokens)
    return scores.softmax(dim=-1).mean(dim=1)


@contextmanager
def recording(unet: nn.Module) -> Iterator[Recorder]:
    """Record every cross-attention layer of the U-Net while the context lasts.

    Hooks read the projections' outputs, so the forward pass itself is bitwise the plain one.
    """
    recorder, handles = Recorder(), []

    def keep(store: dict[str, torch.Tensor], layer: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            store[layer] = output

        return hook

    for name, module in unet.named_modules():
        if name.endswith(".attn2"):
            recorder.heads[name] = int(module.heads)
            for store, part in ((recorder.queries, "to_q"), (recorder.keys, "to_k")):
                hook = keep(store, name)
                handles.append(module.get_submodule(part).register_forward_hook(hook))
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.remove()
