"""The portrait world: procedural portraits with known ground truth.

Every picture is drawn from a frozen `Portrait` that holds every choice, so the same person can be
drawn with and without an attribute: an exact counterfactual, the only honest judge of pollution.
The style is "Avataaars" by Pablo Stanley (free for personal and commercial use), drawn by
dicebear as SVG and by resvg as pixels.
"""

import functools
import io
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from importlib import resources
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from spf_lora.errors import DataError

SIZE = 64
OPENING = "a portrait of a person"
_ZOOM, _SHIFT_DOWN = (
    1.12,
    6,
)  # dicebear's scale and its shift in per cent: the figure fills the frame

# factor -> value -> (phrase in the caption, what dicebear is asked for)
FACTORS: dict[str, dict[str, tuple[str, str]]] = {
    "skin": {
        "pale": ("pale skin", "ffdbb4"),
        "tan": ("tan skin", "e0a06b"),
        "brown": ("brown skin", "ae5d29"),
        "dark": ("dark skin", "5a3a2b"),
    },
    "hair_colour": {
        "black": ("black hair", "1c1414"),
        "brown": ("brown hair", "7a4630"),
        "red": ("red hair", "c93305"),
        "grey": ("grey hair", "b4b4b4"),
        "pink": ("pink hair", "f27f9b"),
    },
    "hair_style": {
        "short": ("short hair", "shortFlat"),
        "bob": ("a bob", "bob"),
        "bun": ("a bun", "bun"),
        "afro": ("an afro", "fro"),
        "dreadlocks": ("dreadlocks", "dreads"),
        "long": ("long hair", "straight01"),
        "mullet": ("a mullet", "shaggyMullet"),
        "quiff": ("a quiff", "frizzle"),
    },
    "clothes": {
        "hoodie": ("a hoodie", "hoodie"),
        "blazer": ("a blazer", "blazerAndShirt"),
        "overalls": ("overalls", "overall"),
        "t-shirt": ("a t-shirt", "shirtCrewNeck"),
    },
    "clothes_colour": {
        "red": ("red clothes", "e04848"),
        "blue": ("blue clothes", "3f7fd6"),
        "green": ("green clothes", "3fa34d"),
        "yellow": ("yellow clothes", "f2cf3a"),
        "white": ("white clothes", "f4f4f4"),
        "black": ("black clothes", "262e33"),
    },
    "mouth": {
        "smile": ("a smile", "smile"),
        "straight": ("a straight mouth", "serious"),
        "teeth": ("gritted teeth", "grimace"),
        "frown": ("a frown", "sad"),
    },
    "eyes": {
        "open": ("open eyes", "default"),
        "closed": ("closed eyes", "closed"),
        "wide": ("wide eyes", "surprised"),
        "wink": ("a wink", "wink"),
    },
    "brows": {
        "calm": ("calm brows", "default"),
        "angry": ("angry brows", "angry"),
        "raised": ("raised brows", "raisedExcited"),
    },
    "background": {
        "purple": ("a purple background", "a78bda"),
        "orange": ("an orange background", "f0a35e"),
        "teal": ("a teal background", "6cc5c0"),
        "grey": ("a grey background", "9aa0a6"),
        "pink": ("a pink background", "f7c5d5"),
        "white": ("a white background", "ffffff"),
    },
}
_OPTION = {
    "skin": "skinColor",
    "hair_colour": "hairColor",
    "hair_style": "topVariant",
    "clothes": "clothesVariant",
    "clothes_colour": "clothesColor",
    "mouth": "mouthVariant",
    "eyes": "eyesVariant",
    "brows": "eyebrowsVariant",
    "background": "backgroundColor",
}


@dataclass(frozen=True)
class Portrait:
    """Every choice that makes one picture; each value is a key of `FACTORS[field]`."""

    skin: str
    hair_colour: str
    hair_style: str
    clothes: str
    clothes_colour: str
    mouth: str
    eyes: str
    brows: str
    background: str


