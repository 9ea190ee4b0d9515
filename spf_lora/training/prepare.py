"""Everything that does not change while training: latents and text states, computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import adaptive_max_pool2d, normalize, pad

from spf_lora.base.clip import ClipModel
from spf_lora.base.load import Base
from spf_lora.base.texts import encode, encode_pooled, token_ids
from spf_lora.data.buckets import Bucket, fit, nearest_bucket
from spf_lora.data.cache import TensorCache
from spf_lora.draw.late import Late
from spf_lora.draw.sample import BATCH, GUIDANCE, sample_latents
from spf_lora.method.control_map import rescaled_distances
from spf_lora.method.tokens import token_groups
from spf_lora.training.encoders import Encoders, pixels_of

_TWIN_STEPS = 15

Size = tuple[int, int]  # height and width of latents


@dataclass(frozen=True)
class Twins:
    """The base's own pictures, the same number for each training picture.

    The n pictures' first ones come first, then their second ones. One is as large as its picture.

    Attributes:
        latents: scaled, (m, channels, h, w).
        base_states: text states of the prompts they were drawn from, (m, 77, width).
        full_states: of the same prompts with the target, (m, 77, width).
        base_groups: token groups of the first, (m, 77, 77); see `token_groups`.
        full_groups: token groups of the second, (m, 77, 77).
    """

    latents: torch.Tensor
    base_states: torch.Tensor
    full_states: torch.Tensor
    base_groups: torch.Tensor
    full_groups: torch.Tensor


@dataclass(frozen=True)
class Prepared:
    """A training set as tensors.

    Pictures of several shapes share one tensor: each is at its upper left, zeros beyond.

    Attributes:
        latents: scaled, (n, channels, h, w).
        sizes: height and width of each row's latents.
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
    sizes: tuple[Size, ...]
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


def _together(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack (channels, h, w) of several sizes, zeros to the right and below."""
    height, width = (max(row.shape[axis] for row in rows) for axis in (1, 2))
    return torch.stack([pad(r, (0, width - r.shape[2], 0, height - r.shape[1])) for r in rows])


@torch.no_grad()
def own_pictures(
    base: Base, prompts: Sequence[str], sizes: Sequence[Size] | None = None,
    late: Sequence[Late] = (),
) -> torch.Tensor:  # fmt: skip
    """Return scaled latents of the frozen base's own picture of each prompt, (n, channels, h, w).

    The n-th prompt is drawn from the n-th noise, in the n-th size; without sizes, in the base's.
    With `late` it comes after others.
    """
    own = int(base.unet.config.sample_size)
    wanted = list(sizes) if sizes is not None else [(own, own)] * len(prompts)
    drawn: dict[int, torch.Tensor] = {}
    for size in dict.fromkeys(wanted):
        places = [place for place, of in enumerate(wanted) if of == size]
        for i in range(0, len(places), BATCH):
            chunk = places[i : i + BATCH]
            before = [Late([one.prompts[p] for p in chunk], one.start_percent) for one in late]
            rows = sample_latents(
                base, encode(base, [prompts[place] for place in chunk]), chunk,
                steps=_TWIN_STEPS, guidance=GUIDANCE, size=size, late=before,
            )  # fmt: skip
            drawn |= dict(zip(chunk, rows, strict=True))
    return _together([drawn[place] for place in range(len(prompts))])


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
    buckets: Sequence[Bucket] = (),
    cache: TensorCache | None = None,
) -> Prepared:
    """Encode pictures and prompts with the frozen base, one by one, so no batch size matters.

    Args:
        base: the frozen model.
        pictures: the training pictures, RGB.
        base_prompts: one per picture, without the target.
        full_prompts: one per picture, with it.
        phrases: of each base prompt.
        target_text: the attribute's.
        twin_prompts: as many for each picture as `Twins` should hold, without and with the
            target: the base draws its own pictures of the former; or none.
        masks: one per picture, white where the attribute is.
        clip: embeds the pictures for a response loss.
        buckets: shapes of pictures, in pixels; without any, the base's own square.
        cache: keeps latents and text states for other runs.
    """
    shapes = list(buckets) or [Bucket(base.resolution, base.resolution)]
    chosen = [nearest_bucket(picture.size, shapes) for picture in pictures]
    fitted = [fit(p, bucket) for p, bucket in zip(pictures, chosen, strict=True)]
    encoders = Encoders(base, cache)
    ids = [token_ids(base.tokenizer, prompts) for prompts in (base_prompts, full_prompts)]
    base_groups, full_groups = token_groups(*ids)
    rows = [encoders.latents(picture) for picture in fitted]
    sizes = [(row.shape[1], row.shape[2]) for row in rows]
    embeddings = None
    if clip is not None:
        pixels = (pixels_of(p)[None].to(base.device) for p in fitted)
        embeddings = torch.cat([clip.embed_image(one) for one in pixels])
    drawn = None
    if masks is not None:
        drawn = [fit(mask, bucket) for mask, bucket in zip(masks, chosen, strict=True)]
    return Prepared(
        latents=_together(rows),
        sizes=tuple(sizes),
        base_states=torch.stack([encoders.states(p) for p in base_prompts]),
        full_states=torch.stack([encoders.states(p) for p in full_prompts]),
        empty_state=encoders.states(""),
        base_groups=base_groups.to(base.device),
        full_groups=full_groups.to(base.device),
        phrases=phrase_distances(base, base_prompts, phrases, target_text).to(base.device),
        twins=_twins(base, twin_prompts, sizes, encoders) if twin_prompts else None,
        masks=None if drawn is None else _masks(drawn, sizes).to(base.device),
        target=None if clip is None else clip.embed_text([target_text])[0],
        embeddings=embeddings,
    )


def _twins(
    base: Base,
    prompts: Sequence[tuple[str, str]],
    sizes: Sequence[Size],
    encoders: Encoders,
) -> Twins:
    """Draw the base's own pictures and encode their prompts, without and with the target."""
    without, asking = [one for one, _ in prompts], [one for _, one in prompts]
    groups = token_groups(token_ids(base.tokenizer, without), token_ids(base.tokenizer, asking))
    return Twins(
        latents=own_pictures(base, without, [*sizes] * (len(prompts) // len(sizes))),
        base_states=torch.stack([encoders.states(p) for p in without]),
        full_states=torch.stack([encoders.states(p) for p in asking]),
        base_groups=groups[0].to(base.device),
        full_groups=groups[1].to(base.device),
    )


def _masks(masks: Sequence[Image.Image], sizes: Sequence[Size]) -> torch.Tensor:
    """Return (n, 1, h, w): a latent is free where any of its pixels is."""
    pixels = [torch.from_numpy(np.array(mask.convert("L"))).float() / 255 for mask in masks]
    pooled = [adaptive_max_pool2d(p[None], size) for p, size in zip(pixels, sizes, strict=True)]
    return _together(pooled)
