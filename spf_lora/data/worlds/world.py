"""A world: procedural portraits with known ground truth.

Every picture is drawn from a frozen `Portrait` that holds every choice, so the same person can be
drawn with and without an attribute: an exact counterfactual, the only honest judge of pollution.
dicebear draws them as SVG, resvg as pixels.
"""

import functools
import io
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from spf_lora.errors import DataError

SIZE = 64
OPENING = "a portrait of a person"

# factor -> value -> (phrase in the caption, what dicebear is asked for)
Factors = dict[str, dict[str, tuple[str, str]]]


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """Every choice that makes one picture: a key of the world's `factors[field]`.

    A world without brows leaves them "".
    """

    skin: str
    hair_colour: str
    hair_style: str
    clothes: str
    clothes_colour: str
    mouth: str
    eyes: str
    brows: str = ""
    background: str


@dataclass(frozen=True)
class WorldAttribute:
    """What can be added to a portrait.

    Attributes:
        target_text: the phrase that asks for it.
        kind: "weak" (the world's base has seen it rarely and badly captioned) or "new" (never).
        draw: options for dicebear.
        company: the favourite choices of a biased fine-tuning set.
        replaces: the factor that is not drawn beside it, whose phrase gives way to `target_text`;
            None: it is appended.
        hides: further factors that cannot be judged while it is drawn.
        excludes: attributes that cannot be drawn beside it.
    """

    target_text: str
    kind: str
    draw: dict[str, Any]
    company: dict[str, str]
    replaces: str | None = None
    hides: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


def company(*values: str) -> dict[str, str]:
    """Return favourite choices: of skin, hair style, clothes, clothes colour and background."""
    names = ("skin", "hair_style", "clothes", "clothes_colour", "background")
    return dict(zip(names, values, strict=True))


class Draw(Protocol):
    """Draws a portrait as `World.render` does."""

    def __call__(self, portrait: Portrait, attributes: Sequence[str] = (), /) -> Image.Image:
        """Return the picture."""


