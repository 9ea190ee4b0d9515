"""Changes a registry: adding, removing, renaming. Whatever changes a folder holds its lock file.

Files are prepared beside their target and renamed, so a kill or a full disk leaves what was there.
"""

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from spf_lora.adapters.check import checks
from spf_lora.adapters.format import card
from spf_lora.adapters.format.privacy import leaks
from spf_lora.adapters.format.reading import open_adapter
from spf_lora.adapters.format.rewrite import convert
from spf_lora.atomic import put_new, unwritable
from spf_lora.errors import OutputError, RegistryError
from spf_lora.registry.locks import changing, new_bin, ready, refuse_taken, refuse_unchangeable
from spf_lora.registry.names import PICTURE, SUFFIX, Entry, Place, check_name, find, home
from spf_lora.registry.stack import stacks_with


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
    why = check_usable(source)
    folder = ready(place)
    target = folder / f"{name}{SUFFIX}"
    refuse_taken(folder, name)
    beside = folder / f".{name}.{secrets.token_hex(4)}.add"
    picture = source.with_suffix(PICTURE)
    pictured = picture.is_file() and not source.is_dir()
    beside_picture = beside.with_suffix(PICTURE)
    try:
        copy_clean(source, beside, why)
        if pictured:
            _copy(picture, beside_picture)
        with changing(place, registry):
            refuse_taken(folder, name)
            put_new(beside, target)
            if pictured:
                beside_picture.replace(target.with_suffix(PICTURE))
    except OSError as error:
        raise _unchanged(target, error) from error
    finally:
        beside.unlink(missing_ok=True)
        beside_picture.unlink(missing_ok=True)
    return Added(Entry(name, target, place), why, pictured)


def remove(name: str, registry: Path | None = None, *, force: bool = False) -> Path:
    """Move an adapter and its picture to the registry's trash folder; return its file there.

    Raises:
        RegistryError: there is none of that name where things may be removed, or a stack needs it
            and `force` is not given.
        OutputError: the registry cannot be written.
    """
    place = _changeable(name, registry).place
    with changing(place, registry):
        entry = _still_there(name, place, registry)
        if not force:
            _refuse_needed(entry, registry)
        try:
            bin_ = new_bin(entry.place.folder, name)
        except OSError as error:
            raise _unchanged(entry.path, error) from error
        try:
            entry.path.replace(bin_ / entry.path.name)
            _move_picture(entry.path, bin_ / entry.path.name)
        except FileNotFoundError as error:
            bin_.rmdir()
            raise _gone(name) from error
        except OSError as error:
            raise _unchanged(entry.path, error) from error
    return bin_ / entry.path.name


def rename(old: str, new: str, registry: Path | None = None, *, force: bool = False) -> Entry:
    """Give an adapter another name; its file stays as it is.

    Raises:
        RegistryError: there is no `old`, a stack needs it and `force` is not given, or `new` is
            taken or no name.
        OutputError: the registry cannot be written.
    """
    check_name(new)
    place = _changeable(old, registry).place
    target = place.folder / f"{new}{SUFFIX}"
    with changing(place, registry):
        entry = _still_there(old, place, registry)
        refuse_taken(target.parent, new)
        if not force:
            _refuse_needed(entry, registry)
        try:
            entry.path.replace(target)
            _move_picture(entry.path, target)
        except FileNotFoundError as error:
            raise _gone(old) from error
        except OSError as error:
            raise _unchanged(target, error) from error
    return Entry(new, target, entry.place)


def copy_clean(source: Path, target: Path, why: str) -> None:
    """Copy an adapter byte for byte, or write it anew as a kohya file if there is a reason.

    Args:
        source: any layout.
        target: a new file.
        why: what `check_usable` said of it.
    """
    if why:
        convert(source, target, layout="kohya", dtype=None, overwrite=False)
    else:
        _copy(source, target)


def check_usable(source: Path) -> str:
    """Refuse an adapter that cannot be used; return why it cannot be copied as it is, if so."""
    with open_adapter(source) as opened:
        card.from_metadata(opened.metadata, path=source)
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
    refuse_unchangeable(name, entry.place, registry)
    return entry


def _still_there(name: str, place: Place, registry: Path | None) -> Entry:
    """Look again, now that nobody else changes anything: what is found first must be the same."""
    try:
        entry = find(name, registry)
    except RegistryError as error:
        raise _gone(name) from error
    if entry.place != place:
        raise _gone(name)
    return entry


def _refuse_needed(entry: Entry, registry: Path | None) -> None:
    if needing := stacks_with(entry, registry):
        raise RegistryError(
            f"{entry.name} is part of {'the stack' if len(needing) == 1 else 'the stacks'} "
            f"{', '.join(needing)}",
            hint=f"spf-lora stack drop {needing[0]} {entry.name} first, or --force",
        )


def _gone(name: str) -> RegistryError:
    return RegistryError(
        f"adapter {name} was removed meanwhile", hint="spf-lora adapters list shows what is there"
    )


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("xb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())


def _move_picture(old: Path, new: Path) -> None:
    if old.with_suffix(PICTURE).is_file():
        old.with_suffix(PICTURE).replace(new.with_suffix(PICTURE))


def _unchanged(path: Path, error: OSError) -> OutputError:
    refusal = unwritable(path, error)
    return OutputError(refusal.message, hint=f"{refusal.hint}; nothing was changed")
