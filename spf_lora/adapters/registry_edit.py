"""Changes a registry: adding, removing, renaming. Whatever changes a folder holds its lock file.

Files are prepared beside their target and renamed, so a kill or a full disk leaves what was there.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spf_lora.adapters import card, checks
from spf_lora.adapters.privacy import leaks
from spf_lora.adapters.reading import open_adapter
from spf_lora.adapters.registry import PICTURE, SUFFIX, Entry, Place, check_name, find, home
from spf_lora.adapters.rewrite import convert
from spf_lora.atomic import check_writable
from spf_lora.errors import OutputError, RegistryError

TRASH = ".trash"
_LOCK_SECONDS = 60


@dataclass(frozen=True)
class Added:
    """What `add` did.

    Attributes:
        entry: the new entry.
        rewritten: why the file was written anew and not copied byte for byte; empty if it was.
        picture: whether a picture came along.
    """

    entry: Entry
    rewritten: str
    picture: bool


def add(source: Path, name: str, registry: Path | None = None) -> Added:
    """Check an adapter of any layout and put it into the registry as one kohya file.

    A sound kohya file is copied byte for byte; any other is written anew, with the same content
    id, its card and true hashes. A picture beside it of the same stem comes along.

    Raises:
        RegistryError: the name is taken or no name.
        AdapterFileError: the adapter cannot be used.
        OutputError: the registry cannot be written.
    """
    check_name(name)
    place = home(registry)
    why = _check(source)
    folder = _ready(place)
    target = folder / f"{name}{SUFFIX}"
    _refuse_taken(target)
    beside = folder / f".{name}.{secrets.token_hex(4)}.add"
    picture = source.with_suffix(PICTURE)
    pictured = picture.is_file() and not source.is_dir()
    beside_picture = beside.with_suffix(PICTURE)
    try:
        if why:
            convert(source, beside, layout="kohya", dtype=None, overwrite=False)
        else:
            _copy(source, beside)
        if pictured:
            _copy(picture, beside_picture)
        with _locked(folder):
            _refuse_taken(target)
            beside.replace(target)
            if pictured:
                beside_picture.replace(target.with_suffix(PICTURE))
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        beside.unlink(missing_ok=True)
        beside_picture.unlink(missing_ok=True)
    return Added(Entry(name, target, place), why, pictured)


def remove(name: str, registry: Path | None = None) -> Path:
    """Move an adapter and its picture to the registry's trash folder; return its file there.

    Raises:
        RegistryError: there is none of that name where things may be removed.
        OutputError: the registry cannot be written.
    """
    entry = _changeable(name, registry)
    with _locked(_ready(entry.place)):
        trash = entry.place.folder / TRASH
        bin_ = trash / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        try:
            bin_.mkdir(parents=True)
            entry.path.replace(bin_ / entry.path.name)
            _move_picture(entry.path, bin_ / entry.path.name)
        except FileNotFoundError as error:
            bin_.rmdir()
            raise _gone(name) from error
        except OSError as error:
            raise _unwritable(entry.path, error) from error
    return bin_ / entry.path.name


def rename(old: str, new: str, registry: Path | None = None) -> Entry:
    """Give an adapter another name; its file stays as it is.

    Raises:
        RegistryError: there is no `old`, or `new` is taken or no name.
        OutputError: the registry cannot be written.
    """
    check_name(new)
    entry = _changeable(old, registry)
    target = entry.path.with_name(f"{new}{SUFFIX}")
    with _locked(_ready(entry.place)):
        _refuse_taken(target)
        try:
            entry.path.replace(target)
            _move_picture(entry.path, target)
        except FileNotFoundError as error:
            raise _gone(old) from error
        except OSError as error:
            raise _unwritable(target, error) from error
    return Entry(new, target, entry.place)


def _check(source: Path) -> str:
    """Refuse an adapter that cannot be used; return why it cannot be copied as it is, if so."""
    with open_adapter(source) as opened:
        card.from_metadata(opened.metadata)
        for name in opened.specs:
            opened.load(name)
        if opened.layout != "kohya" or source.is_dir():
            return f"its layout is {opened.layout}"
        if any(leaks(text) for text in opened.metadata.values()):
            return "its metadata held a local path"
    stale = [one for one in checks.verify(source, ()) if one.check == "declared hash"]
    return "it declared a wrong hash" if stale[0].status == "fail" else ""


def _changeable(name: str, registry: Path | None) -> Entry:
    entry = find(name, registry)
    if registry and entry.place.label != "--registry":
        raise RegistryError(
            f"registry {registry} has no adapter {name}; it is in {entry.place.folder}",
            hint=f"leave --registry out, or name {entry.place.folder} with it",
        )
    if entry.place.label == "shipped":
        raise RegistryError(
            f"{name} came with spf-lora and stays", hint="add your own under another name"
        )
    return entry


def _refuse_taken(target: Path) -> None:
    if target.exists():
        raise RegistryError(
            f"the name {target.stem} is taken in {target.parent}",
            hint=f"choose another with --name, or: spf-lora adapters remove {target.stem}",
        )


def _gone(name: str) -> RegistryError:
    return RegistryError(
        f"adapter {name} was removed meanwhile", hint="spf-lora adapters list shows what is there"
    )


def _ready(place: Place) -> Path:
    """Return the folder, made if need be, once it is known to be writable."""
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(place.folder, error) from error
    check_writable(place.folder / ".lock", overwrite=True)
    return place.folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / ".lock", timeout=_LOCK_SECONDS):
            yield
    except Timeout as error:
        raise RegistryError(
            f"another process has held {folder} for {_LOCK_SECONDS} seconds",
            hint="wait for it to end, then run the same command again",
        ) from error


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("xb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())


def _move_picture(old: Path, new: Path) -> None:
    if old.with_suffix(PICTURE).is_file():
        old.with_suffix(PICTURE).replace(new.with_suffix(PICTURE))


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path} could not be written: {error.strerror or error}",
        hint="check the free disk space and the folder's permissions; nothing was changed",
    )
