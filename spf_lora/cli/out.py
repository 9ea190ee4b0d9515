"""What the commands print with: data goes to stdout, talk to stderr.

rich honours NO_COLOR and drops colour and movement when the stream is no terminal.
"""

import json
import sys
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
