"""What `--start-percent` and `--local` ask for, checked against the adapters."""

from typing import TYPE_CHECKING

from spf_lora.errors import PromptError

if TYPE_CHECKING:
    from spf_lora.recipe.schema import Attribute


def start_of(text: str) -> float:
    """Return the share of the time steps that `--start-percent` names.

    Raises:
        PromptError: it is none.
    """
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not 0 <= share < 1:
        raise PromptError(
            f"--start-percent {text} is no share of the steps",
            hint="write a number from 0 to 0.99",
        )
    return share


def starts_of(text: str, count: int) -> tuple[float, ...]:
    """Return the share before each of `count` adapters acts: one for all, or 0,0.3 for each.

    Raises:
        PromptError: one is no share, or there are more or fewer than adapters.
    """
    shares = tuple(start_of(part.strip()) for part in text.split(","))
    if len(shares) == 1:
        return count * shares
    if len(shares) != count:
        raise PromptError(
            f"--start-percent {text} is for {len(shares)} adapters, and {count} are named",
            hint="write one share for all, or one for each in their order",
        )
    return shares


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
