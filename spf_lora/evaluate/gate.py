"""Conditions that an adapter must meet, such as `sps<0.2,response>0.8`, for scripts and CI."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spf_lora.errors import MeasureError
from spf_lora.evaluate.result import CHANNELS, Result, figure_name
from spf_lora.strict import did_you_mean

SWEPT = ("sps", "auc")
MEASURES = (
    "rho",
    "P",
    "BL",
    "H",
    "excess",
    "shown",
    "unasked",
    "flips",
    "leak:flips",
    "truth:pixels",
    "truth:agreement",
    *CHANNELS,
    *(f"leak:{c}" for c in CHANNELS),
)
WORDS = {"response": "rho", "pollution": "P", "leakage": "BL", "balance": "H"}
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"\s*([\w:]+)(?:@([^\s<>=]+))?\s*(<=|>=|<|>)\s*(\S+)\s*")


@dataclass(frozen=True)
class Condition:
    """One thing to hold.

    Attributes:
        text: as it was written.
        measure: name of a figure, without its strength.
        strength: of the figure, or None: the main one.
        compare: <, <=, > or >=.
        limit: what it is compared with.
    """

    text: str
    measure: str
    strength: float | None
    compare: str
    limit: float


@dataclass(frozen=True)
class GateOutcome:
    """Whether a condition holds.

    Attributes:
        text: the condition as it was written.
        value: what was found; None where the figure has no value, which never holds.
        passed: whether it holds.
    """

    text: str
    value: float | None
    passed: bool


def parse_gate(text: str, strengths: Sequence[float]) -> list[Condition]:
    """Read a gate before anything is drawn.

    Args:
        text: conditions with commas between them.
        strengths: of the sweep that will be made.

    Raises:
        MeasureError: a condition cannot be read, or names no figure of this sweep.
    """
    return [_condition(part, strengths) for part in text.split(",")]


def _condition(part: str, strengths: Sequence[float]) -> Condition:
    match = _CONDITION.fullmatch(part)
    limit = _number(match[4]) if match else None
    if match is None or limit is None:
        raise MeasureError(
            f"the gate's condition {part.strip()!r} cannot be read",
            hint='write it like "sps<0.2,response>0.8"; @ names a strength: "P@0.5<0.3"',
        )
    word, at = match[1], match[2]
    measure = WORDS.get(word, word)
    known = (*SWEPT, *WORDS, *MEASURES)
    if measure not in (*SWEPT, *MEASURES):
        raise MeasureError(
            f"the gate's {word!r} is no figure{did_you_mean(word, known)}",
            hint=f"figures: {', '.join(known)}",
        )
    strength = None if at is None else _number(at)
    if at is not None and (measure in SWEPT or strength is None or strength not in strengths):
        raise MeasureError(
            f"the gate's {word}@{at} is not measured",
            hint=f"strengths of this sweep: {', '.join(f'{s:g}' for s in strengths)}; "
            f"{' and '.join(SWEPT)} belong to the whole sweep",
        )
    return Condition(part.strip(), measure, strength, match[3], limit)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def check_gate(result: Result, conditions: Sequence[Condition]) -> list[GateOutcome]:
    """Return whether each condition holds; the figure's value counts, not its interval."""
    outcomes = []
    for condition in conditions:
        name = condition.measure
        if name not in SWEPT:
            at = result.main if condition.strength is None else condition.strength
            name = figure_name(name, at)
        figure = result.numbers.get(name)
        value = figure.value if figure else None
        passed = value is not None and _COMPARE[condition.compare](value, condition.limit)
        outcomes.append(GateOutcome(condition.text, value, passed))
    return outcomes
