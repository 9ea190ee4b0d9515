"""Changes stacks: creating, adding, dropping, removing. The registry's lock is held meanwhile."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spf_lora.adapters.format.base_match import refuse_other_base
from spf_lora.adapters.strength import HIGHEST, LOWEST
from spf_lora.atomic import unwritable, write_text
from spf_lora.errors import StackError
from spf_lora.registry.locks import changing, new_bin, refuse_taken, refuse_unchangeable
from spf_lora.registry.names import Place, check_name, find, home
from spf_lora.registry.stack import (
    BASE_ID,
    Known,
    Member,
    Stack,
    adapters_of,
    find_place,
    look,
    onto_members,
    read_stack,
    removed_meanwhile,
    state_of,
    to_toml,
)


def create(
    name: str,
    adapters: Sequence[tuple[str, float]],
    registry: Path | None = None,
    *,
    orphans: bool = False,
) -> Stack:
    """Write a new stack.

    Args:
        name: what to call it.
        adapters: names of registered adapters with their strengths, in the order they were learned.
        registry: the folder asked for, or None.
        orphans: take adapters that were trained onto others which are not in the stack.

    Raises:
        RegistryError: the name is taken or no name, or there is no such adapter.
        StackError: the adapters do not make a stack.
        OutputError: the registry cannot be written.
    """
    check_name(name)
    stack = Stack(name, "", (), home(registry))
    if not adapters:
        _refuse_empty(stack)
    for adapter, _ in adapters:
        find(adapter, registry)  # a slip of the pen makes no folder
    with changing(stack.place, registry) as folder:
        known: list[Known] = []
        for adapter, strength in adapters:
            stack = _with(stack, known, _registered(adapter, registry), strength, orphans=orphans)
        refuse_taken(folder, name)
        write_text(stack.path, to_toml(stack))
    return stack


def add(
    name: str, adapter: str, strength: float, registry: Path | None = None, *, orphans: bool = False
) -> Stack:
    """Put a registered adapter on top of a stack; see `create`."""
    place = _changeable(name, registry)
    with changing(place, registry):
        stack = read_stack(name, place)
        known = [one for one, _ in adapters_of(stack, registry)]
        stack = _with(stack, known, _registered(adapter, registry), strength, orphans=orphans)
        write_text(stack.path, to_toml(stack), overwrite=True)
    return stack


def drop(name: str, adapter: str, registry: Path | None = None, *, orphans: bool = False) -> Stack:
    """Take an adapter out of a stack, whether its file is still there or not.

    Raises:
        RegistryError: there is no such stack where things may be changed.
        StackError: the adapter is not in it, is the last one, or others were trained onto it.
        OutputError: the registry cannot be written.
    """
    place = _changeable(name, registry)
    with changing(place, registry):
        stack = read_stack(name, place)
        gone = next((one for one in stack.members if one.name == adapter), None)
        if gone is None:
            raise StackError(
                f"{adapter} is not in the stack {name}",
                hint=f"it has {', '.join(one.name for one in stack.members)}",
            )
        left = replace(stack, members=tuple(one for one in stack.members if one != gone))
        _refuse_empty(left)
        if not orphans:
            _refuse_parent(gone, left, registry)
        write_text(stack.path, to_toml(left), overwrite=True)
    return left


def remove(name: str, registry: Path | None = None) -> Path:
    """Move a stack's file to the trash folder; its adapters stay. Return the file there.

    Raises:
        RegistryError: there is no such stack where things may be removed.
        OutputError: the registry cannot be written.
    """
    place = _changeable(name, registry)
    path = Stack(name, "", (), place).path
    with changing(place, registry):
        if not path.is_file():
            raise removed_meanwhile(name)
        try:
            target = new_bin(place.folder, name) / path.name
            path.replace(target)
        except OSError as error:
            raise unwritable(path, error) from error
    return target


def _changeable(name: str, registry: Path | None) -> Place:
    place = find_place(name, registry)
    refuse_unchangeable(name, place, registry)
    return place


def _registered(name: str, registry: Path | None) -> Known:
    entry = find(name, registry)
    return look(name, entry.path)


def _with(stack: Stack, known: list[Known], new: Known, strength: float, *, orphans: bool) -> Stack:
    """Return the stack with one more adapter, which joins `known` too."""
    if not LOWEST <= strength <= HIGHEST:
        raise StackError(
            f"the strength {strength:g} of {new.name} is not in [{LOWEST:g}, {HIGHEST:g}]",
            hint="1 is what it was trained at",
        )
    for one in known:
        if new.name == one.name or new.content_id == one.content_id:
            raise StackError(
                f"{new.name} is already in the stack {stack.name}, as {one.name}",
                hint="drop it first to give it another place or strength",
            )
    own = new.card.base_id if new.card else ""
    if not BASE_ID.fits(own):
        raise StackError(
            f"the base that {new.name} names is {own[:100]!r}, not {BASE_ID.words}",
            hint="spf-lora metadata FILE --strip removes its card",
        )
    refuse_other_base(new.card, new.name, stack.base_id, of="the stack's base")
    missing = {one.content_id for one in onto_members(new.card)} - {one.content_id for one in known}
    if missing and not orphans:
        raise StackError(
            f"{new.name} was trained on top of an adapter that is not below it in the stack: "
            f"content id {min(missing)[:12]}",
            hint="add that one first, or --orphans: it then does not do quite what it was "
            "trained to do",
        )
    known.append(new)
    member = Member(name=new.name, content_id=new.content_id, strength=float(strength))
    return replace(stack, base_id=stack.base_id or own, members=(*stack.members, member))


def _refuse_empty(stack: Stack) -> None:
    if not stack.members:
        raise StackError(
            f"the stack {stack.name} would be empty",
            hint="name one adapter or more; spf-lora stack remove NAME removes a stack",
        )


def _refuse_parent(gone: Member, left: Stack, registry: Path | None) -> None:
    """Refuse to drop what another adapter of the stack was trained onto."""
    for member in left.members:
        _, known = state_of(member, registry)
        if known and any(one.content_id == gone.content_id for one in onto_members(known.card)):
            raise StackError(
                f"{member.name} was trained on top of {gone.name}",
                hint=f"drop {member.name} first, or --orphans",
            )
