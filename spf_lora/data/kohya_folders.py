"""kohya's training folders: `10_crown` holds pictures, each of which is seen ten times an epoch.

Read as kohya reads them: only sub-folders called REPEATS_NAME count, what lies in folders inside
those does not, and a picture without a caption has its folder's NAME for one. Only the proportion
of repeats matters here, where steps are counted and not epochs.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from spf_lora.data.faults import Fault
from spf_lora.data.listing import METADATA_FILES, Caption, Listing, holds_pictures, list_folder

_T = TypeVar("_T")
_NAME = re.compile(r"(\d{1,4})_(.+)")


def list_training_folder(folder: Path) -> Listing:
    """Look at a folder of pictures, or at one of kohya's folders.

    Raises:
        DataError: it cannot be read, or holds no pictures.
    """
    named = _named_folders(folder)
    if not named or any((folder / name).exists() for name in METADATA_FILES):
        return list_folder(folder)
    parts = {inner: list_folder(folder / inner, spare=words) for inner, (_, words) in named.items()}
    faults = [
        Fault(f"{inner}/{fault.file}", fault.text)
        for inner, part in parts.items()
        for fault in part.faults
    ]
    if holds_pictures(folder):
        text = "lies beside kohya's folders, where nothing is read: put it into one of them"
        faults += [Fault(name, text) for name in sorted(list_folder(folder, spare="x").pictures)]
    divisor = math.gcd(*(repeats for repeats, _ in named.values()))
    return Listing(
        pictures=_joined({inner: part.pictures for inner, part in parts.items()}),
        captions={
            f"{inner}/{name}": Caption(caption.text, f"{inner}/{caption.place}")
            for inner, part in parts.items()
            for name, caption in part.captions.items()
        },
        masks=_joined({inner: part.masks for inner, part in parts.items()}),
        faults=faults,
        repeats={
            f"{inner}/{name}": named[inner][0] // divisor
            for inner, part in parts.items()
            for name in part.pictures
        },
        spared=[f"{inner}/{name}" for inner, part in parts.items() for name in part.spared],
        unread=_unread(folder, named),
    )


def _named_folders(folder: Path) -> dict[str, tuple[int, str]]:
    """Return name -> repeats and words of the folders inside that kohya would read."""
    try:
        inner = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return {}
    matches = {path: _NAME.fullmatch(path.name) for path in inner}
    return {
        path.name: (int(match[1]), match[2].replace("_", " ").strip())
        for path, match in matches.items()
        if match and int(match[1]) and holds_pictures(path)
    }


def _unread(folder: Path, named: Mapping[str, object]) -> list[str]:
    """Return the folders with pictures that nobody reads: one inside, and inside those."""
    within = [*folder.iterdir(), *(p for name in named for p in (folder / name).iterdir())]
    return sorted(
        path.relative_to(folder).as_posix()
        for path in within
        if path.is_dir() and path.name not in (*named, "masks") and holds_pictures(path)
    )


def _joined(parts: Mapping[str, Mapping[str, _T]]) -> dict[str, _T]:
    named = parts.items()
    return {f"{inner}/{name}": one for inner, part in named for name, one in part.items()}
