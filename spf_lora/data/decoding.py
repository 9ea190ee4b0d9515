"""Which picture files are opened at all: known kinds, of a size whose decoding fits in memory.

A JPEG is decoded smaller than it is, all others whole, so each kind has a limit of its own. It
keeps the peak of one picture under 500 MB; docs/sd15.md tells the limits to users.
"""

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from spf_lora.documents import open_regular

MOST_BYTES = 512 << 20
_MOST_HEADER_SEGMENTS = 1000


@dataclass(frozen=True, slots=True)
class Limit:
    """What one kind of file may be.

    Attributes:
        megapixels: width times height, in millions.
        most_bytes: of the file.
    """

    megapixels: int
    most_bytes: int = MOST_BYTES


# Kind -> its limit; megapixels times the bytes that Pillow holds for each pixel are about 400 MB.
LIMITS: dict[str, Limit] = {
    "JPEG": Limit(178),  # Pillow's own; decoded at an eighth, a quarter or a half
    "progressive JPEG": Limit(50),  # its coefficients are all held: up to 6 bytes a pixel
    "PNG": Limit(89),
    "BMP": Limit(89),
    "GIF": Limit(89),
    "TIFF": Limit(32),  # a strip may be the whole picture, 16 bits deep
    "WEBP": Limit(25, 64 << 20),  # libwebp holds two canvases, Pillow two copies
    "AVIF": Limit(25, 64 << 20),
}
_FORMATS = tuple(kind for kind in LIMITS if " " not in kind)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Image.Image, str]]:
    """Open a picture whose decoding fits in memory; nothing of it is decoded yet.

    Yields:
        The picture, and its kind, a key of `LIMITS`.

    Raises:
        ValueError: it is no regular file, or too large; others of Pillow's, if it is damaged.
    """
    with open_regular(path) as (raw, size), os.fdopen(os.dup(raw.fileno()), "rb") as file:
        head = file.read(16)
        for kind, magic in (("WEBP", head[8:12] == b"WEBP"), ("AVIF", head[4:8] == b"ftyp")):
            if magic and size > LIMITS[kind].most_bytes:  # these are read whole when opened
                raise ValueError(_too_heavy(size, kind))
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what is refused, or read all the same
            with _identified(file) as picture:
                kind = _kind(picture, file)
                _check(picture, kind, size)
                yield picture, kind


def _identified(file: BinaryIO) -> Image.Image:
    """Open a file as what its content is, whatever its name says; EPS would start a program."""
    try:
        return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(f"it is none of {', '.join(_FORMATS)}, or damaged") from error


def _kind(picture: Image.Image, file: BinaryIO) -> str:
    if picture.format not in ("JPEG", "MPO"):
        return str(picture.format)
    place = file.tell()
    try:
        return "progressive JPEG" if _holds_coefficients(file) else "JPEG"
    finally:
        file.seek(place)


def _check(picture: Image.Image, kind: str, size: int) -> None:
    limit = LIMITS[kind]
    if size > limit.most_bytes:
        raise ValueError(_too_heavy(size, kind))
    wide, high = picture.size
    if wide * high > limit.megapixels * 1_000_000:
        millions = wide * high / 1e6
        raise ValueError(
            f"{wide}x{high} px are {millions:.0f} megapixels; the limit of a {kind} is "
            f"{limit.megapixels}: save it smaller"
        )


def _holds_coefficients(file: BinaryIO) -> bool:
    """Tell whether a JPEG's coefficients come in several scans, so that libjpeg holds them all."""
    file.seek(2)
    components = 0
    for _ in range(_MOST_HEADER_SEGMENTS):
        marker = file.read(4)
        if len(marker) < 4 or marker[0] != 0xFF:
            break
        code, length = marker[1], struct.unpack(">H", marker[2:])[0]
        if code == 0xFF:  # a fill byte
            file.seek(-3, os.SEEK_CUR)
            continue
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            if code not in (0xC0, 0xC1):
                return True
            components = file.read(6)[-1]
            file.seek(-6, os.SEEK_CUR)
        elif code == 0xDA:
            return file.read(1)[0] < components
        file.seek(length - 2, os.SEEK_CUR)
    return True  # it cannot be told


def _too_heavy(size: int, kind: str) -> str:
    most = LIMITS[kind].most_bytes >> 20
    return f"its file has {size >> 20} MiB; the limit of a {kind} is {most}"
