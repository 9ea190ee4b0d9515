"""Changes a file's text entries and nothing else: tensors keep their bytes and their order."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from spf_lora.adapters.format.container import open_container
from spf_lora.adapters.format.container_write import HASH_KEYS, Planned, write_container
from spf_lora.adapters.format.peft import HEADER_KEY
from spf_lora.adapters.format.privacy import leaks
from spf_lora.adapters.format.reading import open_adapter
from spf_lora.documents import is_unicode
from spf_lora.errors import AdapterFileError, RecipeError

# entries that say how strong the adapter is; without them it would be another one
_STRENGTH = (HEADER_KEY,)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the text entries of an adapter file."""
    with open_adapter(path) as opened:
        return dict(opened.metadata)


def edit_metadata(path: Path, *, changes: Mapping[str, str], strip: bool) -> dict[str, str]:
    """Rewrite a file with other text entries; its AutoV3 hash stays as it was.

    Args:
        path: the .safetensors file, replaced whole.
        changes: entries to set; an empty text removes one.
        strip: remove all others first, declared hashes included.

    Returns:
        The entries now in the file.

    Raises:
        AdapterFileError: the file cannot be read, or an entry would tell a local path.
        RecipeError: an entry may not be set by hand.
    """
    _check(path, changes)
    with open_adapter(path), open_container(path) as container:
        old = container.metadata
        kept = {key: text for key, text in old.items() if not strip or key in _STRENGTH}
        new = {key: text for key, text in {**kept, **changes}.items() if text}
        tensors = [
            Planned(name, entry.dtype, entry.shape, partial(container.raw, name))
            for name, entry in container.entries.items()
        ]
        write_container(path, tensors, new, overwrite=True, keep_order=True, declare_hash=not strip)
    return read_metadata(path)


def _check(path: Path, changes: Mapping[str, str]) -> None:
    if path.is_dir():
        raise AdapterFileError(f"{path} is a folder", hint="name the .safetensors file inside it")
    for key, text in changes.items():
        if key in (*HASH_KEYS, HEADER_KEY):
            raise RecipeError(
                f"{key} cannot be set by hand", hint="it follows from the tensors and is computed"
            )
        if not is_unicode(key + text):
            entry = f"{key}={text}"[:100]
            raise RecipeError(f"{entry!r} is no text in UTF-8", hint="write it anew")
        if paths := leaks(text):
            raise AdapterFileError(
                f"{key} would hold a local path: {paths[0]}",
                hint="a published file must not tell where it was made",
            )
