"""The CLIP that training asks: the embedded base's own, or one in transformers layout.

It completes captions, and the paper's response loss asks it. It is never the judge of a
result: evaluation uses other models (docs/evaluation.md).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn.functional import interpolate, normalize

from spf_lora.base.hub import CLIP, fetch_clip
from spf_lora.base.identity import tensors_digest
from spf_lora.base.load import Base
from spf_lora.errors import BaseModelError

Tell = Callable[[str, int, int], None]

_SD15_WIDTH = 768  # of SD1.5's text encoder
_NAME_ONE = "name one with --set data.clip"
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ClipModel(Protocol):
    """A text and an image tower with one space; `scale` turns cosines into logits."""

    @property
    def scale(self) -> float:
        """Return CLIP's logit scale, learned or chosen."""

    @property
    def certain(self) -> float | None:
        """Return from which probability on it is known to be right, or None where nobody knows."""

    def digest(self) -> str:
        """Return a digest of its weights: who answers."""

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit embeddings (texts, dim)."""

    def embed_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit embeddings (batch, dim) for pixels in [-1, 1]; gradients pass."""


class _TransformersClip:
    certain = None

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


def find_clip(base: Base, spec: str = "base", tell: Tell = lambda what, done, total: None) -> str:
    """Return what `load_clip` is to load for a recipe's `data.clip`.

    A base that draws a world brings its own. What SD1.5's text encoder was cut from is fetched once
    from the hub, unless it is in its cache.

    Args:
        base: the model that is adapted.
        spec: "base" for its own; else a folder or hub id in transformers layout.
        tell: called before anything is fetched, with its size.

    Raises:
        BaseModelError: nobody knows the base's own, or it is neither cached nor to be had.
    """
    if spec not in ("base", CLIP) or (spec == "base" and base.world):
        return spec
    width = base.text_encoder.config.hidden_size
    if spec == "base" and width != _SD15_WIDTH:
        raise BaseModelError(
            f"no CLIP is known to be this base's own: its text encoder is {width} wide, that of "
            f"{CLIP} {_SD15_WIDTH}",
            hint=f"{_NAME_ONE}=FOLDER",
        )
    try:
        return str(fetch_clip(tell))
    except BaseModelError as error:
        raise BaseModelError(
            error.message, hint=f"{_NAME_ONE}=FOLDER, or fetch it: hf download {CLIP}"
        ) from error


def load_clip(base: Base, spec: str = "base") -> ClipModel:
    """Return a CLIP, frozen.

    Args:
        base: the model that is adapted.
        spec: what `find_clip` returned.

    Raises:
        BaseModelError: there is no CLIP at `spec`.
    """
    if spec == "base":
        from spf_lora.base.towers import Clip

        return Clip(base, base.folder / "clip")
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
