"""One self-contained report.html: no script, no font, no file and no address outside itself."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from spf_lora.atomic import write_text
from spf_lora.errors import MeasureError
from spf_lora.evaluate.comparison import Difference
from spf_lora.evaluate.report.curve import draw_curve, draw_key
from spf_lora.evaluate.report.strips import draw_strips, faults
from spf_lora.evaluate.report.summary import difference_sentence
from spf_lora.evaluate.result import CHANNELS, Figure, Result, figure_name

NAME = "report.html"
# Nothing is fetched and nothing runs, whatever a prompt may contain.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

# (figure, label, what it says); a figure that no result has is no row.
MEASURES = (
    ("rho", "response", "how far the attribute appears; 1 = as on real pictures"),
    ("shown", "seen", "share of pictures in which the judge sees it"),
    ("P", "pollution", "what moved unasked; 0 = nothing, 1 = another seed"),
    ("excess", "excess", "pollution beyond that of the prompt alone"),
    ("BL", "base leakage", "pollution on prompts that don't ask for it"),
    ("unasked", "seen unasked", "share of those pictures in which the judge sees it"),
    ("flips", "flips", "share of other attributes that changed their value"),
    ("H", "balance", "harmonic mean of response and 1 - pollution"),
    ("sps", "SPS", "pollution at a response of 0.8, over all strengths"),
    ("auc", "area", "mean pollution over responses of 0.2 to 0.9; 1 where one is not reached"),
    ("truth:pixels", "to the truth", "pixel distance to the right picture"),
    ("truth:pixels:I0", "truth, untouched", "the same of the base's own picture (I0)"),
    ("truth:agreement", "agreement", "share of other attributes as on the right picture"),
)
_HIGH = "response, seen, balance and agreement"  # of which more is better
_CHANNEL_NOTES = {
    "region": "pixels where it must not act",
    "identity": "whether it is the same person",
    "attributes": "the other attributes",
    "layout": "shapes where it must not act",
    "colour": "colours where it must not act",
}


def write_page(
    results: Sequence[Result],
    folder: Path,
    *,
    verdict: str = "",
    differences: Sequence[Difference] = (),
    overwrite: bool = False,
) -> Path:
    """Write report.html and return its path.

    Args:
        results: the first is what the page is about, the others are what it is held against.
        folder: where to write; it must exist.
        verdict: the sentence at the top; by default it states response and pollution.
        differences: between the results, from `spf_lora.evaluate.comparison`.
        overwrite: replace a page that is there.

    Raises:
        MeasureError: there is no result.
        OutputError: the page cannot be written.
    """
    path = folder / NAME
    page = make_page(results, verdict=verdict, differences=differences)
    write_text(path, page, overwrite=overwrite)
    return path


def make_page(
    results: Sequence[Result], *, verdict: str = "", differences: Sequence[Difference] = ()
) -> str:
    """Return the page as HTML; see `write_page`."""
    if not results:
        raise MeasureError("there is nothing to report", hint="evaluate an adapter first")
    main = results[0]
    title = f"{main.name}: {main.attribute} on {main.base}"
    strips, lost = draw_strips(main)
    style = resources.files("spf_lora.evaluate.report").joinpath("page.css").read_text("utf-8")
    body = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="verdict">{_text(verdict or plain_verdict(main))}</p>',
        _remarks([*main.remarks, *lost]),
        _section("What was found", _table(results, MEASURES, "measure")),
        _section("Which differences are real", _differences(differences)),
        _section("Pollution at every strength", _curve(results)),
        _section("What moved", _channels(results)),
        _section("Pictures, the worst first", _strips_note(main) + strips),
        _section("Does the metric hold?", _selftests(main)),
        _section("What was measured", _facts(main)),
        _every_figure(results),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{_text(title)}</title><style>{style}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
    # A prompt from a terminal may hold bytes that are no text.
    return page.encode("utf-8", "replace").decode("utf-8")


def plain_verdict(result: Result) -> str:
    """Return one sentence with response and pollution, and the prompt alone to compare with."""
    rho, pollution = (result.numbers.get(figure_name(m, result.main)) for m in ("rho", "P"))
    if rho is None or pollution is None:
        return f"{result.name} was drawn, but neither response nor pollution could be measured."
    sentence = f"At a response of {rho.text()} its pollution is {pollution.text()}"
    control = result.numbers.get(figure_name("P", 0))
    if control is not None and result.main != 0:
        sentence += f"; the prompt alone moves {control.text()}"
    return sentence + "."


def _text(words: str) -> str:
    """Return words for HTML; control characters that no browser shows are left out."""
    return escape("".join(c for c in words if c.isprintable() or c in "\n\t "))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>" if content else ""


def _remarks(remarks: Iterable[str]) -> str:
    lines = "".join(f'<li dir="auto">{_text(remark)}</li>' for remark in remarks)
    return f'<div class="remarks"><b>To know first</b><ul>{lines}</ul></div>' if lines else ""


def _columns(results: Sequence[Result]) -> list[tuple[str, Result, float]]:
    control = [("prompt only", results[0], 0.0)] if 0.0 in results[0].strengths else []
    return control + [(f"{r.name} at {r.main:g}", r, r.main) for r in results if r.main != 0]


def _at(result: Result, measure: str, strength: float) -> Figure | None:
    named = result.numbers.get(figure_name(measure, strength))
    # SPS and area belong to the whole sweep, which the control alone has not.
    return named if named is not None or strength == 0 else result.numbers.get(measure)


def _table(results: Sequence[Result], rows: Sequence[tuple[str, str, str]], corner: str) -> str:
    columns = _columns(results)
    lines = []
    for measure, label, note in rows:
        figures = [(name, _at(result, measure, strength)) for name, result, strength in columns]
        if not any(figure for _, figure in figures):
            continue
        cells = "".join(
            f'<td role="cell" data-of="{_text(name)}">{_cell(figure)}</td>'
            for name, figure in figures
        )
        lines.append(
            f'<tr role="row"><th role="rowheader" scope="row">{_text(label)}'
            f"<small>{_text(note)}</small></th>{cells}</tr>"
        )
    if not lines:
        return ""
    heads = "".join(f'<th role="columnheader" scope="col">{_text(n)}</th>' for n, _, _ in columns)
    return (
        f'<table role="table"><thead role="rowgroup"><tr role="row"><th role="columnheader" '
        f'scope="col">{_text(corner)}</th>{heads}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(lines)}</tbody></table>'
        f'<p class="note">Less is better, but for {_HIGH}. In brackets: 95 % intervals over '
        "prompts; n: how many prompts.</p>"
    )


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "&ndash;"
    if figure.value is None:
        return f"{_text(figure.text())} <small>n = {figure.n}</small>"
    # "-0.00" is a zero that would only make readers wonder.
    text = re.sub(r"-(0\.0+)(?!\d)", r"\1", figure.text(3 if 0 < abs(figure.value) < 0.1 else 2))
    value, _, interval = text.partition(" ")
    return f"<b>{value}</b> <small>{_text(interval)} n = {figure.n}</small>"


def _differences(differences: Sequence[Difference]) -> str:
    sentences = ((_text(difference_sentence(d)), d.real) for d in differences)
    lines = "".join(f"<li>{f'<b>{text}</b>' if real else text}</li>" for text, real in sentences)
    note = "The same prompts are drawn again for both: real is what excludes zero in 95 %."
    return f'<p class="note">{note}</p><ul class="plain">{lines}</ul>' if lines else ""


def _curve(results: Sequence[Result]) -> str:
    keys = [f"<li>{draw_key(None)}prompt only</li>"] if 0.0 in results[0].strengths else []
    named = enumerate(results)
    keys += [f"<li>{draw_key(i)}{_text(r.name)}</li>" for i, r in named if r.main != 0]
    return (
        '<p class="note">Each mark is a strength of the adapter. Down and to the right is better: '
        "the attribute appears and nothing else moves.</p>"
        f'{draw_curve(results)}<ul class="keys">{"".join(keys)}</ul>'
    )


def _channels(results: Sequence[Result]) -> str:
    rows = [(name, name, _CHANNEL_NOTES[name]) for name in CHANNELS]
    return _table(results, rows, "channel")


def _strips_note(result: Result) -> str:
    counts = Counter(fault for draw in result.at(result.main) for fault in faults(draw))
    of = len(result.at(result.main))
    lines = "".join(f"<li>{n} of {of}: {_text(fault)}</li>" for fault, n in counts.most_common())
    return (
        f'<p class="note">Adapter at strength {result.main:g}. Prompts in which something went '
        "wrong come first, then those in which most moved. In the difference black is equal and "
        "white is half of the full range or more; the region is lit where the attribute may act."
        f"</p>{f'<ul class=wrong>{lines}</ul>' if lines else ''}"
    )


def _selftests(result: Result) -> str:
    lines = "".join(
        f'<li class="{"pass" if test.passed else "fail"}"><b>{_text(test.name)}</b>: '
        f"{_text(test.claim)} <span class=dim>(found {test.value:.3g}; "
        f"{'holds' if test.passed else 'does not hold'})</span></li>"
        for test in result.selftests
    )
    return f'<ul class="tests">{lines}</ul>' if lines else ""


def _facts(result: Result) -> str:
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
    return (
        f"<dl>{''.join(f'<dt>{_text(k)}</dt><dd>{_text(v)}</dd>' for k, v in facts.items())}</dl>"
    )


def _every_figure(results: Sequence[Result]) -> str:
    lists = "".join(
        f"<h3>{_text(result.name)}</h3><dl>"
        + "".join(
            f"<dt><code>{_text(name)}</code></dt><dd>{_text(figure.text(3))}, n = {figure.n}</dd>"
            for name, figure in sorted(result.numbers.items())
        )
        + "</dl>"
        for result in results
    )
    return f"<section><details><summary>Every figure</summary>{lists}</details></section>"
