"""What a base is, as `spf-lora base inspect` tells it."""

from dataclasses import dataclass
from typing import Any

import torch

from spf_lora.base.load import load_base

_PARTS = ("unet", "vae", "text_encoder")
LAYOUTS = {
    "embedded": "the embedded base",
    "folder": "folder in diffusers layout",
    "file": "single-file checkpoint",
    "hub": "diffusers layout, from the hub's cache",
}


@dataclass(frozen=True)
class BaseFacts:
    """Facts of one base.

    Attributes:
        base: what the user called it.
        id: digest of the U-Net's and text encoder's weights.
        origin: where anyone finds it again.
        layout: one of `LAYOUTS`.
        parameters: part -> number of weights.
        text_width: of the text states.
        prompt_tokens: that a prompt may have, with start and end.
        vocabulary: tokens that the tokenizer knows.
        resolution: side of its pictures in pixels.
        latent_side: of the latents of such a picture.
        prediction: what the U-Net predicts.
    """

    base: str
    id: str
    origin: str
    layout: str
    parameters: dict[str, int]
    text_width: int
    prompt_tokens: int
    vocabulary: int
    resolution: int
    latent_side: int
    prediction: str


def base_facts(spec: str, *, tokenizer: str | None = None) -> BaseFacts:
    """Load a base on the CPU and tell what it is.

    Raises:
        BaseModelError: it cannot be trained on.
    """
    base = load_base(spec, tokenizer=tokenizer, device=torch.device("cpu"))
    return BaseFacts(
        base=spec,
        id=base.id,
        origin=base.origin,
        layout=base.layout,
        parameters={part: _weights(getattr(base, part)) for part in _PARTS},
        text_width=base.unet.config.cross_attention_dim,
        prompt_tokens=base.tokenizer.model_max_length,
        vocabulary=len(base.tokenizer),
        resolution=base.resolution,
        latent_side=base.unet.config.sample_size,
        prediction=base.scheduler.config.prediction_type,
    )


def _weights(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())
