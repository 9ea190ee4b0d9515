"""A result in one line of plain words. The thresholds are those of docs/evaluation.md."""

from dataclasses import dataclass
from typing import Literal

from spf_lora.evaluate.faults import several, the
from spf_lora.evaluate.result import Result, figure_name

Level = Literal["clean", "some", "heavy", "unknown"]


@dataclass(frozen=True)
class Threshold:
    """One number that decides, and how much of it is still what.

    Attributes:
        measure: name of the figure at the main strength.
        beyond: a figure at strength 0 is taken off: what the base does by itself.
        clean: at most this is clean.
        some: at most this is some pollution; more is heavy.
    """

    measure: str
    beyond: bool
    clean: float
    some: float


# A plain LoRA on the embedded base has 0.65, 1.14 and 0.42 here (docs/benchmarks.md).
THRESHOLDS = (
    Threshold("excess", False, 0.10, 0.35),
    Threshold("BL", False, 0.10, 0.40),
    Threshold("unasked", True, 0.03, 0.15),
)
ANSWERS, OFTEN = 0.8, 0.5  # share of the pictures that ask for it and show it


@dataclass(frozen=True)
class Headline:
    """What a reader sees first.

    Attributes:
        level: how much it pollutes.
        text: the headline.
        detail: one sentence with the numbers behind it.
    """

    level: Level
    text: str
    detail: str


def headline(result: Result) -> Headline:
    """Return the headline of a result at its main strength."""
    thing = the(result.target_text)
    shown = result.numbers.get(figure_name("shown", result.main))
    if result.main == 0:
        return Headline("unknown", "The words alone, without an adapter", _detail(result, thing))
    levels = [_level(result, threshold) for threshold in THRESHOLDS]
    level = max(levels, key=("unknown", "clean", "some", "heavy").index)
    line = {
        "clean": f"Clean: changes little besides {thing}",
        "some": f"Some pollution: more changes than {thing}",
        "heavy": f"Heavy pollution: much more changes than {thing}",
        "unknown": "What it changes could not be measured",
    }[level]
    if shown is not None and shown.value is not None and shown.value < ANSWERS:
        how = "often missing" if shown.value >= OFTEN else "mostly missing"
        link = "but" if level == "clean" else "and"
        line += f", {link} {thing} {'are' if several(thing) else 'is'} {how}"
    return Headline(level, line, _detail(result, thing) + _doubt(result, level))


def _level(result: Result, threshold: Threshold) -> Level:
    value = _value(result, threshold)
    if value is None:
        return "unknown"
    if value <= threshold.clean:
        return "clean"
    return "some" if value <= threshold.some else "heavy"


def _value(result: Result, threshold: Threshold) -> float | None:
    figure = result.numbers.get(figure_name(threshold.measure, result.main))
    if figure is None or figure.value is None:
        return None
    before = result.numbers.get(figure_name(threshold.measure, 0)) if threshold.beyond else None
    return figure.value - ((before.value or 0.0) if before is not None else 0.0)


def _doubt(result: Result, level: Level) -> str:
    """Say so where chance alone could have made it another level."""
    for threshold in THRESHOLDS:
        figure = result.numbers.get(figure_name(threshold.measure, result.main))
        if threshold.beyond or figure is None or figure.low is None or figure.high is None:
            continue
        for line in (threshold.clean, threshold.some):
            if _level(result, threshold) == level != "unknown" and figure.low < line < figure.high:
                return f" With {len(result.cases)} prompts it may be a level better or worse."
    return ""


def _detail(result: Result, thing: str) -> str:
    asked, unasked, moved, alone = (
        _value_at(result, name, at)
        for name, at in (
            ("shown", result.main),
            ("unasked", result.main),
            ("P", result.main),
            ("P", 0.0),
        )
    )
    sentences = []
    if asked is not None:
        also = "" if unasked is None else f" and in {unasked:.0%} of those that do not"
        verb = "appear" if several(thing) else "appears"
        sentences.append(f"{thing} {verb} in {asked:.0%} of the pictures that ask for it{also}")
    if moved is not None:
        own = "" if alone is None or result.main == 0 else f" (the words alone: {alone:.0%})"
        sentences.append(f"besides, {moved:.0%} as much changes as with another seed{own}")
    text = "; ".join(sentences)
    return f"{text[:1].upper()}{text[1:]}." if sentences else ""


def _value_at(result: Result, measure: str, strength: float) -> float | None:
    figure = result.numbers.get(figure_name(measure, strength))
    return None if figure is None else figure.value
