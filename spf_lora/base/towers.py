"""Small convolutional image models of the embedded base: CLIP's image tower and the probe.

A convolutional tower learns 64 px portraits far faster than a small ViT (docs/embedded-base.md).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from spf_lora.base.identity import tensors_digest
from spf_lora.base.texts import token_ids
from spf_lora.documents import read_json

WIDTHS = (16, 48, 96, 128, 128)


class Backbone(nn.Module):
    """Convolutions from (batch, 3, 64, 64) pixels in [-1, 1] to (batch, features)."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for index, width in enumerate(widths):
            stride = 1 if index == 0 else 2  # thin things, such as glasses, need the full size
            layers += [
                nn.Conv2d(channels, width, 3, stride, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.features = channels * 4 * 4

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (batch, features)."""
        flat: torch.Tensor = self.layers(pixels).flatten(1)  # (batch, channels * 4 * 4)
        return flat


class ImageTower(nn.Module):
    """The image half of the base's own CLIP."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.projection = nn.Linear(self.backbone.features, dim)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit embeddings (batch, dim) for pixels (batch, 3, 64, 64) in [-1, 1]."""
        return nn.functional.normalize(self.projection(self.backbone(pixels)), dim=-1)


class Probe(nn.Module):
    """A multi-head classifier of every factor and attribute; training never sees it.

    Args:
        heads: head name -> number of classes; an attribute's head has 2 (absent, present).
        embedding_dim: width of the layer before the heads.
    """

    def __init__(self, heads: Mapping[str, int], embedding_dim: int = 128) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.embedding = nn.Linear(self.backbone.features, embedding_dim)
        self.heads = nn.ModuleDict({n: nn.Linear(embedding_dim, c) for n, c in heads.items()})

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the penultimate embedding, (batch, embedding_dim)."""
        return nn.functional.silu(self.embedding(self.backbone(pixels)))

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits per head, (batch, classes), for pixels (batch, 3, 64, 64) in [-1, 1]."""
        embedding = self.embed(pixels)
        return {name: head(embedding) for name, head in self.heads.items()}


class Clip:
    """The base's own CLIP: its text encoder with a projection, and an image tower.

    Args:
        base: the base model whose text encoder is the text tower.
        folder: holds `model.safetensors` with the image tower and the text projection.
    """

    certain = 0.8  # measured on rendered portraits, whose truth is known: docs/method.md
    scale = 30.0  # of logits: it was trained with a sigmoid loss, so no softmax scale was learned

    def __init__(self, base: Any, folder: Path) -> None:
        weights = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
        self.base = base
        self.projection = weights.pop("text_projection.weight").to(base.device)
        self.image = ImageTower(self.projection.shape[0]).to(base.device)
        self.image.load_state_dict({k.removeprefix("image."): v for k, v in weights.items()})
        self.image.requires_grad_(False).eval()

    def digest(self) -> str:
        """Return a digest of its weights."""
        towers = {f"image.{n}": p for n, p in self.image.named_parameters()}
        towers |= {f"text.{n}": p for n, p in self.base.text_encoder.named_parameters()}
        return tensors_digest(towers | {"projection": self.projection})

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit embeddings (texts, dim)."""
        ids = token_ids(self.base.tokenizer, texts).to(self.base.device)
        pooled = self.base.text_encoder(input_ids=ids).pooler_output
        return nn.functional.normalize(pooled @ self.projection.T, dim=-1)

    def embed_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit embeddings (batch, dim) for pixels in [-1, 1]; gradients pass."""
        unit: torch.Tensor = self.image(pixels)
        return unit


def load_probe(folder: Path) -> Probe:
    """Read the probe that measures the embedded world."""
    heads = read_json(folder / "heads.json", most_bytes=1 << 20)
    probe = Probe(heads)
    probe.load_state_dict(
        {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    )
    return probe.requires_grad_(False).eval()