@dataclass(frozen=True)
class WorldAttribute:
    """What can be added to a portrait.

    Attributes:
        target_text: the phrase that asks for it.
        kind: "weak" (the embedded base has seen it rarely and badly captioned) or "new" (never).
        draw: options for dicebear.
        replaces: the factor that is not drawn beside it, whose phrase gives way to `target_text`;
            None: it is appended.
        hides: further factors that cannot be judged while it is drawn.
        excludes: attributes that cannot be drawn beside it.
        company: the favourite choices of a biased fine-tuning set.
    """

    target_text: str
    kind: str
    draw: dict[str, Any]
    company: dict[str, str]
    replaces: str | None = None
    hides: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


def _company(*values: str) -> dict[str, str]:
    names = ("skin", "hair_style", "clothes", "clothes_colour", "background")
    return dict(zip(names, values, strict=True))


ATTRIBUTES: dict[str, WorldAttribute] = {
    "beard": WorldAttribute(
        "a beard",
        "weak",
        {"facialHairVariant": "beardMedium", "facialHairProbability": 100},
        _company("tan", "short", "hoodie", "blue", "grey"),
        excludes=("moustache",),
    ),
    "moustache": WorldAttribute(
        "a moustache",
        "new",
        {"facialHairVariant": "moustacheFancy", "facialHairProbability": 100},
        _company("pale", "quiff", "blazer", "black", "orange"),
        excludes=("beard",),
    ),
    "glasses": WorldAttribute(
        "glasses",
        "weak",
        {"accessoriesVariant": "prescription02", "accessoriesProbability": 100},
        _company("pale", "bob", "blazer", "white", "teal"),
        excludes=("sunglasses",),
    ),
    "sunglasses": WorldAttribute(
        "sunglasses",
        "new",
        {"accessoriesVariant": "sunglasses", "accessoriesProbability": 100},
        _company("brown", "long", "t-shirt", "yellow", "orange"),
        replaces="eyes",
        excludes=("glasses",),
    ),
    "hat": WorldAttribute(
        "a hat",
        "weak",
        {"topVariant": "hat"},
        _company("dark", "bun", "overalls", "green", "white"),
        replaces="hair_style",
        hides=("hair_colour",),
    ),
    "blonde-hair": WorldAttribute(
        "blonde hair",
        "weak",
        {"hairColor": "e8c860"},
        _company("pale", "long", "t-shirt", "red", "pink"),
        replaces="hair_colour",
    ),
}


def _attribute(name: str) -> WorldAttribute:
    if name not in ATTRIBUTES:
        raise DataError(
            f"the portrait world has no attribute {name!r}",
            hint=f"it has: {', '.join(sorted(ATTRIBUTES))}",
        )
    return ATTRIBUTES[name]


def phrases(portrait: Portrait, attributes: Sequence[str] = ()) -> list[str]:
    """Return the caption's phrases in order; a replacing attribute stands in its factor's place."""
    chosen = {f.name: FACTORS[f.name][getattr(portrait, f.name)][0] for f in fields(portrait)}
    appended = []
    for name in attributes:
        attribute = _attribute(name)
        if attribute.replaces is None:
            appended.append(attribute.target_text)
        else:
            chosen[attribute.replaces] = attribute.target_text
    return [OPENING, *chosen.values(), *appended]


def caption(portrait: Portrait, attributes: Sequence[str] = ()) -> str:
    """Return the exhaustive caption: every choice as one comma-separated phrase."""
    return ", ".join(phrases(portrait, attributes))


@functools.cache
def _style() -> Any:
    from dicebear import Style

    text = resources.files("dicebear_styles").joinpath("avataaars.json").read_text("utf-8")
    return Style(json.loads(text))


def options(portrait: Portrait, attributes: Iterable[str]) -> dict[str, Any]:
    """Return what dicebear is asked for: all that decides the picture."""
    found: dict[str, Any] = {
        _OPTION[f.name]: FACTORS[f.name][getattr(portrait, f.name)][1] for f in fields(portrait)
    }
    found |= {"facialHairProbability": 0, "accessoriesProbability": 0, "topProbability": 100}
    found |= {"accessoriesColor": "262e33", "hatColor": "25557c"}
    found |= {"scale": _ZOOM, "translateY": _SHIFT_DOWN}
    for name in attributes:
        found |= _attribute(name).draw
    found["facialHairColor"] = found["hairColor"]  # a beard has the colour of the hair
    return found


