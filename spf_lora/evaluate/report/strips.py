"""Picture strips of a report: the pair, its difference and the region, worst cases first.

Every picture is a WebP inside the page. When all of them would pass the page's size, thumbnails
shrink, and after that the cases in which least happened are left out, which the page then says.
"""

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape

import numpy
from PIL import Image

from spf_lora.errors import MeasureError
from spf_lora.evaluate.faults import ceilings_of, faults
from spf_lora.evaluate.gallery import read_picture
from spf_lora.evaluate.result import Draw, Result

MAX_BYTES = 6_000_000  # of pictures in one page
_SIDES = (160, 128, 104, 80)  # of thumbnails, the first if all of them fit
_GAIN = 2  # a difference of half the range is shown as white
_OPEN = 6  # prompts shown before "show all"
_SMALL = 96  # pictures up to here are shown with their pixels as they are


@dataclass(frozen=True)
class Strip:
    """One draw of the main strength, and what went wrong in it."""

    draw: Draw
    faults: tuple[str, ...]

    @property
    def pollution(self) -> float:
        """The draw's own pollution; a draw without one comes first."""
        return self.draw.numbers.get("P", float("inf"))


@dataclass(frozen=True)
class PromptStrips:
    """The strips of one prompt, worst first."""

    number: int
    strips: tuple[Strip, ...]

    @property
    def worst(self) -> tuple[bool, float]:
        """What cases are sorted by: faults first, then pollution."""
        return any(s.faults for s in self.strips), max(s.pollution for s in self.strips)


def cases(result: Result) -> list[PromptStrips]:
    """Return the prompts of the main strength, those where something went wrong first."""
    strips: dict[int, list[Strip]] = {}
    ceilings = ceilings_of(result.draws)
    for draw in result.at(result.main):
        wrong = faults(draw, result.target_text, ceilings)
        strips.setdefault(draw.case, []).append(Strip(draw, wrong))
    prompts = [
        PromptStrips(number, tuple(sorted(of, key=lambda s: (not s.faults, -s.pollution))))
        for number, of in strips.items()
    ]
    return sorted(prompts, key=lambda case: case.worst, reverse=True)


def draw_strips(result: Result) -> tuple[str, list[str]]:
    """Return the HTML of all strips, and sentences on pictures that are missing or left out."""
    prompts = cases(result)
    if not prompts:
        return "<p>No pictures were drawn.</p>", []
    made = [_case(result, case, _SIDES[0]) for case in prompts]
    total = sum(len(html) for html, _ in made)
    if total > MAX_BYTES:
        # A thumbnail's bytes grow about with its area.
        fitting = [s for s in _SIDES if total * (s / _SIDES[0]) ** 2 <= 0.9 * MAX_BYTES]
        made = [_case(result, case, max(fitting, default=_SIDES[-1])) for case in prompts]
    kept: list[str] = []
    size = 0
    for html, _ in made:
        if kept and size + len(html) > MAX_BYTES:
            break
        kept.append(html)
        size += len(html)
    remarks = []
    missing = sum(count for _, count in made)
    if missing:
        remarks.append(f"{missing} pictures could not be read; their places say so.")
    if len(kept) < len(prompts):
        left = prompts[len(kept) :]
        worst = max(strip.pollution for case in left for strip in case.strips)
        remarks.append(
            f"{len(left)} of {len(prompts)} prompts have no pictures here, to keep the page small: "
            f"those in which least happened (pollution of {worst:.2f} at most"
            f"{', some with a fault' if any(case.worst[0] for case in left) else ''})."
        )
    shown, hidden = kept[:_OPEN], kept[_OPEN:]
    if hidden:
        shown.append(f"<details><summary>Show {len(hidden)} more prompts</summary>")
        shown += [*hidden, "</details>"]
    return "".join(shown), remarks


def _case(result: Result, case: PromptStrips, side: int) -> tuple[str, int]:
    prompts = result.cases[case.number]
    missing, parts = 0, []
    for strip in case.strips:
        html, lost = _strip(result, strip, side)
        parts.append(html)
        missing += lost
    return (
        f'<article class="case"><h3 dir="auto">{escape(prompts.prompt)}</h3>'
        f'<p class="dim" dir="auto">without the attribute: {escape(prompts.base_prompt)}</p>'
        f"{''.join(parts)}</article>"
    ), missing


def _strip(result: Result, strip: Strip, side: int) -> tuple[str, int]:
    draw = strip.draw
    words = [f"seed {draw.seed}"]
    words += [f"pollution {draw.numbers['P']:.2f}"] if "P" in draw.numbers else []
    wrong = "".join(f' <span class="fault">{escape(fault)}</span>' for fault in strip.faults)
    tiles, missing = [], 0
    for label, picture in _pictures(result, draw):
        if picture is None:
            missing += 1
            tile = '<span class="gone">picture missing</span>'
        else:
            tile = _image(picture, f"{label}, seed {draw.seed}", side)
        tiles.append(f"<figure>{tile}<figcaption>{escape(label)}</figcaption></figure>")
    return (
        f'<div class="strip"><p><b>{", ".join(words)}</b>{wrong}</p>'
        f'<div class="tiles" style="--n:{len(tiles)}">{"".join(tiles)}</div></div>'
    ), missing


def _pictures(result: Result, draw: Draw) -> Iterator[tuple[str, Image.Image | None]]:
    """Yield what a strip shows, as (label, picture); None for a picture that is not there."""
    read = _reader(result, draw)
    base, adapted, region = read("I0"), read("I1"), read("region")
    yield "base model (I0)", base
    yield f"adapter at {draw.strength:g} (I1)" if draw.strength else "prompt only (I1)", adapted
    if base is not None and adapted is not None:
        yield "difference", difference(base, adapted)
    if base is not None and region is not None:
        yield "region, lit", lit(base, region)
    for name, label in (
        ("Ic", "prompt only (Ic)"),
        ("Ib", "adapter, not asked (Ib)"),
        ("truth", "the renderer's truth"),
    ):
        if name in draw.pictures and (draw.strength or name == "truth"):
            yield label, read(name)


def _reader(result: Result, draw: Draw) -> Callable[[str], Image.Image | None]:
    def read(name: str) -> Image.Image | None:
        if result.gallery is None or name not in draw.pictures:
            return None
        try:
            return read_picture(result.gallery, draw.pictures[name])
        except MeasureError:
            return None

    return read


def difference(first: Image.Image, second: Image.Image) -> Image.Image:
    """Return the mean absolute difference of the colours, twice as bright, in grey."""
    one, other = (numpy.asarray(p.convert("RGB"), dtype=float) for p in (first, second))
    if one.shape != other.shape:
        other = numpy.asarray(second.convert("RGB").resize(first.size), dtype=float)
    grey = (numpy.abs(one - other).mean(-1) * _GAIN).clip(0, 255)
    return Image.fromarray(grey.astype("uint8"))


def lit(picture: Image.Image, region: Image.Image) -> Image.Image:
    """Return the picture, dark outside the region."""
    mask = region.convert("L").resize(picture.size, Image.Resampling.NEAREST)
    dark = Image.blend(picture, Image.new("RGB", picture.size, (24, 24, 32)), 0.82)
    return Image.composite(picture, dark, mask)


def _image(picture: Image.Image, alt: str, side: int) -> str:
    sharp = max(picture.size) <= _SMALL
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=82, method=2)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    kind = ' class="pixels"' if sharp else ""
    return (
        f'<img{kind} src="data:image/webp;base64,{data}" width="{small.width}" '
        f'height="{small.height}" alt="{escape(alt)}" decoding="async">'
    )
