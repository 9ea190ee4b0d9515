"""Measuring an attribute that only the user knows: from pictures of it, with captions.

The judge learns from the user's pictures against the base's own; prompts come from the captions;
where the attribute may act comes from a mask, or from the control maps of local drawing.
"""

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image, ImageFilter

from spf_lora.base.load import Base
from spf_lora.base.texts import cut_off
from spf_lora.data.buckets import Bucket, fit
from spf_lora.data.captions import base_prompt, has_target, unsafe_sentence
from spf_lora.data.kohya_folders import list_training_folder
from spf_lora.data.pictures import open_picture
from spf_lora.draw.act import NOTHING, Acting, text_states
from spf_lora.draw.local import local_maps
from spf_lora.draw.pixels import pictures_of, pixels_of
from spf_lora.draw.sample import Sampling, decode
from spf_lora.errors import DataError, MeasureError
from spf_lora.evaluate.draw_missing import Painter, Wanted, painter
from spf_lora.evaluate.gallery import has_picture, read_picture, write_picture
from spf_lora.evaluate.judges.fitted import FEWEST, Embed, Fitted, fit_judge, picture_key
from spf_lora.evaluate.protocol import Case, cases_of
from spf_lora.recipe.schema import Attribute

OWN = 48  # pictures of the base's own that the judge learns from
_FIRST_SEED = 7_000_000  # far from those that are measured on
_ACTS = 0.25  # of a control map: from here on the attribute may act
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class OwnPictures:
    """The user's pictures.

    Attributes:
        folder: where they lie.
        has_it: pictures whose captions name the attribute.
        without: pictures whose captions do not.
        captions: of the former.
    """

    folder: Path
    has_it: list[Image.Image]
    without: list[Image.Image]
    captions: list[str]


def read_own_pictures(folder: Path, attribute: Attribute) -> OwnPictures:
    """Read pictures with captions; those that do not name the attribute are examples without it.

    Raises:
        DataError: the folder cannot be read, or has too few pictures with the attribute.
    """
    listing = list_training_folder(folder)
    has_it, without, captions = list[Image.Image](), list[Image.Image](), list[str]()
    for name, path in listing.pictures.items():
        caption = listing.captions.get(name)
        if caption is None:
            continue
        try:
            picture = open_picture(path).image
        except ValueError:
            continue  # `data check` tells of it
        if not has_target(caption.text, attribute):
            without.append(picture)
        elif unsafe_sentence(caption.text, attribute) is None:
            has_it.append(picture)
            captions.append(caption.text)
    if len(has_it) < FEWEST:
        raise DataError(
            f"{folder} has {len(has_it)} pictures whose captions say {attribute.target_text!r}; "
            f"a judge needs {FEWEST}",
            hint=f"spf-lora data check {folder} tells what is wrong with the others",
        )
    return OwnPictures(folder, has_it, without, captions)


def caption_cases(
    own: OwnPictures, attribute: Attribute, base: Base, *, prompts: int, seeds: int
) -> tuple[Case, ...]:
    """Return prompts made from the captions, each once, as many as there are up to `prompts`.

    Raises:
        MeasureError: no caption says anything but the attribute.
    """
    texts = list(dict.fromkeys(base_prompt(caption, attribute) for caption in own.captions))
    random.Random("prompts from captions").shuffle(texts)
    cases = [
        case
        for case in cases_of([text for text in texts if text], attribute, seeds=seeds)
        if not cut_off(base.tokenizer, case.prompt)
    ]
    if not cases:
        raise MeasureError(
            "no caption can be a prompt: they say the attribute alone, or are too long",
            hint="give a file of prompts, one a line: --prompts FILE",
        )
    return tuple(cases[:prompts])


def learn_judge(
    own: OwnPictures,
    attribute: Attribute,
    base: Base,
    embed: Embed,
    *,
    gallery: Path,
    sampling: Sampling,
    tell: Progress,
) -> Fitted:
    """Fit a judge on the user's pictures against the base's own.

    The user's pictures go through the base's autoencoder first, so that its traces tell nothing.

    Args:
        own: the user's pictures.
        attribute: what is to be seen.
        base: the model.
        embed: features of pictures.
        gallery: the picture cache.
        sampling: how the base draws its own.
        tell: told how many of them are drawn.

    Raises:
        MeasureError: the judge is not good enough to rely on.
    """
    paint = painter(base, NOTHING, folder=gallery, sampling=sampling)
    prompts = list(dict.fromkeys(base_prompt(caption, attribute) for caption in own.captions))
    wanted = [
        Wanted(prompts[i % len(prompts)], _FIRST_SEED + i) for i in range(max(OWN, len(prompts)))
    ]
    paint.draw(wanted, tell)
    drawn = [pixels_of(read_picture(gallery, paint.key(one))) for one in wanted]
    return fit_judge(
        embed,
        _as_the_base_shows(own.has_it, base),
        _as_the_base_shows(own.without, base),
        torch.stack(drawn),
    )


