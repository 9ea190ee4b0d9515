"""The registry: folders of adapter files. The files are the truth, there is no index to drift.

An entry is `NAME.safetensors` and, where there is one, its picture `NAME.png`; a stack of several
is `NAME.stack.toml` (see `stack`). Reading takes no
lock, for files appear and go whole; `registry_edit` changes what is there.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from spf_lora.adapters.check import checks
from spf_lora.errors import AdapterFileError, RegistryError
from spf_lora.shipped import shipped_folder

VARIABLE = "SPF_LORA_ADAPTERS"
SUFFIX, PICTURE, STACK = ".safetensors", ".png", ".stack.toml"
LOCAL = Path("adapters")
MAX_NAME = 64
# checks that say whether a file is what it says; the others say which apps like it
MUST_PASS = frozenset({"readable", "numbers", "declared hash", "card"})

NAME_PATTERN = r"[a-z0-9]+(?:[-_][a-z0-9]+)*"
_NAME = re.compile(NAME_PATTERN)
_WINDOWS_DEVICES = (
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{one}{n}" for one in ("com", "lpt") for n in range(10)),
)
RESERVED = frozenset((*_WINDOWS_DEVICES, "all", "none", "base", "embedded"))


@dataclass(frozen=True)
class Place:
    """One folder that is searched.

    Attributes:
        label: why it is searched, such as `--registry`.
        folder: where it is.
    """

    label: str
    folder: Path


@dataclass(frozen=True)
class Entry:
    """One adapter of a registry.

    Attributes:
        name: what to call it by.
        path: its file.
        place: the folder it was found in.
    """

    name: str
    path: Path
    place: Place


def places(registry: Path | None = None) -> list[Place]:
    """Return the folders searched, first come first served; they need not exist."""
    from platformdirs import user_data_path

    chosen = [Place("--registry", registry)] if registry else []
    variable = os.environ.get(VARIABLE)
    searched = [
        *chosen,
        *([Place(VARIABLE, Path(variable))] if variable else []),
        Place("./adapters", LOCAL),
        Place("user data", user_data_path("spf-lora", appauthor=False) / "adapters"),
        Place("shipped", shipped_folder("adapters")),
    ]
    first: dict[str, Place] = {}
    for place in searched:  # Path.resolve would stumble over a link to itself
        first.setdefault(os.path.realpath(place.folder), place)
    return list(first.values())


def check_name(name: str) -> str:
    """Return a name that is safe as a file name on every system.

    Raises:
        RegistryError: it is a path, a reserved word or holds other signs.
    """
    if name.lower() in RESERVED:
        raise RegistryError(f"{name!r} is a reserved word", hint=f"choose another: {name}-lora")
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        better = re.sub(r"[^a-z0-9]+", "-", Path(name).stem.lower()).strip("-")[:MAX_NAME]
        raise RegistryError(
            f"{name[:100]!r} is no name: small letters and digits, words joined by - or _, "
            f"at most {MAX_NAME}",
            hint=f"call it {better or 'beard'}",
        )
    return name


def entries(registry: Path | None = None) -> Iterator[Entry]:
    """Yield all adapters that can be called by name, each name once, sorted within a folder."""
    seen: set[str] = set()
    for place in places(registry):
        for name in sorted(stems(place.folder)):
            if name not in seen and _NAME.fullmatch(name):
                seen.add(name)
                yield Entry(name, place.folder / f"{name}{SUFFIX}", place)


def misnamed(registry: Path | None = None) -> list[Path]:
    """Return adapter files whose names cannot be called."""
    return [
        place.folder / f"{name}{SUFFIX}"
        for place in places(registry)
        for name in sorted(stems(place.folder))
        if not _NAME.fullmatch(name)
    ]


def stems(folder: Path, suffix: str = SUFFIX) -> list[str]:
    """Return the names of a folder's files of one kind, hidden ones left out.

    Raises:
        RegistryError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as listing:
            names = [one.name for one in listing]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RegistryError(
            f"registry {folder} cannot be read: {error.strerror}", hint="look at its permissions"
        ) from error
    return [name[: -len(suffix)] for name in names if name.endswith(suffix) and name[0] != "."]


def find(name: str, registry: Path | None = None) -> Entry:
    """Return the first adapter of that name.

    Raises:
        RegistryError: there is none, or the name is no name.
    """
    check_name(name)
    for place in places(registry):
        path = place.folder / f"{name}{SUFFIX}"
        if path.is_file():
            return Entry(name, path, place)
    near = get_close_matches(name, [one.name for one in entries(registry)], n=3)
    raise RegistryError(
        f"no adapter is called {name}",
        hint=f"did you mean {' or '.join(near)}?" if near else "spf-lora adapters list shows all",
    )


def resolve(text: str, registry: Path | None = None) -> Path:
    """Return the file that a user means by a registry name or, failing that, by a path.

    Raises:
        RegistryError: it is no path and no adapter has that name.
        AdapterFileError: it is a path where nothing is.
    """
    if _NAME.fullmatch(text):
        near = [place.folder / f"{text}{SUFFIX}" for place in places(registry)]
        if nearest := next((path for path in near if path.is_file()), None):
            return nearest
    if Path(text).exists():
        return Path(text)
    if text.endswith(SUFFIX) or Path(text).name != text:
        raise AdapterFileError(f"{text} does not exist", hint="check the path")
    return find(text, registry).path


def home(registry: Path | None = None) -> Place:
    """Return where `add` puts things: what was asked for, ./adapters, or the user data folder."""
    searched = places(registry)
    wanted = [one for one in searched if one.label in ("--registry", VARIABLE)]
    local = [one for one in searched if one.label == "./adapters" and one.folder.is_dir()]
    return (wanted + local + [one for one in searched if one.label == "user data"])[0]


def verify(entry: Entry) -> list[checks.Finding]:
    """Check that an adapter is whole and says the truth of itself, whichever app reads it."""
    try:
        return [one for one in checks.verify(entry.path, ()) if one.check in MUST_PASS]
    except AdapterFileError as error:  # it went meanwhile
        return [checks.Finding("readable", "fail", error.message)]
