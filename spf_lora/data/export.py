"""Writes examples as a training folder: PNG pictures with same-stem `.txt` captions."""

import io
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from spf_lora.atomic import unwritable, write_bytes, write_text
from spf_lora.data.folder import Example
from spf_lora.errors import OutputError


def export_folder(examples: Sequence[Example], folder: Path, *, overwrite: bool = False) -> None:
    """Write each example as `0000.png` and `0000.txt`, so that their order is kept.

    They are written beside and moved in at the end, so a full disk or a kill leaves what was there;
    `read_folder` gives the same pixels and captions.

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
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        beside.mkdir()
    except OSError as error:
        raise _not_there(folder, error) from error
    try:
        for stem, example in zip(stems, examples, strict=True):
            write_bytes(beside / f"{stem}.png", png_bytes(example.image))
            write_text(beside / f"{stem}.txt", f"{example.caption}\n")
        folder.mkdir(exist_ok=True)
        for path in sorted(beside.iterdir()):
            path.replace(folder / path.name)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _prepare(folder: Path, names: set[str], *, overwrite: bool) -> None:
    try:
        inside = folder.iterdir() if folder.exists() else ()
        present = {path.name for path in inside if not path.name.startswith(".")}
    except OSError as error:
        raise _not_there(folder, error) from error
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


def _not_there(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"folder {folder} cannot be written: {error.strerror}",
        hint="give a new folder inside one that exists",
    )


def png_bytes(image: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
