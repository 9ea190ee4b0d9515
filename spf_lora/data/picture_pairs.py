"""Reads before/after pictures as people have them: each a person without the attribute and with it.

Either `a/NAME.png` and `b/NAME.png`, or `NAME_before.png` and `NAME_after.png` in one folder. A
caption beside either picture says what both show; without one they have the base's plain subject.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from spf_lora.data.captions import full_prompt
from spf_lora.data.faults import Fault
from spf_lora.data.folder import LARGEST_PX, Example, Scan, checked_caption, read_picture
from spf_lora.data.listing import Caption, list_folder
from spf_lora.data.pictures import Picture
from spf_lora.errors import DataError
from spf_lora.recipe.schema import Attribute

BEFORE, AFTER = "_before", "_after"
_FOLDERS = "a", "b"
_SIDE, _PLACES = 128, 32  # pixels that shifts are looked for in, and places that may differ
_REACH = 6  # of those pixels, each way
_DIFFERS = 24  # of 255: of a place's colour; what JPEG changes is less
_MOST, _LEAST = 0.7, 0.002  # share of the places that differ


@dataclass(frozen=True)
class _Side:
    """One picture of each pair.

    Attributes:
        names: what the pair is called -> its picture.
        files: picture -> file.
        captions: picture -> caption.
    """

    names: dict[str, str]
    files: Mapping[str, Path]
    captions: Mapping[str, Caption]


def scan_pairs(
    folder: Path, attribute: Attribute, *, subject: str, shorter_side_px: int = LARGEST_PX
) -> Scan:
    """Read every pair of a folder; collect what is wrong.

    Args:
        folder: holds the pairs.
        attribute: what the second picture of each has.
        subject: the caption of pairs that have none.
        shorter_side_px: larger pictures are shrunk to it while reading, which saves memory.

    Returns:
        Examples of the second pictures, each with the first as `before`; the caption names the
        target.

    Raises:
        DataError: the folder cannot be read, or holds no pairs.
    """
    first, second, faults = _listed(folder, subject)
    for name in sorted(first.names.keys() ^ second.names.keys()):
        alone, missing = (first, "after") if name in first.names else (second, "before")
        faults.append(Fault(alone.names[name], f"has no picture of {name} {missing}"))
    examples, sizes, animated = list[Example](), dict[str, tuple[int, int]](), list[str]()
    both = sorted(first.names.keys() & second.names.keys())
    for name in both:
        known, caption = len(faults), _caption(name, first, second, subject)
        found = [
            read_picture(
                side.files[side.names[name]], side.names[name], folder, shorter_side_px, faults
            )
            for side in (first, second)
        ]
        text = full_prompt(caption.text, attribute)
        told = checked_caption(Caption(text, caption.place), attribute, faults)
        before, after = found
        if before is None or after is None:
            continue
        source = second.names[name]
        sizes[source] = after.size
        animated += [source] if after.animated else []
        faults += _mismatch(source, before, after, everywhere=attribute.scope == "global")
        if told is not None and len(faults) == known:
            examples.append(Example(after.image, told, source, before=before.image))
    return Scan(folder, len(both), examples, sizes, animated, faults, paired=True)


def shift_between(one: Image.Image, other: Image.Image) -> tuple[int, int]:
    """Return by how many 128ths of its sides the second picture is moved right and down.

    What differs much counts no more than what differs a little, so an attribute decides nothing.
    """
    x, y = (_pixels(picture.convert("L"), _SIDE) for picture in (one, other))
    inner, reach = x[_REACH:-_REACH, _REACH:-_REACH], range(-_REACH, _REACH + 1)

    def apart(right: int, down: int) -> float:
        rows = slice(_REACH + down, _SIDE - _REACH + down)
        columns = slice(_REACH + right, _SIDE - _REACH + right)
        return float(np.minimum(abs(inner - y[rows, columns]), _DIFFERS).mean())

    moves = sorted(((i, j) for i in reach for j in reach), key=lambda m: abs(m[0]) + abs(m[1]))
    return min(moves, key=lambda move: apart(*move))  # of equals the smallest


def share_that_differs(one: Image.Image, other: Image.Image) -> float:
    """Return the share of a picture's places, 32 x 32, in which two pictures differ, in [0, 1]."""
    x, y = (_pixels(picture, _PLACES) for picture in (one, other))
    return float((abs(x - y).max(axis=2) > _DIFFERS).mean())


