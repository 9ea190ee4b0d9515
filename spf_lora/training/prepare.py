"""Everything that does not change while training: latents and text states, computed once."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import adaptive_max_pool2d, normalize, pad

from spf_lora.base.clip import ClipModel
from spf_lora.base.load import Base
from spf_lora.base.texts import encode, encode_pooled, token_ids
from spf_lora.data.buckets import Bucket, fit, nearest_bucket
from spf_lora.data.cache import TensorCache, content_key
from spf_lora.draw.pixels import pixels_of
from spf_lora.draw.sample import BATCH, GUIDANCE, sample_latents
from spf_lora.method.control_map import rescaled_distances
from spf_lora.method.tokens import token_groups
from spf_lora.training.encoders import Encoders

OWN = "draw the base's own pictures"
_OWN_STEPS = 15

Size = tuple[int, int]  # height and width of latents
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """A training set as tensors.

    Pictures of several shapes share one tensor: each is at its upper left, zeros beyond.

    Attributes:
        latents: scaled, (n, channels, h, w).
        sizes: height and width of each row's latents.
        base_states: text states of the base prompts, (n, 77, width); or their token ids, (n, 77),
            where the text encoder is trained too.
        full_states: the same of the full prompts.
        base_groups: token groups of the base prompts, (n, 77, 77); see `token_groups`.
        full_groups: token groups of the full prompts, (n, 77, 77).
        phrases: how far from the target the phrase of each base token is, (n, 77); see
            `rescaled_distances`; 0 where no phrase is. None where no loss needs them.
        own: scaled latents of the base's own pictures of the base prompts, one for each picture and
            as large, (n, channels, h, w); None where no sample needs them.
        masks: where the pictures may be learned, (n, 1, h, w) in [0, 1], or None.
        target: the target text's CLIP embedding, (dim,), or None where no loss needs it.
        embeddings: the pictures' CLIP embeddings, (n, dim), or None.
        repeats: how often each picture is seen while one of 1 is seen once; empty: all alike.
    """

    latents: torch.Tensor
    sizes: tuple[Size, ...]
    base_states: torch.Tensor
    full_states: torch.Tensor
    base_groups: torch.Tensor
    full_groups: torch.Tensor
    phrases: torch.Tensor | None = None
    own: torch.Tensor | None = None
    masks: torch.Tensor | None = None
    target: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None
    repeats: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def commonest_size(self) -> Size:
        """The height and width that most pictures' latents have."""
        return Counter(self.sizes).most_common(1)[0][0]


