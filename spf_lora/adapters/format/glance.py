"""Reads a file's text entries and nothing else: what a list of ten thousand adapters needs.

Every writer puts `__metadata__` first, so the beginning of the header is enough. Nothing is checked
here that a list does not show; `open_adapter` checks the rest before a file is used.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spf_lora.adapters.format.card import KEY
from spf_lora.adapters.format.container import MAX_HEADER_BYTES, open_container

_FIRST_BYTES = 1 << 14
_MAX_TEXT_BYTES = 1 << 21
_BEGINNING = '{"__metadata__":'
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True)
class Glance:
    """What a list says of an adapter; nothing in it has been checked.

    Attributes:
        size: bytes of the file.
        attribute: the card's attribute, or the title; empty if neither is there.
        target_text: what the adapter adds to a picture, from its card.
        base_id: the base it was trained on, from its card.
        parents: how many adapters it was made from or trained onto.
    """

    size: int
    attribute: str
    target_text: str
    base_id: str
    parents: int


def glance(path: Path) -> Glance:
    """Read the text entries of one safetensors file.

    Raises:
        AdapterFileError: it is no safetensors file.
    """
    size, entries = _entries(path)
    card = _card(entries.get(KEY))
    parents = card.get("parents")
    return Glance(
        size=size,
        attribute=_text(card, "attribute") or _text(entries, "modelspec.title"),
        target_text=_text(card, "target_text"),
        base_id=_text(card, "base_id"),
        parents=len(parents) if isinstance(parents, list) else 0,
    )


def _entries(path: Path) -> tuple[int, dict[str, Any]]:
    """Return size and text entries; a header that begins otherwise is read and checked whole."""
    beginning = _quickly(path)
    if beginning is not None:
        return beginning
    with open_container(path) as container:
        return container.size, dict(container.metadata)


def _quickly(path: Path) -> tuple[int, dict[str, Any]] | None:
    if not path.is_file():
        return None
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(_FIRST_BYTES)
        length = int.from_bytes(start[:8], "little")
        if not 8 < length <= min(MAX_HEADER_BYTES, size - 8):
            return None
        header = start[8 : 8 + length]
        while True:
            text = header.decode("utf-8", errors="ignore")
            if not text.startswith(_BEGINNING):
                return None
            try:
                table, _ = _decode(text, len(_BEGINNING))
                return (size, table) if isinstance(table, dict) else None
            except (ValueError, RecursionError):
                more = file.read(min(_MAX_TEXT_BYTES, length - len(header)))
                if not more or len(header) > _MAX_TEXT_BYTES:
                    return None
                header += more


def _card(text: Any) -> dict[str, Any]:
    try:
        table = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def _text(table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    return value if isinstance(value, str) else ""
