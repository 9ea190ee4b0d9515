"""`--judge-from DIR`: a judge, prompts and regions for an attribute that only the user knows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spf_lora.cli import out
from spf_lora.cli.options import MeasureOptions
from spf_lora.cli.progress import drawing
from spf_lora.errors import MeasureError

if TYPE_CHECKING:
    from PIL import Image

    from spf_lora.base.load import Base
    from spf_lora.draw.act import Acting
    from spf_lora.draw.sample import Sampling
    from spf_lora.evaluate.judges.fitted import Embed
    from spf_lora.evaluate.judges.judge import Judge
    from spf_lora.evaluate.judges.world import WorldJudge
    from spf_lora.evaluate.own_pictures import OwnPictures
    from spf_lora.evaluate.protocol import Case
    from spf_lora.recipe.schema import Attribute

_DINO, _CLIP = "dinov2", "clip"


def read_judge_from(options: MeasureOptions, attribute: "Attribute") -> "OwnPictures | None":
    """Read the user's pictures, if a judge shall learn from them.

    Raises:
        MeasureError: another judge is named too.
        DataError: the folder cannot be read, or has too few pictures with the attribute.
    """
    if options.judge_from is None:
        return None
    if options.judge is not None:
        raise MeasureError("--judge and --judge-from are two judges", hint="leave one of them out")
    from spf_lora.evaluate.own_pictures import read_own_pictures

    return read_own_pictures(options.judge_from, attribute)


def judge_from(
    own: "OwnPictures",
    attribute: "Attribute",
    cases: "tuple[Case, ...]",
    base: "Base",
    acts: "Acting",
    *,
    options: MeasureOptions,
    sampling: "Sampling",
) -> "tuple[Judge, tuple[Case, ...], list[str]]":
    """Return a judge, the prompts, and what a reader must know of both.

    Args:
        own: the user's pictures.
        attribute: what is measured.
        cases: prompts from a file; without any they are made from the captions.
        base: the model.
        acts: the first adapter, which local drawing finds the region of.
        options: what the user asked for.
        sampling: how pictures are drawn.

    Raises:
        MeasureError: the judge is not good enough to rely on.
    """
    from spf_lora.evaluate import protocol
    from spf_lora.evaluate.gallery import cache_folder
    from spf_lora.evaluate.judges.fitted import FittedJudge
    from spf_lora.evaluate.own_pictures import (
        caption_cases,
        learn_judge,
        learn_regions,
        what_rests_on_what,
    )

    prompts = f"{len(cases)} from {options.prompts}"
    if not cases:
        cases = caption_cases(
            own,
            attribute,
            base,
            prompts=protocol.QUICK_PROMPTS if options.quick else protocol.PROMPTS,
            seeds=options.seeds or (protocol.QUICK_SEEDS if options.quick else protocol.SEEDS),
        )
        prompts = f"{len(cases)} made from the captions in {own.folder}, the attribute taken out"
    embed, seen_by, world = _features(options, attribute, base)
    gallery = cache_folder()
    with drawing("the base's own pictures") as tell:
        fitted = learn_judge(
            own, attribute, base, embed, gallery=gallery, sampling=sampling, tell=tell
        )
    out.say(
        f"judge: right on {fitted.accuracy:.0%} of pictures that it had not seen, "
        f"from {len(own.has_it)} of yours"
    )
    everywhere, region = _mask(options, base), f"the mask {options.mask}"
    regions: dict[bytes, Image.Image] = {}
    if everywhere is None and attribute.scope == "global":
        region = "everywhere, so what it is meant to change counts as pollution too"
    elif everywhere is None:
        region = (
            "where the first adapter itself answers, by the control map of local drawing: an "
            "adapter that answers everywhere is judged too kindly; --mask DIR is stricter"
        )
        with drawing("control maps") as tell:
            regions = learn_regions(
                cases, base, acts, gallery=gallery, sampling=sampling, tell=tell
            )
    name = f"fitted on {len(own.has_it)} pictures, {seen_by}, accuracy {fitted.accuracy:.2f}"
    judge = FittedJudge(name, embed, fitted, regions, everywhere, world)
    remarks = what_rests_on_what(own, attribute, fitted, region=region, prompts=prompts)
    return judge, cases, remarks


def _features(
    options: MeasureOptions, attribute: "Attribute", base: "Base"
) -> "tuple[Embed, str, WorldJudge | None]":
    """Return what turns pictures into features, what it is called, and what names the rest."""
    if options.base == "embedded":
        from spf_lora.evaluate.judges.world import beside_judge

        world = beside_judge(attribute.name, attribute.replaces)
        return world.embed, "the probe's embedding", world
    from spf_lora.evaluate.judges.photographs.clip import ClipJudge
    from spf_lora.evaluate.judges.photographs.sets import Features
    from spf_lora.evaluate.judges.photographs.weights import locate_all

    sources = sources_of(options.scorer or ())
    if _CLIP in sources and _DINO not in sources:
        (folder,) = locate_all((_CLIP,), sources)
        return ClipJudge(folder, base.device, base.text_encoder).embed_image, "CLIP", None
    (folder,) = locate_all((_DINO,), sources)
    return Features(folder, base.device).embed, "DINOv2", None


def _mask(options: MeasureOptions, base: "Base") -> "Image.Image | None":
    if options.mask is None:
        return None
    from spf_lora.draw.pixels import pictures_of
    from spf_lora.evaluate.judges.photographs.masks import read_masks

    white = read_masks(options.mask, ["all"], base.resolution)
    return pictures_of(white.expand(-1, 3, -1, -1) * 2 - 1)[0]


def sources_of(scorers: Sequence[str]) -> dict[str, str]:
    """Return model -> folder of `--scorer MODEL=FOLDER`.

    Raises:
        MeasureError: one cannot be read.
    """
    folders = {}
    for text in scorers:
        model, _, folder = text.partition("=")
        if not model or not folder:
            raise MeasureError(
                f"the scorer {text!r} cannot be read", hint="write it like --scorer clip=FOLDER"
            )
        folders[model] = folder
    return folders
