"""What the commands print with: data goes to stdout, talk to stderr.

rich honours NO_COLOR and drops colour and movement when the stream is no terminal.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from spf_lora.atomic import make_folder

OUT = Path("out")  # where what a command makes lands by default; git ignores it in a clone

_data = Console(soft_wrap=True, highlight=False, emoji=False)
_talk = Console(stderr=True, highlight=False, emoji=False)


def talk() -> Console:
    """Return the console for people: progress, warnings, advice (stderr)."""
    return _talk


def say(text: str) -> None:
    """Tell the user something that is not the result; rich markup is not read."""
    _talk.print(text, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """Tell the user something that needs a look."""
    _talk.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)


def show(renderable: Any) -> None:
    """Print a result for people: plain text or a rich table (stdout)."""
    _data.print(renderable, markup=False)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of texts as aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def printable(text: str, most: int = 200) -> str:
    """Return a stranger's text, such as a card's, so that it cannot steer the terminal."""
    clean = "".join(sign if sign.isprintable() else "?" for sign in text)
    return clean if len(clean) <= most else f"{clean[:most]}..."


def show_json(value: Any) -> None:
    """Print a result for programs: one JSON document (stdout)."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    ascii_only = not encoding.lower().startswith("utf")
    print(json.dumps(value, indent=2, ensure_ascii=ascii_only, allow_nan=False))


def place(given: Path | None, name: str) -> Path:
    """Return where to write: what the user gave, or a name in `OUT`, which is made."""
    if given is not None:
        return given
    make_folder(OUT)
    return OUT / name
