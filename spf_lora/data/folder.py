"""Reads a training folder as trainers know it: pictures, each with a caption.

Nothing is skipped in silence: every picture and caption that cannot be used is listed, together,
and then nothing is trained, unless the user asks to go on with the rest.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from spf_lora.data.captions import (
    has_target,
    join_phrases,
    split_phrases,
    unsafe_sentence,
)
from spf_lora.data.faults import Fault, as_list
from spf_lora.data.kohya_folders import list_training_folder
from spf_lora.data.listing import LEAVES, Caption, leaves
from spf_lora.data.pictures import LARGEST_PX as LARGEST_PX
from spf_lora.data.pictures import Picture, open_picture
from spf_lora.errors import DataError
from spf_lora.recipe.schema import Attribute

_RATIO_TOLERANCE = 0.02  # a mask may be a smaller copy; its sides are whole pixels


@dataclass(frozen=True, slots=True)
class Example:
    """One picture to train on.

    Attributes:
        image: RGB, upright, on white where it was transparent.
        caption: phrases or sentences, tidy, the target among them.
        source: where it came from, for messages.
        mask: grey, of the image's size, white where the attribute is; None if nobody drew one.
        repeats: how often it is seen while another is seen once.
        before: of a pair, the same picture without the attribute, as large; see `picture_pairs`.
    """

    image: Image.Image
    caption: str
    source: str
    mask: Image.Image | None = None
    repeats: int = 1
    before: Image.Image | None = None


@dataclass(frozen=True)
class Scan:
    """A folder as it was found.

    Attributes:
        folder: which one.
        pictures: how many were found, good or not.
        examples: what can be trained on, in the order of names.
        sizes: source -> width and height of the file's picture, upright, before shrinking.
        animated: sources of which only the first frame is used.
        faults: everything that cannot be used, and why.
        spared: sources that have the name of kohya's folder for a caption.
        unread: folders inside that hold pictures and were not read.
        paired: whether it holds pictures before and after.
    """

    folder: Path
    pictures: int
    examples: list[Example]
    sizes: dict[str, tuple[int, int]]
    animated: list[str]
    faults: list[Fault]
    spared: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    paired: bool = False


def scan_folder(folder: Path, attribute: Attribute, *, shorter_side_px: int = LARGEST_PX) -> Scan:
    """Read every picture of a folder with its caption and mask; collect what is wrong.

    Args:
        folder: holds pictures and captions; see `listing` and `kohya_folders`.
        attribute: every caption must name its target or an alias.
        shorter_side_px: larger pictures are shrunk to it while reading, which saves memory.

    Raises:
        DataError: the folder cannot be read or holds no pictures.
    """
    listing = list_training_folder(folder)
    faults, sizes, animated = list(listing.faults), {}, []
    examples = []
    for name, path in listing.pictures.items():
        picture = read_picture(path, name, folder, shorter_side_px, faults)
        caption = checked_caption(listing.captions.get(name), attribute, faults)
        if picture is None:
            continue
        sizes[name] = picture.size
        if picture.animated:
            animated.append(name)
        before = len(faults)
        mask = _read_mask(listing.masks.get(name), picture, folder, faults)
        if caption is not None and len(faults) == before:
            repeats = listing.repeats.get(name, 1)
            examples.append(Example(picture.image, caption, name, mask, repeats))
    return Scan(
        folder,
        len(listing.pictures),
        examples,
        sizes,
        animated,
        faults,
        listing.spared,
        listing.unread,
    )


def read_folder(
    folder: Path, attribute: Attribute, *, shorter_side_px: int = LARGEST_PX
) -> list[Example]:
    """Read a folder whole or refuse it whole; see `scan_folder`.

    Raises:
        DataError: lists everything that is wrong with the folder.
    """
    return usable(scan_folder(folder, attribute, shorter_side_px=shorter_side_px), attribute)


def usable(
    scan: Scan, attribute: Attribute, *, more: Sequence[Fault] = (), skip_faulty: bool = False
) -> list[Example]:
    """Return a scan's examples.

    Args:
        scan: what was found.
        attribute: for the hint.
        more: faults found since.
        skip_faulty: go on with what has no fault, as the user asked.

    Raises:
        DataError: there are faults, all listed, or nothing is left.
    """
    faults = [*scan.faults, *more]
    named = {fault.file for fault in faults}
    good = [example for example in scan.examples if example.source not in named]
    if faults and not (skip_faulty and good):
        each = f"each picture needs a caption of the same name that says {attribute.target_text!r}"
        if scan.paired:
            each = "a pair is one picture twice, and nothing but the attribute differs"
        raise DataError(
            as_list(f"folder {scan.folder}", faults),
            hint=f"fix or remove these files, or go on without them: --skip-faulty; {each}",
        )
    return good


def dataset_digest(examples: Iterable[Example]) -> str:
    """Return the sha256 of pictures and captions, whatever their order, names and file formats."""
    return hashlib.sha256(b"".join(sorted(map(_example_digest, examples)))).hexdigest()


def picture_digest(image: Image.Image) -> bytes:
    """Return the sha256 of a picture's size and pixels."""
    width, height = image.size
    return _digest_of(f"{width}x{height}".encode(), image.tobytes())


