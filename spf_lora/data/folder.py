"""Reads a training folder as trainers know it: pictures, each with a caption of the same stem.

Nothing is skipped in silence: every picture and caption that cannot be used is listed, together,
and then nothing is trained.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from spf_lora.data.captions import has_target, join_phrases, split_phrases
from spf_lora.errors import DataError
from spf_lora.recipe import Attribute

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
CAPTION_SUFFIXES = (".txt", ".caption")


@dataclass(frozen=True, slots=True)
class Example:
    """One picture to train on.

    Attributes:
        image: RGB, upright, on white where it was transparent.
        caption: comma-separated phrases, the target among them.
        source: where it came from, for messages.
    """

    image: Image.Image
    caption: str
    source: str


def read_folder(
    folder: Path, attribute: Attribute, *, shorter_side_px: int | None = None
) -> list[Example]:
    """Read every picture of a folder with its caption, in the order of file names.

    Args:
        folder: holds pictures and, with the same stem, `.txt` or `.caption` files.
        attribute: every caption must name its target or an alias.
        shorter_side_px: larger pictures are shrunk to it while reading, which saves memory.

    Raises:
        DataError: lists everything that is wrong with the folder.
    """
    images, captions = _list_files(folder)
    if not images:
        raise DataError(
            f"folder {folder} holds no pictures ({_known_suffixes()}){_deeper(folder)}",
            hint="give the folder that holds the pictures and their .txt captions",
        )
    faults = _pairing_faults(images, captions)
    examples = []
    for path in images:
        image = _read_image(path, shorter_side_px, faults)
        caption = _read_caption(captions.get(path.stem, []), attribute, faults)
        if image and caption:
            examples.append(Example(image, caption, path.name))
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise DataError(
            "\n  ".join((f"folder {folder} has {count}:", *sorted(faults))),
            hint="mend or remove these files; each picture needs a caption of the same name "
            f"that says {attribute.target_text!r}",
        )
    return examples


def dataset_digest(examples: Iterable[Example]) -> str:
    """Return the sha256 of pictures and captions, whatever their order, names and file formats."""
    return hashlib.sha256(b"".join(sorted(map(_example_digest, examples)))).hexdigest()


def _example_digest(example: Example) -> bytes:
    width, height = example.image.size
    parts = (f"{width}x{height}".encode(), example.image.tobytes(), example.caption.encode())
    # Digests of the parts have a fixed length, so no two splits of the bytes look the same.
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def _list_files(folder: Path) -> tuple[list[Path], dict[str, list[Path]]]:
    """Return the pictures and, by stem, the captions; hidden files are not looked at."""
    try:
        files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"training folder {folder} cannot be read: {error.strerror}",
            hint="give a folder of pictures and captions; `spf-lora portraits export` makes one",
        ) from error
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    captions: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix.lower() in CAPTION_SUFFIXES:
            captions.setdefault(path.stem, []).append(path)
    return images, captions


def _pairing_faults(images: Sequence[Path], captions: dict[str, list[Path]]) -> list[str]:
    stems: dict[str, list[str]] = {}
    for path in images:
        stems.setdefault(path.stem, []).append(path.name)
    faults = [f"{names[0]}: has no caption" for s, names in stems.items() if s not in captions]
    faults += [
        f"{names[0]}: shares its caption with {', '.join(names[1:])}"
        for names in stems.values()
        if len(names) > 1
    ]
    for stem, paths in captions.items():
        if stem not in stems:
            faults += [f"{path.name}: has no picture of a kind that can be read" for path in paths]
        elif len(paths) > 1:
            faults.append(f"{paths[0].name}: {paths[1].name} is a second caption")
    return faults


def _read_image(path: Path, shorter_side_px: int | None, faults: list[str]) -> Image.Image | None:
    try:
        with Image.open(path) as opened:
            return _shrunk(_flattened(ImageOps.exif_transpose(opened)), shorter_side_px)
    # Pillow's decoders raise almost anything on damaged files: OSError, SyntaxError, struct.error.
    except Exception as error:
        cause = " ".join(str(error).replace(str(path), path.name).split())
        faults.append(f"{path.name}: cannot be read as a picture ({cause})")
        return None


def _flattened(image: Image.Image) -> Image.Image:
    """Return the picture as RGB; what is transparent becomes white."""
    if image.mode.startswith("I;16"):
        # Pillow would clip sixteen bits to eight instead of scaling them.
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layered).convert("RGB")


def _shrunk(image: Image.Image, shorter_side_px: int | None) -> Image.Image:
    shorter = min(image.size)
    if shorter_side_px is None or shorter <= shorter_side_px:
        return image
    width, height = (round(side * shorter_side_px / shorter) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _read_caption(paths: Sequence[Path], attribute: Attribute, faults: list[str]) -> str | None:
    if not paths:
        return None
    name = paths[0].name
    try:
        caption = join_phrases(split_phrases(paths[0].read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError) as error:
        cause = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        faults.append(f"{name}: cannot be read as a caption ({cause})")
        return None
    if not caption:
        faults.append(f"{name}: is empty")
    elif not has_target(caption, attribute):
        faults.append(f"{name}: does not say {attribute.target_text!r}")
    return caption


def _known_suffixes() -> str:
    return ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))


def _deeper(folder: Path) -> str:
    """Name a folder inside that does hold pictures, as kohya's `10_name` folders do."""
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if any(path.suffix.lower() in IMAGE_SUFFIXES for path in inner.iterdir()):
            return f"; but {inner} does"
    return ""
