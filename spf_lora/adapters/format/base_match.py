"""Whether adapters are for one base model, as their cards and shapes tell."""

from collections.abc import Sequence
from pathlib import Path

from spf_lora.adapters import sd15
from spf_lora.adapters.format.card import Card
from spf_lora.adapters.module import Spec
from spf_lora.errors import AdapterFileError


def refuse_other_base(
    card: Card | None, name: object, base_id: str, *, of: str = "the base here"
) -> None:
    """Refuse an adapter whose card names another base; a card that names none fits every base.

    Args:
        card: what the adapter says about itself, or None.
        name: what to call the adapter: its name or file.
        base_id: id of the base that it is used on; empty if nobody knows.
        of: what to call that base.

    Raises:
        AdapterFileError: the two are different.
    """
    own = card.base_id if card else ""
    if own and base_id and own != base_id:
        raise AdapterFileError(
            f"{name} was trained on the base {own}, but {of} is {base_id}",
            hint="an adapter fits its own base only: name that one with --base, or leave this "
            "adapter out",
        )


def refuse_mixed_bases(adapters: Sequence[tuple[Path, Card | None, Sequence[Spec]]]) -> None:
    """Compare the bases that cards name, and for all the family that the shapes tell.

    Raises:
        AdapterFileError: the adapters are for more than one.
    """
    named = {card.base_id: path for path, card, _ in adapters if card and card.base_id}
    families = {sd15.family(list(specs)).partition(" (by")[0]: path for path, _, specs in adapters}
    families.pop("unknown", None)
    for groups in (named, families):
        if len(groups) > 1:
            (base, path), (other, another) = list(groups.items())[:2]
            raise AdapterFileError(
                f"the adapters are for different bases: {path} for {base}, {another} for {other}",
                hint="--allow-mixed-base merges them all the same, where the shapes agree",
            )