def _example_digest(example: Example) -> bytes:
    width, height = example.image.size
    parts = [f"{width}x{height}".encode(), example.image.tobytes(), example.caption.encode()]
    if example.mask is not None:
        parts.append(example.mask.tobytes())
    if example.repeats > 1:
        parts.append(f"x{example.repeats}".encode())
    if example.before is not None:
        parts += [b"before", example.before.tobytes()]
    return _digest_of(*parts)


def _digest_of(*parts: bytes) -> bytes:
    # Digests of the parts have a fixed length, so no two splits of the bytes look the same.
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def read_picture(
    path: Path, name: str, folder: Path, shorter_side_px: int, faults: list[Fault]
) -> Picture | None:
    """Decode a picture of a folder; one that cannot be used becomes a fault, and None."""
    if leaves(path, folder):
        faults.append(Fault(name, LEAVES))
        return None
    try:
        return open_picture(path, shorter_side_px=shorter_side_px)
    except ValueError as error:
        faults.append(Fault(name, f"cannot be read as a picture ({error})"))
        return None


def checked_caption(
    caption: Caption | None, attribute: Attribute, faults: list[Fault]
) -> str | None:
    """Return a caption tidied; one that cannot be used becomes a fault, and None."""
    if caption is None:
        return None
    text = join_phrases(split_phrases(caption.text))
    if not text:
        faults.append(Fault(caption.place, "is empty"))
    elif not has_target(text, attribute):
        faults.append(Fault(caption.place, f"does not say {attribute.target_text!r}"))
    elif sentence := unsafe_sentence(text, attribute):
        text = f"cannot lose {attribute.target_text!r} and stay a sentence: {sentence!r}"
        faults.append(Fault(caption.place, f"{text}; write it anew"))
    else:
        return text
    return None


def _read_mask(
    path: Path | None, picture: Picture, folder: Path, faults: list[Fault]
) -> Image.Image | None:
    if path is None:
        return None
    name = path.relative_to(folder).as_posix()
    if leaves(path, folder):
        faults.append(Fault(name, LEAVES))
        return None
    try:
        opened = open_picture(path)
        mask = opened.image.convert("L")
    except ValueError as error:
        faults.append(Fault(name, f"cannot be read as a mask ({error})"))
        return None
    wanted, actual = (size[0] / size[1] for size in (picture.size, opened.size))
    if abs(actual / wanted - 1) > _RATIO_TOLERANCE:
        own, other = ("x".join(map(str, size)) for size in (opened.size, picture.size))
        faults.append(Fault(name, f"is {own}, but its picture is {other}"))
    elif mask.getextrema() == (0, 0):
        faults.append(Fault(name, "is all black, so nothing of its picture would be learned"))
    return mask.resize(picture.image.size, Image.Resampling.BOX)