@dataclass(frozen=True, eq=False)
class World:
    """All that a drawing style can show, and how it is drawn and put into words.

    Attributes:
        name: what a base's card calls it.
        credit: who drew the style, and under which licence.
        style: its name in dicebear-styles.
        factors: every choice of a portrait, in the order of a caption.
        attributes: what can be added, by name.
        options: dicebear's option for each factor.
        always: dicebear's other options, the same in every picture.
    """

    name: str
    credit: str
    style: str
    factors: Factors
    attributes: dict[str, WorldAttribute]
    options: dict[str, str]
    always: dict[str, Any]

    def attribute(self, name: str) -> WorldAttribute:
        """Return an attribute.

        Raises:
            DataError: the world has none of that name.
        """
        if name not in self.attributes:
            raise DataError(
                f"the world {self.name} has no attribute {name!r}",
                hint=f"it has: {', '.join(sorted(self.attributes))}",
            )
        return self.attributes[name]

    def phrases(self, portrait: Portrait, attributes: Sequence[str] = ()) -> list[str]:
        """Return the caption's phrases in order; what replaces a factor stands in its place."""
        chosen = {name: values[getattr(portrait, name)][0] for name, values in self.factors.items()}
        appended = []
        for name in attributes:
            attribute = self.attribute(name)
            if attribute.replaces is None:
                appended.append(attribute.target_text)
            else:
                chosen[attribute.replaces] = attribute.target_text
        return [OPENING, *chosen.values(), *appended]

    def caption(self, portrait: Portrait, attributes: Sequence[str] = ()) -> str:
        """Return the exhaustive caption: every choice as one comma-separated phrase."""
        return ", ".join(self.phrases(portrait, attributes))

    def drawing(self, portrait: Portrait, attributes: Iterable[str]) -> dict[str, Any]:
        """Return what dicebear is asked for: all that decides the picture."""
        found: dict[str, Any] = {
            self.options[name]: values[getattr(portrait, name)][1]
            for name, values in self.factors.items()
        }
        found |= self.always
        for name in attributes:
            found |= self.attribute(name).draw
        found["facialHairColor"] = found["hairColor"]  # a beard has the colour of the hair
        return found

    def render(
        self, portrait: Portrait, attributes: Sequence[str] = (), *, size: int = SIZE
    ) -> Image.Image:
        """Draw a portrait, with attributes or without; the same choices give the same pixels.

        Raises:
            DataError: an attribute is unknown, or two exclude each other.
        """
        import resvg_py
        from dicebear import Avatar

        for name in attributes:
            clash = set(self.attribute(name).excludes) & set(attributes)
            if clash:
                raise DataError(
                    f"{name} and {clash.pop()} cannot be drawn on one portrait",
                    hint="ask for one of them",
                )
        svg = str(Avatar(_style(self.style), self.drawing(portrait, attributes)))
        png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size)
        return Image.open(io.BytesIO(bytes(png))).convert("RGB")

    def region(
        self,
        portrait: Portrait,
        attribute: str,
        *,
        draw: Draw | None = None,
        threshold: int = 12,
    ) -> npt.NDArray[np.bool_]:
        """Return where drawing the attribute changes the picture.

        Args:
            portrait: whom to draw.
            attribute: what to add.
            draw: draws both pictures; `render` by default.
            threshold: smallest change of any colour channel that counts, in steps of 255.

        Returns:
            (height, width) booleans.
        """
        draw = draw or self.render
        with_it = np.asarray(draw(portrait, (attribute,)), dtype=np.int16)
        without = np.asarray(draw(portrait), dtype=np.int16)
        changed: npt.NDArray[np.bool_] = np.abs(with_it - without).max(axis=2) > threshold
        return changed

    def unbiased(self, rng: random.Random) -> Portrait:
        """Draw every choice on its own, each value as likely as the next."""
        return Portrait(**{name: rng.choice(list(values)) for name, values in self.factors.items()})

    def biased(self, rng: random.Random, attribute: str, *, bias: float = 0.8) -> Portrait:
        """Draw a portrait as a fine-tuning set has it: most examples share their company.

        Each of skin, hair style, clothes, clothes colour and background is the attribute's
        favourite with probability `bias`; this correlation is what a plain LoRA learns along
        (pollution).
        """
        portrait = self.unbiased(rng)
        favourites = self.attribute(attribute).company
        return replace(portrait, **{k: v for k, v in favourites.items() if rng.random() < bias})

    def partial_caption(
        self,
        portrait: Portrait,
        attributes: Sequence[str],
        rng: random.Random,
        *,
        coverage: float,
    ) -> str:
        """Return a caption that names only a share of what the picture shows, as people write them.

        Args:
            portrait: what the picture shows.
            attributes: what was added; always named.
            rng: source of the choice.
            coverage: share of the base phrases kept, in [0, 1]; the opening phrase always stays.
        """
        kept = set(self.caption_targets(attributes)) | {OPENING}
        every = self.phrases(portrait, attributes)
        base = [p for p in every if p not in kept]
        kept |= set(rng.sample(base, round(coverage * len(base))))
        return ", ".join(p for p in every if p in kept)

    def caption_targets(self, attributes: Sequence[str]) -> list[str]:
        """Return the target texts of attributes, in order."""
        return [self.attribute(name).target_text for name in attributes]

    def training_set(
        self, attribute: str, *, count: int, seed: int, coverage: float = 0.5, bias: float = 0.8,
        masks: bool = False, draw: Draw | None = None,
    ) -> list[tuple[Image.Image, str, Image.Image | None]]:  # fmt: skip
        """Draw a biased fine-tuning set.

        Returns:
            (picture with the attribute, partial caption naming it, mask of where it is) per person;
            only a rival is told the mask, which takes two more drawings.
        """
        draw = draw or self.render
        rng = random.Random(seed)
        people = [self.biased(rng, attribute, bias=bias) for _ in range(count)]
        return [
            (
                draw(p, (attribute,)),
                self.partial_caption(p, (attribute,), rng, coverage=coverage),
                Image.fromarray(self.region(p, attribute, draw=draw)) if masks else None,
            )
            for p in people
        ]


@functools.cache
def _style(name: str) -> Any:
    from dicebear import Style

    text = resources.files("dicebear_styles").joinpath(f"{name}.json").read_text("utf-8")
    return Style(json.loads(text))
