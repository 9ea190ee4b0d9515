"""Everything that does not change while training: latents and text states, computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import adaptive_max_pool2d, normalize

from spf_lora.base.clip import ClipModel
from spf_lora.base.load import Base
from spf_lora.base.sample import BATCH, GUIDANCE, sample_latents
from spf_lora.base.texts import encode, encode_pooled, token_ids
from spf_lora.method.control_map import rescaled_distances
from spf_lora.method.tokens import token_groups

_TWIN_STEPS = 15


@dataclass(frozen=True)
class Twins:
    """The base's own pictures, one per training picture.

    Attributes:
        latents: scaled, (n, channels, h, w).
        base_states: text states of the prompts they were drawn from, (n, 77, width).
        full_states: of the same prompts with the target, (n, 77, width).
        base_groups: token groups of the first, (n, 77, 77); see `token_groups`.
        full_groups: token groups of the second, (n, 77, 77).
    """

    latents: torch.Tensor
    base_states: torch.Tensor
    full_states: torch.Tensor
    base_groups: torch.Tensor
    full_groups: torch.Tensor


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
        phrases: how far from the target the phrase of each base token is, (n, 77); see
            `rescaled_distances`; 0 where no phrase is.
        twins: the base's own pictures and the prompts they were drawn from, or None where no sample
            needs them.
        masks: where the pictures may be learned, (n, 1, h, w) in [0, 1], or None.
        target: the target text's CLIP embedding, (dim,), or None where no loss needs it.
        embeddings: the pictures' CLIP embeddings, (n, dim), or None.
    """

    latents: torch.Tensor
    base_states: torch.Tensor
    full_states: torch.Tensor
    empty_state: torch.Tensor
    base_groups: torch.Tensor
    full_groups: torch.Tensor
    phrases: torch.Tensor
    twins: Twins | None = None
    masks: torch.Tensor | None = None
    target: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None

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


@torch.no_grad()
def own_pictures(base: Base, prompts: Sequence[str]) -> torch.Tensor:
    """Return scaled latents of the frozen base's own picture of each prompt, (n, channels, h, w).

    The n-th prompt is drawn from the n-th noise.
    """
    rows = []
    for i in range(0, len(prompts), BATCH):
        chunk = prompts[i : i + BATCH]
        seeds = range(i, i + len(chunk))
        rows.append(
            sample_latents(base, encode(base, chunk), seeds, steps=_TWIN_STEPS, guidance=GUIDANCE)
        )
    return torch.cat(rows)


def phrase_distances(
    base: Base, prompts: Sequence[str], phrases: Sequence[Sequence[str]], target_text: str
) -> torch.Tensor:
    """Return (n, 77): on each token of a base phrase, how far it is from the target, in [0, 1].

    Args:
        base: its text encoder's pooled states are compared.
        prompts: the base prompts.
        phrases: of each prompt, in order.
        target_text: the attribute's.
    """
    every = sorted({phrase for row in phrases for phrase in row} | {target_text})
    pooled = normalize(torch.cat([encode_pooled(base, [text]) for text in every]), dim=-1)
    at = {text: i for i, text in enumerate(every)}
    out = torch.zeros(len(prompts), base.tokenizer.model_max_length)
    for row, (prompt, own) in enumerate(zip(prompts, phrases, strict=True)):
        if not own:
            continue
        similarity = pooled[[at[p] for p in own]] @ pooled[at[target_text]]
        found = base.tokenizer(
            prompt, truncation=True, max_length=out.shape[1], return_offsets_mapping=True
        )
        place = 0
        for phrase, distance in zip(own, rescaled_distances(similarity).tolist(), strict=True):
            first = prompt.find(phrase, place)
            if first < 0:
                continue
            place = first + len(phrase)
            for token, (start, end) in enumerate(found.offset_mapping):
                if first <= start and end <= place and end > start:
                    out[row, token] = distance
    return out


@torch.no_grad()
def prepare(
    base: Base,
    pictures: Sequence[Image.Image],
    *,
    base_prompts: Sequence[str],
    full_prompts: Sequence[str],
    phrases: Sequence[Sequence[str]],
    target_text: str,
    twin_prompts: Sequence[tuple[str, str]] = (),
    masks: Sequence[Image.Image] | None = None,
    clip: ClipModel | None = None,
) -> Prepared:
    """Encode pictures and prompts with the frozen base, one by one, so no batch size matters.

    Args:
        base: the frozen model.
        pictures: the training pictures, RGB.
        base_prompts: one per picture, without the target.
        full_prompts: one per picture, with it.
        phrases: of each base prompt.
        target_text: the attribute's.
        twin_prompts: one per picture, without and with the target: the base draws its own pictures
            of the former; or none.
        masks: one per picture, white where the attribute is.
        clip: embeds the pictures for a response loss.
    """
    ids = [token_ids(base.tokenizer, prompts) for prompts in (base_prompts, full_prompts)]
    base_groups, full_groups = token_groups(*ids)
    latents = _encode_pictures(base, pictures)
    size = (latents.shape[2], latents.shape[3])
    embeddings = None
    if clip is not None:
        pixels = (picture_tensor(p, base.resolution)[None].to(base.device) for p in pictures)
        embeddings = torch.cat([clip.embed_image(one) for one in pixels])
    return Prepared(
        latents=latents,
        base_states=torch.cat([encode(base, [p]) for p in base_prompts]),
        full_states=torch.cat([encode(base, [p]) for p in full_prompts]),
        empty_state=encode(base, [""])[0],
        base_groups=base_groups.to(base.device),
        full_groups=full_groups.to(base.device),
        phrases=phrase_distances(base, base_prompts, phrases, target_text).to(base.device),
        twins=_twins(base, twin_prompts) if twin_prompts else None,
        masks=None if masks is None else _masks(masks, base.resolution, size).to(base.device),
        target=None if clip is None else clip.embed_text([target_text])[0],
        embeddings=embeddings,
    )


def _twins(base: Base, prompts: Sequence[tuple[str, str]]) -> Twins:
    """Draw the base's own pictures and encode their prompts, without and with the target."""
    without, asking = [one for one, _ in prompts], [one for _, one in prompts]
    groups = token_groups(token_ids(base.tokenizer, without), token_ids(base.tokenizer, asking))
    return Twins(
        latents=own_pictures(base, without),
        base_states=torch.cat([encode(base, [p]) for p in without]),
        full_states=torch.cat([encode(base, [p]) for p in asking]),
        base_groups=groups[0].to(base.device),
        full_groups=groups[1].to(base.device),
    )


def _masks(masks: Sequence[Image.Image], resolution: int, size: tuple[int, int]) -> torch.Tensor:
    """Return (n, 1, h, w): a latent is free where any of its pixels is."""
    pixels = [picture_tensor(mask.convert("RGB"), resolution)[:1] / 2 + 0.5 for mask in masks]
    return adaptive_max_pool2d(torch.stack(pixels), size)
