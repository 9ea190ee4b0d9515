"""Everything that does not change while training: latents and text states, computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from spf_lora.base.load import Base
from spf_lora.base.texts import encode, token_ids
from spf_lora.method.tokens import token_groups


@dataclass(frozen=True)
class Prepared:
    """A training set as tensors.

    Attributes:
        latents: scaled, (n, channels, h, w).
        base_states: text states of the base prompts, (n, 77, width).
        full_states: text states of the full prompts, (n, 77, width).
        empty_state: text state of no prompt, (77, width).
        base_groups: token groups of the base prompts, (n, 77, 77); see `token_groups`.
        full_groups: token groups of the full prompts, (n, 77, 77).
    """

    latents: torch.Tensor
    base_states: torch.Tensor
    full_states: torch.Tensor
    empty_state: torch.Tensor
    base_groups: torch.Tensor
    full_groups: torch.Tensor

    def __len__(self) -> int:
        return len(self.latents)


def picture_tensor(picture: Image.Image, resolution: int) -> torch.Tensor:
    """Return (3, resolution, resolution) in [-1, 1]: the centre square, resized."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    if side != resolution:
        square = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1


@torch.no_grad()
def _encode_pictures(base: Base, pictures: Sequence[Image.Image]) -> torch.Tensor:
    rows = []
    for picture in pictures:
        pixels = picture_tensor(picture, base.resolution)[None].to(base.device)
        rows.append(base.vae.encode(pixels).latent_dist.mean * base.vae.config.scaling_factor)
    return torch.cat(rows)


def prepare(
    base: Base,
    pictures: Sequence[Image.Image],
    *,
    base_prompts: Sequence[str],
    full_prompts: Sequence[str],
) -> Prepared:
    """Encode pictures and prompts with the frozen base, one by one, so no batch size matters."""
    ids = [token_ids(base.tokenizer, prompts) for prompts in (base_prompts, full_prompts)]
    base_groups, full_groups = token_groups(*ids)
    return Prepared(
        latents=_encode_pictures(base, pictures),
        base_states=torch.cat([encode(base, [p]) for p in base_prompts]),
        full_states=torch.cat([encode(base, [p]) for p in full_prompts]),
        empty_state=encode(base, [""])[0],
        base_groups=base_groups.to(base.device),
        full_groups=full_groups.to(base.device),
    )
