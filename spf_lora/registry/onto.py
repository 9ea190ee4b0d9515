"""What a new adapter is trained on top of: a stack, or an adapter with those below it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spf_lora.adapters.format.base_match import refuse_other_base
from spf_lora.adapters.strength import split_strength
from spf_lora.errors import RegistryError, StackError
from spf_lora.registry.names import STACK, SUFFIX, check_name, find, places, resolve
from spf_lora.registry.stack import (
    Known,
    Member,
    adapters_of,
    find_stack,
    look,
    onto_members,
    state_of,
)


@dataclass(frozen=True)
class Below:
    """What is on and frozen while a new adapter is trained.

    Attributes:
        name: what the user called it.
        members: the adapters with their strengths, in the order they were learned.
    """

    name: str
    members: tuple[tuple[Known, float], ...]

    @property
    def content_ids(self) -> tuple[str, ...]:
        """The adapters' content ids, for the new card's parents."""
        return tuple(known.content_id for known, _ in self.members)

    @property
    def digest(self) -> str:
        """What tells these adapters and strengths from others."""
        return " ".join(f"{known.content_id}:{strength!r}" for known, strength in self.members)

    def as_rows(self) -> list[dict[str, Any]]:
        """Return what the new card's recipe says of them."""
        return [
            {"name": known.name, "content_id": known.content_id, "strength": strength}
            for known, strength in self.members
        ]


NOTHING = Below("", ())


def below(text: str, registry: Path | None = None) -> Below:
    """Return what `--onto` means: a stack, or an adapter as name or file, with a strength if told.

    An adapter that was itself trained onto others comes with them.

    Raises:
        RegistryError: there is nothing of that name, or a stack and an adapter share it.
        StackError: an adapter of the stack, or one below the adapter, is missing or changed.
        AdapterFileError: the file or the strength cannot be used.
    """
    name, strength = split_strength(text)
    if _is_stack(name, registry):
        if name != text:
            raise StackError(
                f"{text!r}: a stack has the strengths of its adapters",
                hint=f"write --onto {name}; spf-lora stack create makes one with others",
            )
        return Below(name, tuple(adapters_of(find_stack(name, registry), registry)))
    path = resolve(name, registry)
    known = look(path.stem, path)
    parents = (_parent(one, known, registry) for one in onto_members(known.card))
    return Below(name, (*parents, (known, strength)))


def refuse_cycle(under: Below, attribute: str, target: Path) -> None:
    """Refuse to train an attribute onto itself, or to overwrite what it is trained onto.

    Args:
        under: what is on.
        attribute: what is to be trained.
        target: the file to be written; one that exists may be among the parents.

    Raises:
        StackError: it would be its own ancestor.
    """
    for known, _ in under.members:
        taught = known.card.attribute if known.card else known.name
        if attribute in (taught, known.name):
            raise StackError(
                f"{attribute} cannot be trained onto {under.name}: {known.name} in it is {taught}",
                hint=f"train it onto a stack without {known.name}",
            )
        if target.exists() and target.samefile(known.path):
            raise StackError(
                f"{target} is part of {under.name}, onto which it would be trained",
                hint="choose another file with --out",
            )
    if target.is_file():
        old = look(target.stem, target).content_id
        if any(old in (one.content_id for one in onto_members(k.card)) for k, _ in under.members):
            raise StackError(
                f"an adapter of {under.name} was trained onto {target}, which would be replaced",
                hint="choose another file with --out",
            )


def check_base(under: Below, base_id: str) -> None:
    """Refuse adapters whose cards name another base than the one to be trained on.

    Raises:
        AdapterFileError: there is one.
    """
    for known, _ in under.members:
        refuse_other_base(known.card, f"{known.name} in {under.name}", base_id)


def _is_stack(name: str, registry: Path | None) -> bool:
    """Tell whether the first folder that has the name has a stack of that name."""
    try:
        check_name(name)
    except RegistryError:
        return False  # a path; what is wrong with it is said where it is read
    for place in places(registry):
        stack = (place.folder / f"{name}{STACK}").is_file()
        adapter = (place.folder / f"{name}{SUFFIX}").is_file()
        if stack and adapter:
            raise RegistryError(
                f"{name} is a stack and an adapter in {place.folder}",
                hint=f"rename one: spf-lora adapters rename {name} NEW",
            )
        if stack or adapter:
            return stack
    if not Path(name).exists():
        find(name, registry)  # says what is near
    return False


def _parent(member: Member, child: Known, registry: Path | None) -> tuple[Known, float]:
    state, known = state_of(member, registry)
    if known is None:
        now = "is not there" if state == "missing" else "has changed since"
        raise StackError(
            f"{child.name} was trained on top of {member.name}, which {now} "
            f"(content id {member.content_id[:12]})",
            hint="bring it back, or name a stack: spf-lora stack create NAME ... --orphans",
        )
    return known, member.strength
