"""Files are written beside their target and renamed: a reader sees the old file or the new one.

A kill at any moment leaves at most a hidden `.NAME.*.tmp` beside the target, never half a file.
"""

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from spf_lora.errors import OutputError

_HINTS = {
    errno.ENOSPC: "free some disk space, then run the same command again",
    errno.EDQUOT: "free some of your disk quota, then run the same command again",
    errno.ENAMETOOLONG: "choose a shorter file name",
}
_LONGEST_NAME = 255 - len("..01234567.tmp")  # bytes; what most systems allow, less our own part


def check_writable(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a target that could not be written; call it before the long work, not after.

    Args:
        path: the file to be written later.
        overwrite: allow an existing file at that path.

    Raises:
        OutputError: the file exists, is a folder or too long a name, or its folder is missing or
            read-only.
    """
    folder = path.parent
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise OutputError(
            f"the file name {path.name[:40]}... is longer than {_LONGEST_NAME} bytes",
            hint=_HINTS[errno.ENAMETOOLONG],
        )
    if path.is_dir():
        raise OutputError(f"{path} is a folder, not a file", hint="add a file name to the path")
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path} exists and would be overwritten",
            hint="--force overwrites it; or choose another name",
        )
    if not folder.exists():
        raise OutputError(
            f"folder {folder} does not exist, so {path.name} cannot be written there",
            hint=f"create it first: mkdir -p {folder}",
        )
    if not folder.is_dir():
        raise OutputError(
            f"{folder} is a file, so nothing can be written inside it", hint="choose another folder"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"folder {folder} is read-only for you, so {path.name} cannot be written there",
            hint="choose another folder, or change the folder's permissions",
        )


def numbered(path: Path) -> Path:
    """Return the path, or with the first number that is free: grid.png, grid-2.png, grid-3.png."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def make_folder(path: Path, *, parents: bool = True) -> None:
    """Make a folder that may be there already.

    Args:
        path: the folder.
        parents: make those above it too.

    Raises:
        OutputError: it is a file, or cannot be made.
    """
    try:
        path.mkdir(parents=parents, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(
            f"{path} is a file, so it cannot be a folder", hint="choose another name"
        ) from error
    except OSError as error:
        raise unwritable(path, error) from error


def check_folder(folder: Path) -> None:
    """Refuse a folder that is neither there nor could be made; call it before the long work.

    Raises:
        OutputError: it is a file, or what is above it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder", hint="choose another folder")
    above = next(p for p in (folder, *folder.parents, Path()) if p.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(
            f"{above} cannot be written, so nothing can be in {folder}",
            hint="choose another folder",
        )


@contextmanager
def replacing(path: Path, *, overwrite: bool = False, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield an empty file to write to and read from; it becomes `path` when the block ends well.

    Args:
        path: the target; its folder must exist.
        overwrite: replace an existing file instead of refusing.
        durable: wait for the disk, so that a power cut cannot lose it; without, it may be lost or
            damaged, which is enough for what can be made again.

    Raises:
        OutputError: the target is refused (see `check_writable`) or the system fails to write it.
    """
    check_writable(path, overwrite=overwrite)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        # os.open, unlike tempfile, gives the mode that the user's umask asks for.
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if overwrite:
            beside.replace(path)
        else:
            put_new(beside, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        _remove(beside)


def put_new(beside: Path, path: Path) -> None:
    """Give a finished file its name, unless another one came to it since it was looked.

    Its old name may stay beside the new one; the caller removes it.

    Raises:
        OutputError: there is a file of that name now; nothing was changed.
        OSError: the system refuses.
    """
    try:
        os.link(beside, path)
    except FileExistsError as error:
        raise OutputError(
            f"{path} was written by another process meanwhile",
            hint="--force overwrites it; or choose another name",
        ) from error
    except OSError:  # a disk without hard links
        if path.exists():
            raise
        beside.replace(path)


def unwritable(path: Path, error: OSError) -> OutputError:
    """Return what to tell when the system fails to write `path`."""
    return OutputError(
        f"{path} could not be written: {error.strerror or error}",
        hint=_HINTS.get(error.errno or 0, "choose another folder, or look at its permissions"),
    )


def write_bytes(path: Path, data: bytes, *, overwrite: bool = False, durable: bool = True) -> None:
    """Write `data` to `path` whole or not at all; see `replacing`."""
    with replacing(path, overwrite=overwrite, durable=durable) as file:
        file.write(data)


def write_text(path: Path, text: str, *, overwrite: bool = False) -> None:
    """Write `text` as UTF-8 with line feeds as line ends, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"), overwrite=overwrite)


def sweep(path: Path) -> None:
    """Remove what killed writers of `path` left beside it; nobody may be writing it now."""
    left = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")
    for one in path.parent.glob(".*.tmp"):
        if left.fullmatch(one.name):
            _remove(one)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # The first fault is what the user needs to hear, not this one.
        return