@torch.no_grad()
def _as_the_base_shows(pictures: Sequence[Image.Image], base: Base) -> torch.Tensor:
    """Return pictures as they look behind the autoencoder, (pictures, 3, side, side)."""
    side = base.resolution
    weights = next(base.vae.parameters())
    rows = []
    for picture in pictures:
        pixels = pixels_of(fit(picture, Bucket(side, side)))[None].to(base.device, weights.dtype)
        latents = base.vae.encode(pixels).latent_dist.mean * base.vae.config.scaling_factor
        rows.append(pixels_of(decode(base, latents)[0]))
    return torch.stack(rows) if rows else torch.zeros(0, 3, side, side)


def learn_regions(
    cases: Sequence[Case],
    base: Base,
    acts: Acting,
    *,
    gallery: Path,
    sampling: Sampling,
    tell: Progress,
) -> dict[bytes, Image.Image]:
    """Return where an adapter answers in the base's pictures, found by drawing locally.

    Args:
        cases: prompts and seeds.
        base: the model.
        acts: the adapter at full strength.
        gallery: the picture cache; maps are kept there too.
        sampling: how pictures are drawn.
        tell: told how many maps are found.
    """
    own, paint = (painter(base, a, folder=gallery, sampling=sampling) for a in (NOTHING, acts))
    pairs = [(case, seed) for case in cases for seed in case.seeds]
    tell(0, len(pairs))
    own.draw([Wanted(case.base_prompt, seed) for case, seed in pairs])
    maps: dict[bytes, Image.Image] = {}
    for start in range(0, len(pairs), sampling.batch_size):
        some = pairs[start : start + sampling.batch_size]
        keys = [_map_key(paint, case, seed) for case, seed in some]
        if not all(has_picture(gallery, key) for key in keys):
            for key, picture in zip(keys, _maps(some, base, acts, sampling), strict=True):
                write_picture(gallery, key, picture)
        for key, (case, seed) in zip(keys, some, strict=True):
            before = read_picture(gallery, own.key(Wanted(case.base_prompt, seed)))
            maps[picture_key(before)] = read_picture(gallery, key)
        tell(min(start + len(some), len(pairs)), len(pairs))
    return maps


def _maps(
    pairs: Sequence[tuple[Case, int]], base: Base, acts: Acting, sampling: Sampling
) -> list[Image.Image]:
    """Return a picture of each control map, white where the adapter may act."""
    texts = [case.prompt for case, _ in pairs]
    maps = local_maps(
        base,
        text_states(base, texts),
        [seed for _, seed in pairs],
        within=text_states(base, [case.base_prompt for case, _ in pairs]),
        acting=partial(acts.on, base, texts),
        steps=sampling.steps,
        guidance=sampling.guidance,
    )
    side = (base.resolution, base.resolution)
    large = torch.nn.functional.interpolate(maps.float(), side, mode="bilinear")
    white = (large > _ACTS).float().expand(-1, 3, -1, -1) * 2 - 1
    reach = 2 * max(1, base.resolution // 32) + 1
    return [picture.filter(ImageFilter.MaxFilter(reach)) for picture in pictures_of(white)]


def _map_key(paint: Painter, case: Case, seed: int) -> str:
    picture = paint.key(Wanted(case.prompt, seed, 1.0, within=case.base_prompt))
    return hashlib.sha256(json.dumps(["control map", 1, picture]).encode()).hexdigest()[:40]


def what_rests_on_what(
    own: OwnPictures, attribute: Attribute, fitted: Fitted, *, region: str, prompts: str
) -> list[str]:
    """Return the sentences that a report must begin with, where a judge was fitted.

    Args:
        own: the user's pictures.
        attribute: what is seen.
        fitted: the judge.
        region: where the attribute may act, in words.
        prompts: where the prompts are from, in words.
    """
    target = attribute.target_text
    sentences = [
        f"{target!r} is seen by a judge that learned from {len(own.has_it)} of your pictures with "
        f"it, {len(own.without)} without it and the base's own: it is right on "
        f"{fitted.accuracy:.0%} of pictures that it had not seen",
        f"where it may act: {region}",
        f"prompts: {prompts}",
    ]
    if fitted.own_without is None:
        sentences.append(
            "none of your pictures is without it, so the judge may know your pictures by their "
            f"style: add {FEWEST} of the same kind whose captions do not say {target!r}"
        )
    elif fitted.own_without < 0.8:
        sentences.append(
            f"of your pictures without it only {fitted.own_without:.0%} are told rightly: the "
            "judge knows your pictures by their style, and what it sees means little"
        )
    return sentences
