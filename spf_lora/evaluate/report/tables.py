"""The tables of a report: every number with its interval, folded until somebody asks."""

import re
from collections.abc import Sequence
from html import escape

from spf_lora.evaluate.comparison import Difference
from spf_lora.evaluate.report.curve import draw_curve, draw_key
from spf_lora.evaluate.report.summary import difference_sentence
from spf_lora.evaluate.report.words import linked
from spf_lora.evaluate.result import CHANNELS, Figure, Result, figure_name

# (figure, label, what it says); a figure that no result has is no row. Labels lead to a term.
MEASURES = (
    ("rho", "response", "how far the attribute appears; 1 = as on real pictures"),
    ("shown", "seen", "share of pictures in which the judge sees it"),
    ("P", "pollution", "what moved unasked; 0 = nothing, 1 = another seed"),
    ("excess", "excess", "pollution beyond that of the prompt alone"),
    ("BL", "base leakage", "pollution on prompts that don't ask for it"),
    ("unasked", "shown unasked", "share of those pictures in which the judge sees it"),
    ("flips", "flips", "share of other attributes that changed their value"),
    ("H", "balance", "harmonic mean of response and 1 - pollution"),
    ("sps", "SPS", "pollution at a response of 0.8, over all strengths"),
    ("auc", "area", "mean pollution over responses of 0.2 to 0.9; 1 where one is not reached"),
    ("truth:pixels", "to the truth", "pixel distance to the right picture"),
    ("truth:pixels:I0", "truth, untouched", "the same of the base's own picture (I0)"),
    ("truth:agreement", "agreement", "share of other attributes as on the right picture"),
)
_TERMS = {
    "response": "Response",
    "pollution": "Pollution",
    "excess": "Excess",
    "base leakage": "Base leakage",
    "shown unasked": "Shown unasked",
    "flips": "Flips",
    "balance": "Balance",
    "SPS": "SPS",
    "area": "Area",
    "to the truth": "Truth",
    "agreement": "Truth",
}
_HIGH = "response, seen, balance and agreement"  # of which more is better
_CHANNEL_NOTES = {
    "region": "pixels where it must not act",
    "identity": "whether it is the same person",
    "attributes": "the other attributes",
    "layout": "shapes where it must not act",
    "colour": "colours where it must not act",
}


def text(words: str) -> str:
    """Return words for HTML; control characters that no browser shows are left out."""
    return escape("".join(c for c in words if c.isprintable() or c in "\n\t "))


def _columns(results: Sequence[Result]) -> list[tuple[str, Result, float]]:
    control = [("prompt only", results[0], 0.0)] if 0.0 in results[0].strengths else []
    return control + [(f"{r.name} at {r.main:g}", r, r.main) for r in results if r.main != 0]


def _at(result: Result, measure: str, strength: float) -> Figure | None:
    named = result.numbers.get(figure_name(measure, strength))
    # SPS and area belong to the whole sweep, which the control alone has not.
    return named if named is not None or strength == 0 else result.numbers.get(measure)


def table(results: Sequence[Result], rows: Sequence[tuple[str, str, str]], corner: str) -> str:
    """Return a table of some measures, a column for each result."""
    columns = _columns(results)
    lines = []
    for measure, label, note in rows:
        figures = [(name, _at(result, measure, strength)) for name, result, strength in columns]
        if not any(figure for _, figure in figures):
            continue
        cells = "".join(
            f'<td role="cell" data-of="{text(name)}">{_cell(figure)}</td>'
            for name, figure in figures
        )
        lines.append(
            f'<tr role="row"><th role="rowheader" scope="row">{_label(label)}'
            f"<small>{text(note)}</small></th>{cells}</tr>"
        )
    if not lines:
        return ""
    heads = "".join(f'<th role="columnheader" scope="col">{text(n)}</th>' for n, _, _ in columns)
    return (
        f'<table role="table"><thead role="rowgroup"><tr role="row"><th role="columnheader" '
        f'scope="col">{text(corner)}</th>{heads}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(lines)}</tbody></table>'
        f'<p class="note">Less is better, but for {_HIGH}. In brackets: 95 % '
        f"{linked('intervals', 'Interval')} over prompts; n: how many prompts.</p>"
    )


