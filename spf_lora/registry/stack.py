"""A stack: adapters that are on together, in the order they were learned; a small TOML file.

It names its adapters and holds their content ids, so a stack never silently means other adapters
than it did. `stack_edit` changes what is there.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spf_lora.adapters.format import card as cards
from spf_lora.adapters.format.base_match import refuse_other_base
from spf_lora.adapters.format.hashes import content_id_of
from spf_lora.adapters.format.reading import open_adapter
from spf_lora.adapters.strength import HIGHEST, LOWEST
from spf_lora.documents import read_toml
from spf_lora.errors import AdapterFileError, RegistryError, StackError
from spf_lora.registry.names import (
    NAME_PATTERN,
    STACK,
    SUFFIX,
    Entry,
    Place,
    check_name,
    places,
    stems,
)
from spf_lora.strict import (
    Shape,
    check_table,
    did_you_mean,
    missing_keys,
    required,
    setting,
)

FORMAT_VERSION = 1
State = Literal["ok", "missing", "changed"]
_MOST_BYTES = 256 << 10
_NAME = Shape(NAME_PATTERN, "an adapter's name")
_ID = Shape(r"[0-9a-f]{64}", "64 hex digits")
BASE_ID = Shape(r"[ -~]{0,100}", "a base model's id")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One adapter of a stack."""

    name: str = required("its name in the registry", shape=_NAME)
    content_id: str = required("its content id", shape=_ID)
    strength: float = setting(1.0, "what it adds is multiplied by it", low=LOWEST, high=HIGHEST)


@dataclass(frozen=True, kw_only=True)
class _Head:
    format_version: int = required("version of the file")
    base_id: str = required("the base all adapters were trained on", shape=BASE_ID)


@dataclass(frozen=True)
class Stack:
    """A stack as its file says it.

    Attributes:
        name: what to call it by.
        base_id: the base its adapters were trained on; empty if no card tells.
        members: the adapters, in the order they were learned; at least one.
        place: the folder it was found in.
    """

    name: str
    base_id: str
    members: tuple[Member, ...]
    place: Place

    @property
    def path(self) -> Path:
        """The stack's file."""
        return self.place.folder / f"{self.name}{STACK}"


@dataclass(frozen=True)
class Known:
    """An adapter's file, and who it is.

    Attributes:
        name: its name in the registry.
        path: its file.
        content_id: of its numbers.
        card: what it says about itself, or None.
    """

    name: str
    path: Path
    content_id: str
    card: cards.Card | None


def stack_names(registry: Path | None = None) -> Iterator[tuple[str, Place]]:
    """Yield all stacks that can be called by name, each name once."""
    seen: set[str] = set()
    for place in places(registry):
        for name in sorted(stems(place.folder, STACK)):
            if name not in seen and _NAME.fits(name):
                seen.add(name)
                yield name, place


def find_place(name: str, registry: Path | None = None) -> Place:
    """Return the first folder that has a stack of that name.

    Raises:
        RegistryError: there is none, or the name is no name.
    """
    check_name(name)
    for place in places(registry):
        if (place.folder / f"{name}{STACK}").is_file():
            return place
    known = [one for one, _ in stack_names(registry)]
    raise RegistryError(
        f"no stack is called {name}{did_you_mean(name, known)}",
        hint="spf-lora stack create NAME ADAPTER... makes one",
    )


def find_stack(name: str, registry: Path | None = None) -> Stack:
    """Read the first stack of that name.

    Raises:
        RegistryError: there is none, or the name is no name.
        StackError: its file is not as it should be.
    """
    return read_stack(name, find_place(name, registry))


def read_stack(name: str, place: Place) -> Stack:
    """Read a stack's file and check it whole.

    Raises:
        StackError: lists everything that is wrong with it.
    """
    path = place.folder / f"{name}{STACK}"
    table = _table(path)
    rows = table.pop("adapters", [])
    head, faults = check_table(_Head, table, prefix="")
    faults += [f"{key} is missing" for key in missing_keys(_Head, table)]
    if head.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        faults.append(f"it has version {head['format_version']}, this is {FORMAT_VERSION}")
    if not isinstance(rows, list) or not rows or not all(isinstance(one, dict) for one in rows):
        faults.append("it has no adapters; each is a table [[adapters]]")
        rows = []
    members = [_member(row, f"adapters {at}: ", faults) for at, row in enumerate(rows, 1)]
    for key in ("name", "content_id"):
        values = [one.get(key) for one in rows]
        faults += [f"{key} {one!r} is there twice" for one in _twice(values)]
    if faults:
        raise StackError(
            "\n  ".join((f"the stack {path} cannot be used:", *faults)),
            hint=f"fix it, or remove it and create it anew: spf-lora stack create {name} ...",
        )
    return Stack(name, head["base_id"], tuple(one for one in members if one), place)


