"""Opens pictures as people have them: turned by the camera, transparent, CMYK, 16-bit, animated.

A picture is decoded once, then converted and shrunk in bands of rows, so that no second one of its
full size is ever in memory.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from spf_lora.data.decoding import opened

SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
# Pictures to their owner, but nothing that Pillow decodes: to be told, never passed over.
UNREADABLE_SUFFIXES = frozenset(
    {".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".psd", ".raw", ".svg"}
)
LONGEST_RATIO = 8  # of the longer side to the shorter; what is longer would be cropped away
LARGEST_PX = 1024  # larger photographs are shrunk while reading, to spare memory
_ORIENTATION = 0x0112  # EXIF tag
_BAND = 1 << 20  # pixels
_LARGE = 32_000_000  # pixels; from here on memory is spared before the finest filter is used


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        image: RGB in sRGB, upright, on white where it was transparent.
        size: width and height before it was shrunk, upright.
        animated: whether it has more frames; only the first is used.
    """

    image: Image.Image
    size: tuple[int, int]
    animated: bool


def open_picture(path: Path, *, shorter_side_px: int = LARGEST_PX) -> Picture:
    """Decode a picture; a larger one is shrunk to `shorter_side_px`.

    Raises:
        ValueError: it cannot be decoded or is too large; the message says why, and names no folder.
    """
    try:
        with opened(path) as (picture, kind):
            # Phones put depth maps behind the picture: a second image, but no animation.
            animated = picture.format != "MPO" and getattr(picture, "is_animated", False)
            wide, high = picture.size
            if max(wide, high) > LONGEST_RATIO * min(wide, high):
                raise ValueError(f"{wide}x{high} px are longer than {LONGEST_RATIO} to 1: crop it")
            if kind.endswith("JPEG"):
                picture.draft(None, (shorter_side_px, shorter_side_px))
            picture.load()
            small = _shrunk(picture, shorter_side_px)
            exif = picture.getexif()
            small.getexif()[_ORIENTATION] = turn = exif.get(_ORIENTATION, 1)
            image = ImageOps.exif_transpose(small)
            lying = turn in range(5, 9)  # these swap the sides
            return Picture(image, (high, wide) if lying else (wide, high), animated)
    # Pillow's decoders raise almost anything on damaged files: OSError, SyntaxError, struct.error.
    except Exception as error:
        cause = " ".join(str(error).replace(str(path), path.name).split())
        raise ValueError(cause or type(error).__name__) from error


def _shrunk(image: Image.Image, shorter_side_px: int) -> Image.Image:
    """Return the picture as RGB, its shorter side at most `shorter_side_px`."""
    width, height = image.size
    shorter = min(width, height)
    finest = shorter_side_px if width * height > _LARGE else 2 * shorter_side_px
    small = _averaged(image, factor=max(1, shorter // finest))
    if shorter <= shorter_side_px:
        return small
    sides = [round(side * shorter_side_px / shorter) for side in (width, height)]
    factor = max(1, shorter // finest)
    box = (0, 0, width / factor, height / factor)  # its last pixels may stand for fewer
    return small.resize((sides[0], sides[1]), Image.Resampling.LANCZOS, box=box)


def _averaged(image: Image.Image, *, factor: int) -> Image.Image:
    """Return the picture as RGB, each pixel the mean of `factor` squared, band by band."""
    width, height = image.size
    to_rgb = _converter(image)
    rows = max(1, _BAND // (width * factor)) * factor
    if rows >= height and factor == 1:
        return to_rgb(image)
    small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        band = to_rgb(image.crop((0, top, width, min(top + rows, height))))
        small.paste(band.reduce(factor) if factor > 1 else band, (0, top // factor))
    return small


def _converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Return what makes RGB of the picture, or of a part of it."""
    if image.mode == "F" or image.mode.startswith("I"):
        top = _white(image)
        return lambda part: _eight_bits(part, top)
    if image.has_transparency_data:
        return _on_white
    return _to_srgb(image)


def _on_white(image: Image.Image) -> Image.Image:
    layered = image.convert("RGBA")
    white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layered).convert("RGB")


def _white(image: Image.Image) -> float:
    """Return the value that stands for white in a picture of deep grey values."""
    if image.mode.startswith("I;16"):
        return 65535.0
    largest = image.getextrema()[1]
    assert isinstance(largest, int | float)
    if image.mode == "F":
        return 1.0 if largest <= 1 else 255.0
    return 65535.0 if largest > 255 else 255.0


def _eight_bits(image: Image.Image, top: float) -> Image.Image:
    """Scale deep grey values to 8 bits; Pillow alone would clip them."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    return Image.fromarray(np.clip(values / top * 255, 0, 255).round().astype(np.uint8)).convert(
        "RGB"
    )


def _to_srgb(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Convert by the embedded colour profile; plainly where there is none or it is damaged."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return lambda part: part.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return lambda part: part.convert("RGB")
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, image.mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return lambda part: part.convert("RGB")

    def converted(part: Image.Image) -> Image.Image:
        done = ImageCms.applyTransform(part, transform)
        assert done is not None  # only in-place conversion returns None
        return done

    return converted