def _together(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack (channels, h, w) of several sizes, zeros to the right and below."""
    height, width = (max(row.shape[axis] for row in rows) for axis in (1, 2))
    return torch.stack([pad(r, (0, width - r.shape[2], 0, height - r.shape[1])) for r in rows])


@torch.no_grad()
def own_pictures(
    base: Base,
    prompts: Sequence[str],
    sizes: Sequence[Size],
    cache: TensorCache | None = None,
    below: str = "",
    tell: Tell = lambda what, done, total: None,
    *,
    guidance: float = GUIDANCE,
    at_once: int = BATCH,
) -> torch.Tensor:
    """Return scaled latents of the frozen base's own picture of each prompt, (n, channels, h, w).

    The n-th prompt is drawn from the n-th noise, in the n-th size.

    Args:
        base: with the adapters of `below` on.
        prompts: one per picture.
        sizes: one per picture.
        cache: keeps them for other runs.
        below: digest of the adapters that are on.
        tell: called with how many are drawn.
        guidance: CFG scale that they are drawn with.
        at_once: pictures that are drawn together.
    """
    decides = f"{base.id} {base.unet.dtype} {_OWN_STEPS} {guidance} {below}"
    drawn: dict[int, torch.Tensor] = {}
    for size in dict.fromkeys(sizes):
        places = [place for place, of in enumerate(sizes) if of == size]
        for i in range(0, len(places), at_once):
            chunk = places[i : i + at_once]
            texts = [prompts[place] for place in chunk]
            tell(OWN, len(drawn), len(prompts))

            make = partial(_own, base, texts, chunk, size, guidance)
            key = content_key("own pictures", decides, f"{chunk} {size}", *texts)
            rows = make() if cache is None else cache.get(key, make).to(base.device)
            drawn |= dict(zip(chunk, rows, strict=True))
    return _together([drawn[place] for place in range(len(prompts))])


def _own(
    base: Base, texts: Sequence[str], seeds: Sequence[int], size: Size, guidance: float
) -> torch.Tensor:
    states = encode(base, texts)
    how: dict[str, Any] = {"steps": _OWN_STEPS, "guidance": guidance, "size": size}
    return sample_latents(base, states, seeds, **how)


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
        tokens = base.tokenizer(
            prompt, truncation=True, max_length=out.shape[1], return_offsets_mapping=True
        )
        place = 0
        for phrase, distance in zip(own, rescaled_distances(similarity).tolist(), strict=True):
            first = prompt.find(phrase, place)
            if first < 0:
                continue
            place = first + len(phrase)
            for token, (start, end) in enumerate(tokens.offset_mapping):
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
    phrases: Sequence[Sequence[str]] | None,
    target_text: str,
    own: bool = False,
    as_ids: bool = False,
    masks: Sequence[Image.Image] | None = None,
    clip: ClipModel | None = None,
    buckets: Sequence[Bucket] = (),
    repeats: Sequence[int] = (),
    cache: TensorCache | None = None,
    below: str = "",
    tell: Tell = lambda what, done, total: None,
) -> Prepared:
    """Encode pictures and prompts with the frozen base, one by one, so no batch size matters.

    Args:
        base: the frozen model.
        pictures: the training pictures, RGB.
        base_prompts: one per picture, without the target.
        full_prompts: one per picture, with it.
        phrases: of each base prompt, or None where no loss needs them.
        target_text: the attribute's.
        own: whether the base draws its own pictures of the base prompts.
        as_ids: whether prompts stay token ids, for a text encoder that is trained.
        masks: one per picture, white where the attribute is.
        clip: embeds the pictures for a response loss.
        buckets: shapes of pictures, in pixels; without any, the base's own square.
        repeats: see `Prepared`.
        cache: keeps latents, text states and own pictures for other runs.
        below: digest of the adapters that are on.
        tell: called with how many pictures are encoded.
    """
    shapes = list(buckets) or [Bucket(base.resolution, base.resolution)]
    chosen = [nearest_bucket(picture.size, shapes) for picture in pictures]
    fitted = [fit(p, bucket) for p, bucket in zip(pictures, chosen, strict=True)]
    encoders = Encoders(base, cache)
    ids = [token_ids(base.tokenizer, prompts) for prompts in (base_prompts, full_prompts)]
    base_groups, full_groups = token_groups(*ids)
    rows: list[torch.Tensor] = []
    for picture in fitted:
        tell("encode pictures", len(rows), len(fitted))
        rows.append(encoders.latents(picture))
    sizes = [(row.shape[1], row.shape[2]) for row in rows]
    embeddings = None
    if clip is not None:
        pixels = (pixels_of(p)[None].to(base.device) for p in fitted)
        embeddings = torch.cat([clip.embed_image(one) for one in pixels])
    distances = partial(phrase_distances, base, base_prompts, target_text=target_text)
    drawn = None
    if masks is not None:
        drawn = [fit(mask, bucket) for mask, bucket in zip(masks, chosen, strict=True)]
    without, asked = (
        kept.to(base.device) if as_ids else torch.stack([encoders.states(p) for p in prompts])
        for kept, prompts in zip(ids, (base_prompts, full_prompts), strict=True)
    )
    return Prepared(
        latents=_together(rows),
        sizes=tuple(sizes),
        base_states=without,
        full_states=asked,
        base_groups=base_groups.to(base.device),
        full_groups=full_groups.to(base.device),
        phrases=None if phrases is None else distances(phrases).to(base.device),
        own=own_pictures(base, base_prompts, sizes, cache, below, tell) if own else None,
        masks=None if drawn is None else _masks(drawn, sizes).to(base.device),
        target=None if clip is None else clip.embed_text([target_text])[0],
        embeddings=embeddings,
        repeats=tuple(repeats),
    )


def _masks(masks: Sequence[Image.Image], sizes: Sequence[Size]) -> torch.Tensor:
    """Return (n, 1, h, w): a latent is free where any of its pixels is."""
    pixels = [torch.from_numpy(np.array(mask.convert("L"))).float() / 255 for mask in masks]
    pooled = [adaptive_max_pool2d(p[None], size) for p, size in zip(pixels, sizes, strict=True)]
    return _together(pooled)
