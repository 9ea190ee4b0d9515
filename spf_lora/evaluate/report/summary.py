"""A result in words and in rows: what a reader sees first."""

from collections.abc import Sequence

from spf_lora.evaluate.comparison import Difference
from spf_lora.evaluate.result import CHANNELS, Figure, Result, figure_name

# (measure, label); at the main strength where it has one
ROWS = (
    ("rho", "response"),
    ("P", "pollution P"),
    *((channel, f"  {channel}") for channel in CHANNELS),
    ("excess", "excess over the prompt"),
    ("BL", "base leakage"),
    ("unasked", "shown unasked"),
    ("H", "balance H"),
    ("sps", "SPS (P at response 0.8)"),
    ("auc", "area (mean P)"),
    ("truth:pixels", "distance to the truth"),
)


def verdict(result: Result) -> str:
    """Return the result in one sentence; its intervals are in the table."""
    at = result.main
    rho, moved = (_number(result, measure, at) for measure in ("rho", "P"))
    if at == 0:
        return (
            f"The prompt alone reaches a response of {rho} and moves {moved} of what another seed "
            f"moves ({_prompts(result)})."
        )
    alone, before = (_number(result, measure, 0) for measure in ("rho", "P"))
    words = (
        f"{result.name} reaches a response of {rho} (prompt alone {alone}) and moves {moved} of "
        f"what another seed moves (prompt alone {before}): {_excess(result)}; {_leak(result)}"
    )
    if "sps" in result.numbers:
        reached = result.numbers["sps"].value is not None
        words += f"; SPS {_number(result, 'sps', None)}" if reached else "; SPS not reached"
    return f"{words} ({_prompts(result)})."


def _number(result: Result, measure: str, strength: float | None) -> str:
    value = result.figure(measure, strength).value
    return "nothing" if value is None else f"{value:.2f}"


def _excess(result: Result) -> str:
    excess = result.figure("excess")
    if excess.low is None or excess.high is None:
        return "one prompt cannot tell whether that is more than its words do"
    if excess.low > 0:
        return "it pollutes more than its words do"
    if excess.high < 0:
        return "it pollutes less than its words alone do"
    return "no more than its words do, as far as these prompts can tell"


def _leak(result: Result) -> str:
    unasked, before = result.figure("unasked"), result.figure("unasked", 0)
    if unasked.value is None or before.value is None:
        return "base prompts were not looked at"
    return f"unasked it shows in {unasked.value:.0%} of pictures, without it in {before.value:.0%}"


def _prompts(result: Result) -> str:
    seeds = len(result.at(0.0))
    return f"{len(result.cases)} prompts, {seeds} pictures each way"


def best_at_response(results: Sequence[Result]) -> Result | None:
    """Return the result with the least pollution at a response of 0.8, or None if none has it."""
    reached = [r for r in results if "sps" in r.numbers and r.numbers["sps"].value is not None]
    return min(reached, key=lambda r: r.numbers["sps"].value or 0.0, default=None)


def pick(results: Sequence[Result]) -> str:
    """Say which of several to take, such as the steps of one training."""
    best = best_at_response(results)
    if best is None:
        most = max(results, key=lambda r: _number(r, "rho", r.main))
        rho = _number(most, "rho", most.main)
        return f"none reaches a response of 0.8; {most.name} comes nearest: {rho}"
    figure = best.numbers["sps"]
    sentence = f"take {best.name}: the least pollution at a response of 0.8, {figure.text()}"
    close = [
        r.name
        for r in results
        if r is not best
        and (other := r.numbers.get("sps"))
        and None not in (other.value, other.low, figure.high)
        and (other.low or 0.0) < (figure.high or 0.0)
    ]
    return f"{sentence}; {', '.join(close)} may be as good" if close else sentence


def rows(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return column names and rows of a table: the control first, then every adapter."""
    columns = [("prompt only", results[0], 0.0)]
    columns += [(r.name, r, r.main) for r in results if r.main != 0]
    lines = []
    for measure, label in ROWS:
        cells = [_figure(result, measure, at) for _, result, at in columns]
        if any(cells):
            lines.append([label, *(cell.text() if cell else "" for cell in cells)])
    return ["", *(name for name, _, _ in columns)], lines


def _figure(result: Result, measure: str, at: float) -> Figure | None:
    named = result.numbers.get(figure_name(measure, at))
    return named if named is not None or at == 0 else result.numbers.get(measure)


def difference_sentence(difference: Difference) -> str:
    """Return a difference as a sentence."""
    name = f"{difference.figure}: {difference.first} - {difference.second}"
    if difference.value is None:
        return f"{name}: one of them has no value"
    if difference.low is None or difference.high is None:
        return f"{name} = {difference.value:+.3f}, one prompt has no interval"
    real = "real" if difference.real else "may be chance"
    interval = f"[{difference.low:+.3f}, {difference.high:+.3f}]"
    return f"{name} = {difference.value:+.3f} {interval}, {real}, n = {difference.n}"
