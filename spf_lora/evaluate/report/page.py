"""One self-contained report.html: no script, no font, no file and no address outside itself."""

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from spf_lora.atomic import write_text
from spf_lora.errors import MeasureError
from spf_lora.evaluate.comparison import Difference
from spf_lora.evaluate.faults import ceilings_of, faults
from spf_lora.evaluate.headline import headline
from spf_lora.evaluate.report.bars import draw_bars
from spf_lora.evaluate.report.strips import draw_strips
from spf_lora.evaluate.report.tables import (
    MEASURES,
    channels,
    curve,
    differences_list,
    every_figure,
    facts,
    selftests,
    table,
    text,
)
from spf_lora.evaluate.report.words import linked, words_section
from spf_lora.evaluate.result import Result, figure_name

NAME = "report.html"
_FAULTS = 6  # kinds that are listed at once
# Nothing is fetched and nothing runs, whatever a prompt may contain.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
        verdict: the sentence above the numbers; by default it states response and pollution.
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
    top = headline(main)
    body = [
        f"<h1>{text(title)}</h1>",
        f'<p class="headline {top.level}">{text(top.text)}</p>',
        f'<p class="detail">{text(top.detail)}</p>' if top.detail else "",
        draw_bars(results),
        _remarks([*main.remarks, *lost]),
        _section("Pictures, the worst first", _strips_note(main) + strips),
        "<section><h2>Numbers</h2>",
        f'<p class="note">{text(verdict or plain_verdict(main))}</p>',
        _folded("What was found", table(results, MEASURES, "measure")),
        _folded("Which differences are real", differences_list(differences)),
        _folded("Pollution at every strength", curve(results)),
        _folded("What moved", channels(results)),
        _folded("Does the metric hold?", selftests(main)),
        _folded("What was measured", facts(main)),
        _folded("Every figure", every_figure(results)),
        "</section>",
        words_section(),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{text(title)}</title><style>{style}</style></head>"
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


def _section(title: str, content: str) -> str:
    return f"<section><h2>{text(title)}</h2>{content}</section>" if content else ""


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{text(title)}</summary>{content}</details>" if content else ""


def _remarks(remarks: Iterable[str]) -> str:
    lines = "".join(f'<li dir="auto">{text(remark)}</li>' for remark in remarks)
    return f'<div class="remarks"><b>To know first</b><ul>{lines}</ul></div>' if lines else ""


def _strips_note(result: Result) -> str:
    ceilings = ceilings_of(result.draws)
    rows = result.at(result.main)
    counts = Counter(fault for draw in rows for fault in faults(draw, result.target_text, ceilings))
    items = [f"<li>{n} of {len(rows)}: {text(fault)}</li>" for fault, n in counts.most_common()]
    shown = f"<ul class=wrong>{''.join(items[:_FAULTS])}</ul>" if items else ""
    if len(items) > _FAULTS:
        rest = "".join(items[_FAULTS:])
        shown += f"<details><summary>{len(items) - _FAULTS} rarer faults</summary>"
        shown += f"<ul class=wrong>{rest}</ul></details>"
    region = linked("region", "Region")
    return (
        f"{shown}"
        f'<p class="note">Adapter at strength {result.main:g}. Prompts in which something went '
        "wrong come first, then those in which most moved. In the difference black is equal and "
        f"white is half of the full range or more; the {region} is lit where the attribute may "
        "act.</p>"
    )
