"""One chart to see a result by: the adapter, the words alone, and what a plain LoRA does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from importlib import resources
from typing import Any

from spf_lora.evaluate.report.words import linked
from spf_lora.evaluate.result import Figure, Result, figure_name

# (figure, term of the glossary, what is good)
MEASURES = (
    ("rho", "Response", "more is better"),
    ("P", "Pollution", "less is better"),
    ("BL", "Base leakage", "less is better"),
)
_MOST = 1.25  # of the scale; a longer bar is cut off


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: what it is of.
        kind: "own", "other", "words" or "plain"; decides its colour.
        figure: its value.
    """

    name: str
    kind: str
    figure: Figure


def bars(results: Sequence[Result], measure: str) -> list[Bar]:
    """Return the bars of one measure: the adapter, others, the words alone, a plain LoRA."""
    main = results[0]
    rows = [
        (result.name, "own" if result is main else "other", result, result.main)
        for result in results
        if result.main != 0
    ]
    if 0.0 in main.strengths:
        rows.append(("words alone", "words", main, 0.0))
    bars = [
        Bar(name, kind, figure)
        for name, kind, result, at in rows
        if (figure := result.numbers.get(figure_name(measure, at))) and figure.value is not None
    ]
    plain = plain_lora(main).get(measure)
    if plain is not None:
        bars.append(Bar("a plain LoRA", "plain", Figure(plain, None, None, 0)))
    return bars


def plain_lora(result: Result) -> Mapping[str, float]:
    """Return the shipped figures of plain LoRAs, where they are of the same base and judge."""
    shipped = _shipped()
    if result.base_id != shipped["base_id"] or result.judge != "world":
        return {}
    figures: Mapping[str, float] = shipped["attributes"].get(result.attribute, {})
    return figures


@lru_cache
def _shipped() -> dict[str, Any]:
    file = resources.files("spf_lora.evaluate.report").joinpath("plain_lora.json")
    reference: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return reference


def draw_bars(results: Sequence[Result]) -> str:
    """Return the chart as HTML; each bar's number stands beside it."""
    groups = []
    for measure, term, good in MEASURES:
        rows = bars(results, measure)
        if not rows:
            continue
        lines = "".join(_bar(row) for row in rows)
        groups.append(
            f'<div class="group"><h3>{linked(term.lower(), term)} <small>{good}</small></h3>'
            f"{lines}</div>"
        )
    if not groups:
        return ""
    note = ""
    if plain_lora(results[0]):
        note = (
            f'<p class="note">{linked("A plain LoRA", "Plain LoRA")} is the mean of three '
            "trainings on this base and attribute, 16 prompts, 15 steps.</p>"
        )
    summary = escape(_told(results))
    return f'<div class="bars" role="group" aria-label="{summary}">{"".join(groups)}</div>{note}'


def _bar(bar: Bar) -> str:
    value = bar.figure.value or 0.0
    whisker = ""
    if bar.figure.low is not None and bar.figure.high is not None:
        low, high = (_percent(end) for end in (bar.figure.low, bar.figure.high))
        whisker = f'<i style="left:{low:.1f}%;width:{max(high - low, 0):.1f}%"></i>'
    return (
        f'<div class="bar-row {bar.kind}"><span class="bar-name">{escape(bar.name)}</span>'
        f'<span class="track"><b style="width:{_percent(value):.1f}%"></b>{whisker}</span>'
        f'<span class="bar-value">{value:.2f}</span></div>'
    )


def _percent(value: float) -> float:
    return 100 * min(max(value, 0.0), _MOST) / _MOST


def _told(results: Sequence[Result]) -> str:
    """Return the chart in words."""
    sentences = []
    for measure, term, _ in MEASURES:
        values = ", ".join(f"{b.name} {b.figure.value:.2f}" for b in bars(results, measure))
        sentences.append(f"{term}: {values}")
    return "; ".join(sentences)
