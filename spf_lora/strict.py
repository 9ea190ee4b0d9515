"""Checks a table read from TOML against a frozen dataclass and lists every fault at once.

A dataclass field made by `setting` or `required` carries its own range, choices and note, so a new
key is one line in the dataclass and nothing here.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from spf_lora.documents import is_unicode

T = TypeVar("T")


class Shape(NamedTuple):
    """What a text must look like: a regular expression for us, words for the reader."""

    pattern: str
    words: str

    def fits(self, text: str) -> bool:
        """Tell whether a text looks so."""
        return re.fullmatch(self.pattern, text) is not None


def setting(
    default: T,
    note: str,
    *,
    low: float | None = None,
    high: float | None = None,
    shape: Shape | None = None,
) -> T:
    """Declare a dataclass field with a default.

    Args:
        default: the value of a recipe that does not name the key.
        note: what it does, with its unit; shown by `spf-lora recipe show`.
        low: smallest value allowed, of each element for a list.
        high: largest value allowed, of each element for a list.
        shape: what a text must look like, each element for a list.
    """
    metadata = {"note": note, "low": low, "high": high, "shape": shape}
    return dataclasses.field(default=default, metadata=metadata)


def required(note: str, *, shape: Shape | None = None) -> Any:
    """Declare a dataclass field that a recipe must name."""
    return dataclasses.field(metadata={"note": note, "shape": shape})


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that `word` most likely meant, or None if none is near."""
    by_lower = {name.lower(): name for name in known}
    nearest_words = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[nearest_words[0]] if nearest_words else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean NAME?", or the list of what is known, to end a sentence with."""
    names = sorted(known)
    near = nearest(word, names)
    return f"; did you mean {near}?" if near else f"; known: {', '.join(names) or 'none'}"


def check_table(
    schema: type, table: Mapping[str, object], *, prefix: str
) -> tuple[dict[str, Any], list[str]]:
    """Check the keys, types and ranges of one table.

    Args:
        schema: a dataclass whose fields were declared by `setting` or `required`.
        table: key -> value as TOML gives them; keys may be missing.
        prefix: what comes before a key in a fault, such as "distil.".

    Returns:
        The good values, converted to the fields' types, and one sentence for each fault.
    """
    hints = get_type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema)}
    values: dict[str, Any] = {}
    faults = []
    for key, raw in table.items():
        if key not in fields:
            faults.append(f"{prefix}{key} is not a known key" + did_you_mean(key, fields))
            continue
        try:
            values[key] = _convert(hints[key], raw, fields[key].metadata)
        except _WrongValueError as wrong:
            faults.append(f"{prefix}{key} {wrong}")
    return values, faults


def missing_keys(schema: type, table: Mapping[str, object]) -> list[str]:
    """Return the keys without a default that `table` does not name."""
    return [
        field.name
        for field in dataclasses.fields(schema)
        if field.default is dataclasses.MISSING and field.name not in table
    ]


def mistyped(value: Any, hint: Any, name: str = "it") -> str:
    """Return where a value read from a file is not what a type hint says, or an empty text.

    Args:
        value: numbers, texts, lists as tuples, tables, and dataclasses made of them.
        hint: of a dataclass, `tuple[X, ...]`, `Mapping[str, X]`, a union, or a plain type.
        name: of the value, to begin the place with.
    """
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return "" if not all(mistyped(value, one) for one in inner) else name
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, hint):  # type: ignore[arg-type]
            return name
        hints = get_type_hints(hint)
        parts = [(getattr(value, one), hints[one], f"{name}.{one}") for one in hints]
    elif kind is tuple:
        if not isinstance(value, tuple):
            return name
        parts = [(one, inner[0], f"{name}.{at}") for at, one in enumerate(value)]
    elif kind is not None:
        if not isinstance(value, kind) or not all(isinstance(key, str) for key in value):
            return name
        parts = [(one, inner[1], f"{name}.{key}") for key, one in value.items()]
    else:
        plain = (int, float) if hint is float else hint
        right = isinstance(value, plain) and (hint is bool or not isinstance(value, bool))
        return "" if right else name
    return next(filter(None, (mistyped(*part) for part in parts)), "")


class _WrongValueError(Exception):
    """Says what is wrong with one value; never leaves this module."""


def _convert(hint: Any, raw: object, limits: Mapping[str, Any]) -> Any:
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if raw not in choices:
            one_of = ", ".join(map(str, choices))
            raise _WrongValueError(f"is {raw!r}, but must be one of: {one_of}")
        return raw
    value = _CONVERTERS[hint](raw)
    for element in value if isinstance(value, tuple) else (value,):
        _check_limits(element, limits)
    return value


def _whole(raw: object) -> int:
    # bool is an int to Python, not to a reader of TOML.
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise _WrongValueError(f"must be a whole number, not {_described(raw)}")
    return raw


def _number(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise _WrongValueError(f"must be a number, not {_described(raw)}")
    try:
        value = float(raw)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise _WrongValueError("must be a finite number")
    return value


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise _WrongValueError(f"must be a text in quotes, not {_described(raw)}")
    if not is_unicode(raw):
        raise _WrongValueError(f"is {raw!r}, which is no text in UTF-8")
    return raw


def _switch(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise _WrongValueError(f"must be true or false, not {_described(raw)}")
    return raw


def _texts(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(element, str) for element in raw):
        raise _WrongValueError(f"must be a list of texts, not {_described(raw)}")
    return tuple(raw)


def _pair(raw: object) -> tuple[float, float]:
    if not isinstance(raw, list) or len(raw) != 2:
        raise _WrongValueError(f"must be a list of two numbers, not {_described(raw)}")
    return _number(raw[0]), _number(raw[1])


_CONVERTERS: dict[Any, Callable[[object], Any]] = {
    int: _whole,
    float: _number,
    str: _text,
    bool: _switch,
    tuple[str, ...]: _texts,
    tuple[float, float]: _pair,
}


def _check_limits(value: Any, limits: Mapping[str, Any]) -> None:
    low, high, shape = (limits.get(name) for name in ("low", "high", "shape"))
    if low is not None and value < low:
        raise _WrongValueError(f"is {value}, but must be at least {low}")
    if high is not None and value > high:
        raise _WrongValueError(f"is {value}, but must be at most {high}")
    if shape is not None and not shape.fits(value):
        raise _WrongValueError(f"is {value!r}, but must be {shape.words}")


def _described(raw: object) -> str:
    names = {bool: "the switch", int: "the number", float: "the number", str: "the text"}
    return f"{names.get(type(raw), 'the value')} {raw!r}"
