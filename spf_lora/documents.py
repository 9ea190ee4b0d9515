"""Reads JSON, TOML and plain text that anybody may have written: the one reader for all of them.

What comes out is bounded: in bytes, in depth, in the size of its numbers, and it is text in UTF-8.
Every fault is a `ValueError` of one printable sentence, for the caller to say where it was found.
"""

import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

DEEPEST = 32  # levels; a report has six
_WHOLE = 1 << 63
_LONGEST_FAULT = 200  # characters

# flags that not every system has; without O_NONBLOCK, opening a FIFO would wait for a writer
_NOT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

# A text, closed or not (then it runs to the end), or a comment. Nothing in it counts as TOML.
_TOML_TEXT = re.compile(
    r'"""(?:[^\\]|\\.)*?(?:"""|\Z)|\'\'\'.*?(?:\'\'\'|\Z)'
    r'|"(?:[^"\\\n]|\\.)*+(?:"|\n|\Z)|\'[^\'\n]*+(?:\'|\n|\Z)|#[^\n]*+',
    re.DOTALL,
)
# tomllib takes the square of the time for a key of many parts: they are counted before
_LONG_KEY = re.compile(rf"(?<![\w-])[\w-]++(?:\s*+\.\s*+[\w-]++){{{DEEPEST},}}+")


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[FileIO, int]]:
    """Open a regular file, or a link to one, without waiting; yield it with its size.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is a folder, a FIFO or a device, or its name holds a NUL.
    """
    with FileIO(path, opener=lambda name, flags: os.open(name, flags | _NOT_WAITING)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        yield file, status.st_size


def read_text(path: Path, *, most_bytes: int) -> str:
    """Return a regular file's text, without a byte order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than `most_bytes`, no regular file, or no UTF-8.
    """
    with open_regular(path) as (file, _):
        data = bytearray()
        while chunk := file.read(most_bytes + 1 - len(data)):
            data += chunk
        if len(data) > most_bytes:
            raise ValueError(f"it is larger than {_in_words(most_bytes)}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error


def read_json(path: Path, *, most_bytes: int) -> Any:
    """Return what a JSON file says; see `read_text` and `parse_json`."""
    return parse_json(read_text(path, most_bytes=most_bytes))


def read_toml(path: Path, *, most_bytes: int) -> dict[str, Any]:
    """Return what a TOML file says; see `read_text` and `parse_toml`."""
    return parse_toml(read_text(path, most_bytes=most_bytes))


def parse_json(text: str, *, finite: bool = True) -> Any:
    """Return what a JSON text says.

    Args:
        text: the document.
        finite: refuse numbers that are not; without, the caller knows what they mean.

    Raises:
        ValueError: it is no JSON, nests too deep, or holds a number that is not finite or fits no
            64 bits, or half a character; the place is named.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(_short(f"it is no valid JSON: {error}")) from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except ValueError as error:
        raise ValueError(_TOO_LONG) from error
    # Only an escape writes half a character, so most documents need not be looked through for one.
    _check(value, numbers=finite, texts="\\ud" in text.lower())
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text says; its numbers are left to `strict.check_table`.

    Raises:
        ValueError: it is no TOML, nests too deep, or holds a number that cannot even be printed.
    """
    if _LONG_KEY.search(_TOML_TEXT.sub("_", text)):
        raise ValueError(_TOO_DEEP)
    try:
        table = tomllib.loads(text)
        _check(table, numbers=False, texts=False)  # tomllib lets no half characters through
        repr(table)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(_short(str(error))) from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except ValueError as error:
        raise error if str(error).startswith("it ") else ValueError(_TOO_LONG) from error
    return table


def is_unicode(text: str) -> bool:
    """Tell whether a text can be written; a command line and JSON let half characters through."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_TOO_DEEP = f"it nests too deep: more than {DEEPEST} levels"
_TOO_LONG = "it holds a number of thousands of digits"


def _check(value: Any, *, numbers: bool, texts: bool) -> None:
    """Refuse what no document of ours holds."""
    _check_inside({"": value}, (), numbers=numbers, texts=texts)


def _check_inside(parent: Any, place: tuple[Any, ...], *, numbers: bool, texts: bool) -> None:
    """Check all that a table or list holds; the depth is bounded before Python's stack is."""
    if len(place) > DEEPEST:
        raise ValueError(_TOO_DEEP)
    if texts and isinstance(parent, dict) and not all(map(is_unicode, parent)):
        raise ValueError(f"{_named(place)} has a key that is no text in UTF-8")
    for key, item in parent.items() if isinstance(parent, dict) else enumerate(parent):
        kind = type(item)
        if kind is dict or kind is list:
            _check_inside(item, (*place, key), numbers=numbers, texts=texts)
        elif kind is str:
            if texts and not is_unicode(item):
                raise ValueError(f"{_named((*place, key))} is no text in UTF-8")
        elif kind is float:
            if numbers and not math.isfinite(item):
                raise ValueError(f"{_named((*place, key))} is not a finite number")
        elif kind is int and numbers and not -_WHOLE <= item < _WHOLE:
            raise ValueError(f"{_named((*place, key))} is a number that fits no 64 bits")


def _named(place: tuple[Any, ...]) -> str:
    name = ".".join(map(str, place[1:]))
    return _short(name) if name else "the whole of it"


def _short(text: str) -> str:
    plain = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return plain if len(plain) <= _LONGEST_FAULT else f"{plain[:_LONGEST_FAULT]}..."


def _in_words(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