def to_toml(stack: Stack) -> str:
    """Return the text of a stack's file."""
    lines = [
        "# adapters that are on together, in the order they were learned",
        f"format_version = {FORMAT_VERSION}",
        f"base_id = {_quoted(stack.base_id)}",
    ]
    for one in stack.members:
        lines += [
            "",
            "[[adapters]]",
            f"name = {_quoted(one.name)}",
            f"content_id = {_quoted(one.content_id)}",
            f"strength = {one.strength!r}",
        ]
    return "\n".join(lines) + "\n"


def look(name: str, path: Path) -> Known:
    """Read an adapter whole and say who it is.

    Raises:
        AdapterFileError: it cannot be used.
    """
    with open_adapter(path) as opened:
        content_id = content_id_of(opened.specs, opened.load)
        return Known(name, path, content_id, cards.from_metadata(opened.metadata, path=path))


def state_of(member: Member, registry: Path | None = None) -> tuple[State, Known | None]:
    """Tell whether the adapter a stack means is still there; the first that is the same counts."""
    state: State = "missing"
    for place in places(registry):
        path = place.folder / f"{member.name}{SUFFIX}"
        if path.is_file():
            state = "changed"
            try:
                known = look(member.name, path)
            except AdapterFileError:
                continue
            if known.content_id == member.content_id:
                return "ok", known
    return state, None


def adapters_of(stack: Stack, registry: Path | None = None) -> list[tuple[Known, float]]:
    """Return a stack's adapters and strengths.

    Raises:
        StackError: one was removed or has changed.
        AdapterFileError: one is of another base than the stack.
    """
    adapters = []
    for member in stack.members:
        state, known = state_of(member, registry)
        if known is None:
            was = f"{member.name} with the content id {member.content_id[:12]}"
            now = "no adapter has that name" if state == "missing" else "it has changed since"
            raise StackError(
                f"the stack {stack.name} needs {was}, but {now}",
                hint=f"bring it back, or: spf-lora stack drop {stack.name} {member.name}",
            )
        refuse_other_base(known.card, known.name, stack.base_id, of="the stack's base")
        adapters.append((known, member.strength))
    return adapters


def onto_members(card: cards.Card | None) -> list[Member]:
    """Return what was on while this adapter was trained, in the order it was learned.

    Raises:
        StackError: the card says it in another way than we do.
    """
    rows = card.recipe.get("onto", []) if card else []
    if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
        rows = [{"onto": rows}]
    faults: list[str] = []
    members = [_member(row, f"onto {at}: ", faults) for at, row in enumerate(rows, 1)]
    if faults:
        raise StackError(
            "\n  ".join(("the card does not say what the adapter was trained onto:", *faults)),
            hint="spf-lora metadata FILE --strip removes the card",
        )
    return [one for one in members if one]


def stacks_with(entry: Entry, registry: Path | None = None) -> list[str]:
    """Return the names of the stacks that need this very adapter; unreadable ones are left out."""
    needing = []
    content_id = ""
    for name, place in stack_names(registry):
        try:
            members = read_stack(name, place).members
            wanted = [one.content_id for one in members if one.name == entry.name]
            content_id = content_id or (look(entry.name, entry.path).content_id if wanted else "")
        except (StackError, AdapterFileError):
            continue
        if content_id in wanted:
            needing.append(name)
    return needing


def removed_meanwhile(name: str) -> StackError:
    """Return what to tell of a stack that was there a moment ago."""
    return StackError(
        f"the stack {name} was removed meanwhile", hint="spf-lora stack list shows what is there"
    )


def _table(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path, most_bytes=_MOST_BYTES)
    except FileNotFoundError as error:
        raise removed_meanwhile(path.name.removesuffix(STACK)) from error
    except (OSError, ValueError) as error:
        raise StackError(
            f"the stack {path} cannot be read: {str(error)[:200]}",
            hint="fix it, or remove it and create it anew",
        ) from error


def _member(row: Mapping[str, object], prefix: str, faults: list[str]) -> Member | None:
    values, wrong = check_table(Member, row, prefix=prefix)
    wrong += [f"{prefix}{key} is missing" for key in missing_keys(Member, row)]
    faults += wrong
    return None if wrong else Member(**values)


def _twice(values: list[Any]) -> list[Any]:
    return sorted({str(one) for one in values if one is not None and values.count(one) > 1})


def _quoted(text: str) -> str:
    return json.dumps(text)