def _label(label: str) -> str:
    return linked(label, _TERMS[label]) if label in _TERMS else text(label)


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "&ndash;"
    if figure.value is None:
        return f"{text(figure.text())} <small>n = {figure.n}</small>"
    # "-0.00" is a zero that would only make readers wonder.
    written = re.sub(r"-(0\.0+)(?!\d)", r"\1", figure.text(3 if 0 < abs(figure.value) < 0.1 else 2))
    value, _, interval = written.partition(" ")
    return f"<b>{value}</b> <small>{text(interval)} n = {figure.n}</small>"


def differences_list(differences: Sequence[Difference]) -> str:
    """Return the differences between results, those that are real in bold."""
    sentences = ((text(difference_sentence(d)), d.real) for d in differences)
    lines = "".join(f"<li>{f'<b>{words}</b>' if real else words}</li>" for words, real in sentences)
    note = "The same prompts are drawn again for both: real is what excludes zero in 95 %."
    return f'<p class="note">{note}</p><ul class="plain">{lines}</ul>' if lines else ""


def curve(results: Sequence[Result]) -> str:
    """Return pollution over response, with its key."""
    keys = [f"<li>{draw_key(None)}prompt only</li>"] if 0.0 in results[0].strengths else []
    named = enumerate(results)
    keys += [f"<li>{draw_key(i)}{text(r.name)}</li>" for i, r in named if r.main != 0]
    return (
        '<p class="note">Each mark is a strength of the adapter. Down and to the right is better: '
        "the attribute appears and nothing else moves.</p>"
        f'{draw_curve(results)}<ul class="keys">{"".join(keys)}</ul>'
    )


def channels(results: Sequence[Result]) -> str:
    """Return a table of what moved."""
    rows = [(name, name, _CHANNEL_NOTES[name]) for name in CHANNELS]
    return table(results, rows, "channel")


def selftests(result: Result) -> str:
    """Return the metric's checks of itself."""
    lines = "".join(
        f'<li class="{"pass" if test.passed else "fail"}"><b>{text(test.name)}</b>: '
        f"{text(test.claim)} <span class=dim>(found {test.value:.3g}; "
        f"{'holds' if test.passed else 'does not hold'})</span></li>"
        for test in result.selftests
    )
    return f'<ul class="tests">{lines}</ul>' if lines else ""


def facts(result: Result) -> str:
    """Return what was measured, and with what."""
    seeds = sorted({seed for case in result.cases for seed in case.seeds})
    facts = {
        "attribute": f"{result.attribute} ({result.target_text})",
        "adapter": f"{result.name} {result.adapter_id}",
        "base": f"{result.base} {result.base_id}",
        "judge": result.judge,
        "prompts": str(len(result.cases)),
        "seeds": ", ".join(map(str, seeds)),
        "strengths": ", ".join(f"{s:g}" for s in result.strengths),
        "sampler": ", ".join(f"{k}: {v}" for k, v in result.sampler.items() if v != ""),
        "versions": ", ".join(f"{k} {v}" for k, v in result.versions.items()),
        "time": f"{result.seconds:.0f} s, {result.pictures_drawn} pictures drawn",
    }
    return f"<dl>{''.join(f'<dt>{text(k)}</dt><dd>{text(v)}</dd>' for k, v in facts.items())}</dl>"


def every_figure(results: Sequence[Result]) -> str:
    """Return every figure there is."""
    return "".join(
        f"<h3>{text(result.name)}</h3><dl>"
        + "".join(
            f"<dt><code>{text(name)}</code></dt><dd>{text(figure.text(3))}, n = {figure.n}</dd>"
            for name, figure in sorted(result.numbers.items())
        )
        + "</dl>"
        for result in results
    )
