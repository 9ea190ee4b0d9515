"""Files that a page sends: copied under a name of ours, once our readers have looked at them."""

import hashlib
import re
import shutil
from pathlib import Path

from spf_lora.adapters.check.facts import AdapterFacts, inspect
from spf_lora.atomic import make_folder, replacing
from spf_lora.documents import open_regular
from spf_lora.errors import AdapterFileError
from spf_lora.registry.names import MAX_NAME, SUFFIX

MOST_BYTES = 512 << 20


def take(source: Path, folder: Path) -> tuple[Path, AdapterFacts]:
    """Copy an uploaded LoRA file and say what it is.

    Args:
        source: where the server put it; nothing of its name but letters and digits is used.
        folder: where the copy goes, in a folder of its content's; it is made.

    Raises:
        AdapterFileError: it is too large, or no file of tensors that our readers take.
        OutputError: the copy cannot be written.
    """
    try:
        with open_regular(source) as (file, size):
            if size > MOST_BYTES:
                raise AdapterFileError(
                    f"the file has {size >> 20} MiB; a page takes {MOST_BYTES >> 20} MiB",
                    hint="larger ones: spf-lora clean FILE in a terminal",
                )
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise AdapterFileError("the file cannot be read", hint="send it again") from error
    # a job may still read another file of this name
    target = folder / digest[:16] / f"{slug(source.stem)}{SUFFIX}"
    make_folder(target.parent)
    with source.open("rb") as old, replacing(target, overwrite=True) as new:
        shutil.copyfileobj(old, new, 1 << 20)
    try:
        return target, inspect(target)
    except AdapterFileError as error:
        target.unlink(missing_ok=True)
        raise AdapterFileError(
            error.message.replace(str(target), "the file"),
            hint="only .safetensors files of LoRAs are read; nothing that is pickled",
        ) from error


def slug(name: str) -> str:
    """Return a name that the registry takes, from any text."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_NAME].strip("-") or "adapter"
