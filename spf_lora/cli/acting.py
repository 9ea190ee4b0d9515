"""What `--start-percent` and `--local` ask for, checked against the adapters."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spf_lora.cli import out
from spf_lora.errors import AdapterFileError, PromptError

if TYPE_CHECKING:
    from spf_lora.adapters.format.card import Card
    from spf_lora.recipe.schema import Attribute

CARD = "card"


def check_start(text: str) -> None:
    """Refuse what is neither `card` nor a share.

    Raises:
        PromptError: it is not.
    """
    if text != CARD:
        _share(text)


def starts_of(
    text: str, cards: "Sequence[Card | None]", paths: Sequence[Path]
) -> tuple[float, ...]:
    """Return the start of each adapter; one whose card advises none begins at once, with a warning.

    Raises:
        PromptError: the text is neither `card` nor a share.
        AdapterFileError: what a card advises is no share.
    """
    if text != CARD:
        return len(cards) * (_share(text),)
    found = []
    for card, path in zip(cards, paths, strict=True):
        start = card.metrics.get("start_percent") if card else None
        if start is None:
            out.warn(f"{path} does not say when it may begin: it begins at once")
            start = 0.0
        if not isinstance(start, float | int) or not 0 <= start < 1:
            raise AdapterFileError(
                f"{path} advises to begin at {start!r}, which is no share of the steps",
                hint="give one for all: --start-percent 0.3",
            )
        found.append(float(start))
    return tuple(found)


def check_local(attribute: "Attribute") -> None:
    """Refuse what has no place in a picture to stay within.

    Raises:
        PromptError: the attribute changes the whole picture.
    """
    if attribute.scope == "global":
        raise PromptError(
            f"{attribute.name} changes the whole picture, so --local finds no place for it",
            hint="leave --local out",
        )


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not 0 <= share < 1:
        raise PromptError(
            f"--start-percent {text} is no share of the steps",
            hint=f"write a number from 0 to 0.99, or {CARD}: what each adapter's card advises",
        )
    return share