def _listed(folder: Path, subject: str) -> tuple[_Side, _Side, list[Fault]]:
    """Return both pictures of each pair, and what is wrong with the folder."""
    if all((folder / name).is_dir() for name in _FOLDERS):
        (first, some), (second, more) = (_inside(folder / n, subject) for n in _FOLDERS)
        return first, second, some + more
    listing = list_folder(folder, spare=subject)
    names = listing.pictures
    faults = list(listing.faults)
    first, second = (
        _Side(
            _by_name(
                {n: Path(n).stem.removesuffix(end) for n in names if Path(n).stem.endswith(end)},
                faults,
            ),
            listing.pictures,
            listing.captions,
        )
        for end in (BEFORE, AFTER)
    )
    if not first.names and not second.names:
        raise DataError(
            f"folder {folder} holds no pairs of pictures",
            hint="name them NAME_before.png and NAME_after.png, or put them into the folders a "
            "and b with the same names",
        )
    paired = {*first.names.values(), *second.names.values()}
    named = {fault.file for fault in faults}
    text = f"ends neither with {BEFORE} nor with {AFTER}"
    return first, second, faults + [Fault(n, text) for n in names if n not in paired | named]


def _inside(folder: Path, subject: str) -> tuple[_Side, list[Fault]]:
    """Return what one of the two folders holds; names are told with the folder's."""
    listing, inside = list_folder(folder, spare=subject), folder.name
    faults = [Fault(f"{inside}/{one.file}", one.text) for one in listing.faults]
    names = _by_name({f"{inside}/{name}": Path(name).stem for name in listing.pictures}, faults)
    files = {f"{inside}/{name}": path for name, path in listing.pictures.items()}
    captions = {f"{inside}/{name}": caption for name, caption in listing.captions.items()}
    return _Side(names, files, captions), faults


def _by_name(stems: Mapping[str, str], faults: list[Fault]) -> dict[str, str]:
    """Return picture by pair; a second picture of the same pair is a fault."""
    found: dict[str, str] = {}
    for picture, name in stems.items():
        if name in found:
            faults.append(Fault(picture, f"{found[name]} is the same picture of {name}"))
        found.setdefault(name, picture)
    return found


def _caption(name: str, first: _Side, second: _Side, subject: str) -> Caption:
    """Return what somebody wrote beside either picture, else the subject."""
    captions = [side.captions[side.names[name]] for side in (second, first)]
    return next((one for one in captions if one.text != subject), captions[0])


def _mismatch(name: str, before: Picture, after: Picture, *, everywhere: bool) -> list[Fault]:
    """Return why two pictures are no pair."""
    if before.size != after.size:
        sizes = ["x".join(map(str, picture.size)) for picture in (before, after)]
        return [Fault(name, f"is {sizes[1]} px, but the picture before is {sizes[0]}")]
    share = share_that_differs(before.image, after.image)
    if share < _LEAST:
        return [Fault(name, "is the same as the picture before")]
    if everywhere:
        return []
    if share > _MOST:
        text = "another person, another light, or a style (attribute.scope=global)"
        return [Fault(name, f"differs from the picture before in {share:.0%} of it: {text}")]
    right, down = shift_between(before.image, after.image)
    if (right, down) != (0, 0):
        moved = f"{right / _SIDE:+.1%} across and {down / _SIDE:+.1%} down"
        return [Fault(name, f"is moved against the picture before, {moved}: align them")]
    return []


def _pixels(image: Image.Image, side: int) -> npt.NDArray[np.int16]:
    return np.asarray(image.resize((side, side), Image.Resampling.BOX), dtype=np.int16)
