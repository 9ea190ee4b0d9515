"""What is wrong with a training folder: collected, so that all of it is told at once."""

from collections.abc import Iterable
from typing import NamedTuple


class Fault(NamedTuple):
    """One file (or line of a file) and what is wrong with it."""

    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


_MOST_TOLD = 200  # a file of a million bad lines fills no terminal


def as_list(title: str, faults: Iterable[Fault]) -> str:
    """Return "TITLE has 2 faults:" and a line for each; of very many, for the first."""
    lines = sorted(map(str, faults))
    count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
    more = [f"and {len(lines) - _MOST_TOLD} more"] if len(lines) > _MOST_TOLD else []
    return "\n  ".join((f"{title} has {count}:", *lines[:_MOST_TOLD], *more))
