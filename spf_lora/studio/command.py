"""Short questions to the command line, answered at once: what it prints, or its error."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from spf_lora.documents import parse_json
from spf_lora.errors import SpfError

_SECONDS = 300
_CHECK_FAILED = 3  # the answer is printed all the same


def ask(words: Sequence[str]) -> str:
    """Return what a command prints.

    Args:
        words: after `spf-lora`.

    Raises:
        SpfError: what the command refused, with its hint.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "spf_lora", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SpfError(
            f"no answer in {_SECONDS} seconds", hint=f"ask in a terminal: spf-lora {words[0]}"
        ) from error
    talk = done.stderr.decode("utf-8", "replace")
    if done.returncode not in (0, _CHECK_FAILED):
        raise SpfError(_after(talk, "error: ") or talk[-300:], hint=_after(talk, "hint: "))
    return done.stdout.decode("utf-8", "replace")


def ask_json(words: Sequence[str]) -> Any:
    """Return what a command with `--json` prints, as values; see `ask`."""
    try:
        return parse_json(ask([*words, "--json"]))
    except ValueError as error:
        raise SpfError(f"the answer cannot be read: {error}", hint="ask in a terminal") from error


def _after(talk: str, mark: str) -> str:
    """Return what stands behind a mark, up to the next one."""
    _, found, text = talk.rpartition(f"\n{mark}") if f"\n{mark}" in talk else talk.partition(mark)
    return text.partition("\nhint: ")[0].strip() if found else ""
