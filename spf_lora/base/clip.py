"""The CLIP that training asks: the embedded base's own, or one in transformers layout.

It completes captions, and the paper's response loss asks it. It is never the judge of a
result: evaluation uses other models (docs/evaluation.md).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn.functional import interpolate, normalize

from spf_lora.base.identity import tensors_digest
from spf_lora.base.load import EMBEDDED, Base
from spf_lora.errors import BaseModelError

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ClipModel(Protocol):
    """A text and an image tower with one space; `scale` turns cosines into logits."""

    @property
    def scale(self) -> float:
        """Return CLIP's logit scale, learned or chosen."""

    def digest(self) -> str:
        """Return a digest of its weights: who answers."""

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit embeddings (texts, dim)."""

    def embed_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit embeddings (batch, dim) for pixels in [-1, 1]; gradients pass."""


class _TransformersClip:
    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.side: int = model.config.vision_config.image_size
        self.scale: float = model.logit_scale.exp().item()

    def digest(self) -> str:
        return f"{tensors_digest(dict(self.model.named_parameters()))} {self.side}"

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        states = self.model.text_model(**tokens.to(self.model.device))
        return normalize(self.model.text_projection(states.pooler_output), dim=-1)

    def embed_image(self, pixels: torch.Tensor) -> torch.Tensor:
        size = (self.side, self.side)
        small = interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False)
        mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (_MEAN, _STD))
        states = self.model.vision_model(((small + 1) / 2 - mean) / std)
        return normalize(self.model.visual_projection(states.pooler_output), dim=-1)


def brings_clip(base: Base, spec: str = "base") -> bool:
    """Tell whether `load_clip` has one to load: a named one, or the base's own."""
    return spec != "base" or base.folder == EMBEDDED


def load_clip(base: Base, spec: str = "base") -> ClipModel:
    """Return the CLIP of a response loss, frozen.

    Args:
        base: the model that is adapted.
        spec: "base" for the embedded base's own; else a folder or hub id in transformers layout,
            such as openai/clip-vit-large-patch14 (1.7 GB), whose text tower is SD1.5's.

    Raises:
        BaseModelError: the base has none, or there is no CLIP at `spec`.
    """
    if spec == "base":
        if base.folder != EMBEDDED:
            raise BaseModelError(
                "a response loss needs a CLIP, and only the embedded base brings its own",
                hint="name one with --set data.clip=openai/clip-vit-large-patch14 or a local "
                "folder, or another training.method",
            )
        from spf_lora.base.towers import Clip

        return Clip(base, EMBEDDED / "clip")
    from transformers import CLIPModel, CLIPTokenizerFast

    try:
        model = CLIPModel.from_pretrained(spec, dtype=torch.float32, use_safetensors=True)
        tokenizer = CLIPTokenizerFast.from_pretrained(spec)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        here = Path(spec).exists()
        raise BaseModelError(
            f"there is no CLIP to load at {spec}: {str(error).splitlines()[0]}",
            hint="the folder needs config.json, model.safetensors and the tokenizer"
            if here
            else f"fetch it with: hf download {spec}",
        ) from error
    return _TransformersClip(model.requires_grad_(False).eval().to(base.device), tokenizer)
