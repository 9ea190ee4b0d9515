"""A file of prompts: one a line."""

from pathlib import Path

from spf_lora.documents import read_text
from spf_lora.errors import DataError

_MAX_PROMPTS, _MAX_LETTERS, _MOST_BYTES = 10_000, 1000, 16 << 20


def read_prompt_lines(path: Path) -> list[tuple[int, str]]:
    """Return the prompts of a file with the numbers of their lines.

    Empty lines and lines that begin with # do not count.

    Raises:
        DataError: the file cannot be read, is empty or too long, or has a line too long.
    """
    try:
        text = read_text(path, most_bytes=_MOST_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the prompts in {path} cannot be read: {error}",
            hint="it must be a text file in UTF-8, one prompt a line",
        ) from error
    rows = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    rows = [(number, line) for number, line in rows if line and not line.startswith("#")]
    if not rows:
        raise DataError(f"{path} holds no prompt", hint="write one a line, without the attribute")
    for number, line in rows:
        if len(line) > _MAX_LETTERS:
            raise DataError(
                f"line {number} of {path} has {len(line)} letters, more than {_MAX_LETTERS}",
                hint="a text encoder reads 77 tokens, about 300 letters: shorten it",
            )
    if len(rows) > _MAX_PROMPTS:
        raise DataError(f"{path} holds {len(rows)} prompts", hint=f"use at most {_MAX_PROMPTS}")
    return rows
