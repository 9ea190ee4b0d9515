"""What a change of a registry's folder needs: its lock, its trash, and names that are free."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spf_lora.atomic import check_writable, make_folder
from spf_lora.errors import RegistryError
from spf_lora.locks import locked
from spf_lora.registry.names import STACK, SUFFIX, Place, places

TRASH = ".trash"
LOCK = ".lock"


def ready(place: Place) -> Path:
    """Return a place's folder, made if need be, once it is known to be writable.

    Raises:
        OutputError: it cannot be made or is read-only.
    """
    make_folder(place.folder)
    check_writable(place.folder / LOCK, overwrite=True)
    return place.folder


@contextmanager
def changing(place: Place, registry: Path | None) -> Iterator[Path]:
    """Hold the locks of all folders that are searched; yield that of `place`, made if need be.

    What a change depends on may lie in any of them: an adapter of a stack, a stack that needs an
    adapter. So it is looked up inside, and stays as it was seen until the change is done.

    Raises:
        LockedError: another process held one for a minute.
        OutputError: the folder of `place` cannot be made or is read-only.
    """
    folder = ready(place)
    others = (one.folder for one in places(registry) if _changes(one))
    with locked(*(one / LOCK for one in (folder, *others))):
        yield folder


def _changes(place: Place) -> bool:
    """Tell whether anything can change in a place while we look."""
    folder = place.folder
    return place.label != "shipped" and folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def new_bin(folder: Path, name: str) -> Path:
    """Make a folder of its own in the registry's trash and return it."""
    bin_ = folder / TRASH / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    bin_.mkdir(parents=True)
    return bin_


def refuse_taken(folder: Path, name: str) -> None:
    """Refuse a name that an adapter or a stack of this folder has: they share their names.

    Raises:
        RegistryError: it is taken.
    """
    for suffix, command in ((SUFFIX, "adapters"), (STACK, "stack")):
        if (folder / f"{name}{suffix}").exists():
            raise RegistryError(
                f"the name {name} is taken in {folder}",
                hint=f"choose another, or: spf-lora {command} remove {name}",
            )


def refuse_unchangeable(name: str, place: Place, registry: Path | None) -> None:
    """Refuse to change what came with the package, or lies elsewhere than was said.

    Raises:
        RegistryError: it does.
    """
    if registry and place.label != "--registry":
        raise RegistryError(
            f"registry {registry} has no {name}; it is in {place.folder}",
            hint=f"leave --registry out, or name {place.folder} with it",
        )
    if place.label == "shipped":
        raise RegistryError(
            f"{name} came with spf-lora and stays", hint="add your own under another name"
        )
