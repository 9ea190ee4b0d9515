"""The dual path: the frozen model on the base prompt beside the adapter on the full prompt.

SPF-Portrait (arXiv 2504.00396), sec. 3: the reference path tells what the picture would be
without the attribute, the response path is what the adapter makes of it, from one noise.
"""

from dataclasses import dataclass
from typing import Any

import torch

from spf_lora.adapters.attach import adapter_off
from spf_lora.method.attention import recording


@dataclass(frozen=True)
class Path:
    """One pass of the U-Net.

    Attributes:
        eps: predicted noise, (batch, channels, h, w).
        queries: layer -> (batch, pixels, channels).
        attention: layer -> head-mean probabilities, (batch, pixels, tokens).
    """

    eps: torch.Tensor
    queries: dict[str, torch.Tensor]
    attention: dict[str, torch.Tensor]


def _run(
    unet: Any, noisy: torch.Tensor, t: torch.Tensor, states: torch.Tensor, watched: bool
) -> Path:
    if not watched:
        return Path(unet(noisy, t, states, return_dict=False)[0], {}, {})
    with recording(unet) as recorder:
        eps = unet(noisy, t, states, return_dict=False)[0]
    attention = {layer: recorder.attention(layer) for layer in recorder.queries}
    return Path(eps, dict(recorder.queries), attention)


def dual_path(
    unet: Any,
    noisy: torch.Tensor,
    t: torch.Tensor,
    *,
    base_states: torch.Tensor,
    full_states: torch.Tensor,
    watched: bool = True,
) -> tuple[Path, Path]:
    """Run both paths on the same noisy latents; the reference first and without gradient.

    Args:
        unet: carries the adapter that `attach_trainable` put on.
        noisy: noisy latents, (batch, channels, h, w).
        t: time steps, (batch,).
        base_states: text states of the base prompts, (batch, 77, width).
        full_states: text states of the full prompts, (batch, 77, width).
        watched: whether queries and attention are wanted; without them the paths cost less.

    Returns:
        The reference (adapter off, base prompt) and the response (adapter on, full prompt).
    """
    with torch.no_grad(), adapter_off(unet):
        reference = _run(unet, noisy, t, base_states, watched)
    return reference, _run(unet, noisy, t, full_states, watched)
