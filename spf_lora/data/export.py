"""Writes examples as a training folder: PNG pictures with same-stem `.txt` captions."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from spf_lora.atomic import write_bytes, write_text
from spf_lora.data.folder import Example
from spf_lora.errors import OutputError


def export_folder(examples: Sequence[Example], folder: Path, *, overwrite: bool = False) -> None:
    """Write each example as `0000.png` and `0000.txt`, so that their order is kept.

    Each file is written whole or not at all; `read_folder` gives the same pixels and captions.

    Args:
        examples: what to write.
        folder: created if it is missing, not its parents.
        overwrite: allow a folder that holds these very files already.

    Raises:
        OutputError: the folder is not empty, holds other files, or cannot be written.
    """
    digits = max(4, len(str(len(examples) - 1)))
    stems = [f"{index:0{digits}}" for index in range(len(examples))]
    _prepare(folder, {f"{s}.png" for s in stems} | {f"{s}.txt" for s in stems}, overwrite=overwrite)
    for stem, example in zip(stems, examples, strict=True):
        write_bytes(folder / f"{stem}.png", _png(example.image), overwrite=overwrite)
        write_text(folder / f"{stem}.txt", f"{example.caption}\n", overwrite=overwrite)


def _prepare(folder: Path, names: set[str], *, overwrite: bool) -> None:
    try:
        folder.mkdir(exist_ok=True)
        present = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    except OSError as error:
        raise OutputError(
            f"folder {folder} cannot be written: {error.strerror}",
            hint="give a new folder inside one that exists",
        ) from error
    if present and not overwrite:
        raise OutputError(
            f"folder {folder} is not empty",
            hint="--force overwrites an earlier export; or choose another folder",
        )
    if others := sorted(present - names):
        raise OutputError(
            f"folder {folder} holds other files, {others[0]} among them, "
            "which would be trained along with these",
            hint="choose a new folder, or empty this one first",
        )


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