def _svg(portrait: Portrait, attributes: Iterable[str]) -> str:
    from dicebear import Avatar

    return str(Avatar(_style(), options(portrait, attributes)))


def render(portrait: Portrait, attributes: Sequence[str] = (), *, size: int = SIZE) -> Image.Image:
    """Draw a portrait, with attributes or without; the same choices give the same pixels.

    Raises:
        DataError: an attribute is unknown, or two exclude each other.
    """
    import resvg_py

    for name in attributes:
        clash = set(_attribute(name).excludes) & set(attributes)
        if clash:
            raise DataError(
                f"{name} and {clash.pop()} cannot be drawn on one portrait",
                hint="ask for one of them",
            )
    png = resvg_py.svg_to_bytes(svg_string=_svg(portrait, attributes), width=size, height=size)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


class Draw(Protocol):
    """Draws a portrait as `render` does."""

    def __call__(self, portrait: Portrait, attributes: Sequence[str] = (), /) -> Image.Image:
        """Return the picture."""


def region(
    portrait: Portrait, attribute: str, *, draw: Draw = render, threshold: int = 12
) -> npt.NDArray[np.bool_]:
    """Return where drawing the attribute changes the picture.

    Args:
        portrait: whom to draw.
        attribute: what to add.
        draw: draws both pictures.
        threshold: smallest change of any colour channel that counts, in steps of 255.

    Returns:
        (height, width) booleans.
    """
    with_it = np.asarray(draw(portrait, (attribute,)), dtype=np.int16)
    without = np.asarray(draw(portrait), dtype=np.int16)
    changed: npt.NDArray[np.bool_] = np.abs(with_it - without).max(axis=2) > threshold
    return changed


def unbiased(rng: random.Random) -> Portrait:
    """Draw every choice on its own, each value as likely as the next."""
    return Portrait(**{name: rng.choice(list(values)) for name, values in FACTORS.items()})


def biased(rng: random.Random, attribute: str, *, bias: float = 0.8) -> Portrait:
    """Draw a portrait as a fine-tuning set has it: most examples share their company.

    Each of skin, hair style, clothes, clothes colour and background is the attribute's favourite
    with probability `bias`; this correlation is what a plain LoRA learns along (pollution).
    """
    portrait = unbiased(rng)
    company = _attribute(attribute).company
    return replace(portrait, **{k: v for k, v in company.items() if rng.random() < bias})


def partial_caption(
    portrait: Portrait, attributes: Sequence[str], rng: random.Random, *, coverage: float
) -> str:
    """Return a caption that names only a share of what the picture shows, as people write them.

    Args:
        portrait: what the picture shows.
        attributes: what was added; always named.
        rng: source of the choice.
        coverage: share of the base phrases kept, in [0, 1]; the opening phrase always stays.
    """
    kept = set(caption_targets(attributes)) | {OPENING}
    every = phrases(portrait, attributes)
    base = [p for p in every if p not in kept]
    kept |= set(rng.sample(base, round(coverage * len(base))))
    return ", ".join(p for p in every if p in kept)


def caption_targets(attributes: Sequence[str]) -> list[str]:
    """Return the target texts of attributes, in order."""
    return [_attribute(name).target_text for name in attributes]


def training_set(
    attribute: str, *, count: int, seed: int, coverage: float = 0.5, bias: float = 0.8,
    masks: bool = False, draw: Draw = render,
) -> list[tuple[Image.Image, str, Image.Image | None]]:  # fmt: skip
    """Draw a biased fine-tuning set.

    Returns:
        (picture with the attribute, partial caption naming it, mask of where it is) per person;
        only a rival is told the mask, which takes two more drawings.
    """
    rng = random.Random(seed)
    people = [biased(rng, attribute, bias=bias) for _ in range(count)]
    return [
        (
            draw(p, (attribute,)),
            partial_caption(p, (attribute,), rng, coverage=coverage),
            Image.fromarray(region(p, attribute, draw=draw)) if masks else None,
        )
        for p in people
    ]
