"""Opens pictures as people have them: turned by the camera, transparent, CMYK, 16-bit, animated."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
# Pictures to their owner, but nothing that Pillow decodes: to be told, never passed over.
UNREADABLE_SUFFIXES = frozenset(
    {".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".psd", ".raw", ".svg"}
)
_ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        image: RGB in sRGB, upright, on white where it was transparent.
        size: width and height before it was shrunk, upright.
        frames: how many it has; only the first is used.
    """

    image: Image.Image
    size: tuple[int, int]
    frames: int


def open_picture(path: Path, *, shorter_side_px: int | None = None) -> Picture:
    """Decode a picture; a larger one is shrunk to `shorter_side_px`, which spares memory.

    Raises:
        ValueError: it cannot be decoded; the message says why and names no folder.
    """
    try:
        with Image.open(path) as opened:
            # Phones put depth maps behind the picture: a second image, but no animation.
            frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
            wide, high = opened.size
            if shorter_side_px and opened.format == "JPEG":
                opened.draft(None, (shorter_side_px, shorter_side_px))
            upright = ImageOps.exif_transpose(opened)
            lying = opened.getexif().get(_ORIENTATION, 1) >= 5  # these swap the sides
            image = _shrunk(as_rgb(upright), shorter_side_px)
            return Picture(image, (high, wide) if lying else (wide, high), frames)
    # Pillow's decoders raise almost anything on damaged files: OSError, SyntaxError, struct.error.
    except Exception as error:
        cause = " ".join(str(error).replace(str(path), path.name).split())
        raise ValueError(cause or type(error).__name__) from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Return any picture as RGB: deep ones scaled to 8 bits, profiles applied, white behind."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return _to_srgb(image)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale deep grey values to 8 bits; Pillow alone would clip them."""
    values = np.asarray(image, dtype=np.float64)
    largest = float(values.max(initial=0))
    if image.mode == "F":
        top = 1.0 if largest <= 1 else 255.0
    else:
        top = 65535.0 if image.mode.startswith("I;16") or largest > 255 else 255.0
    return Image.fromarray(np.clip(values / top * 255, 0, 255).round().astype(np.uint8))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert by the embedded colour profile; plainly where there is none or it is damaged."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" in ImageCms.getProfileDescription(source).lower():
                return image.convert("RGB")
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            assert converted is not None  # only in-place conversion returns None
            return converted
        except (ImageCms.PyCMSError, OSError):
            return image.convert("RGB")
    return image.convert("RGB")


def _shrunk(image: Image.Image, shorter_side_px: int | None) -> Image.Image:
    shorter = min(image.size)
    if shorter_side_px is None or shorter <= shorter_side_px:
        return image
    width, height = (round(side * shorter_side_px / shorter) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)
