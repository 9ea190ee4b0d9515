"""The methods' tables and curve from the cells' JSON, written into pages between two markers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import numpy as np
from common import mean_interval, read_cell

from spf_lora.evaluate.report.curve import MATCHED as LEVEL
from spf_lora.evaluate.report.curve import draw_curve
from spf_lora.evaluate.result import Figure, figure_name
from spf_lora.evaluate.statistics import at_response
from spf_lora.training.baselines import RIVALS

SPS = "sps"
# of the table of means; each is lower for the better but response and H
COLUMNS = {
    "response": "rho@1",
    "P": "P@1",
    "P above the base's own": "excess@1",
    "base leakage": "BL@1",
    "shown unasked": "unasked@1",
    "H": "H@1",
    "distance to truth": "truth:pixels@1",
    "area": "auc",
}
# where response first reaches 0.8
MATCHED = {"SPS": "P", "above the base's own": "excess", "leakage": "BL", "unasked": "unasked"}
BY_ATTRIBUTE = {
    "Response": "rho@1",
    "Pollution P": "P@1",
    "Pollution at response 0.8 (SPS)": SPS,
    "Base leakage": "BL@1",
    "Shown unasked": "unasked@1",
}
BESIDE = ("ours", "ours-local")
# in the curve, where more lines would hide each other
DRAWN = ("ours", "ours-local", "masked-prior", "plain", "plain-completed", "spf-portrait")
# of README's table
SUMMARY = {
    "plain": "plain LoRA",
    "plain-completed": "plain LoRA, captions completed",
    "masked-prior": "masked prior, told where the attribute is",
    "ours": "**ours**, in any app",
}
COLOURS = ("#1f6feb", "#b35900", "#2e7d32", "#8e24aa", "#c2185b", "#00838f")

Cell = Mapping[str, Any]


def write_pages(folder: Path, pages: Sequence[Path], curve: Path | None) -> None:
    """Print the tables of every cell in `folder`, and write them into pages.

    The tables are means, attributes, rivals and summary. The curve is an SVG of its own.
    """
    cells = read_cells(folder)
    compared = _compared(cells)
    replace_tables(
        pages, {**result_tables(cells), "rivals": _rivals(), "summary": _summary(compared)}
    )
    if curve is not None:
        curve.write_text(_curve(cells, compared), "utf-8")


def read_cells(folder: Path) -> list[Cell]:
    """Return every cell in a folder."""
    return [read_cell(path) for path in sorted(folder.glob("*.json"))]


def result_tables(cells: Sequence[Cell]) -> dict[str, str]:
    """Return the table of means and those by attribute."""
    return {"means": _means(cells, _compared(cells)), "attributes": _by_attribute(cells)}


def replace_tables(pages: Sequence[Path], tables: Mapping[str, str]) -> None:
    """Print tables, and replace what is between `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""
    print("\n\n".join(tables.values()))
    for page in pages:
        text = page.read_text("utf-8")
        for name, table in tables.items():
            begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
            inside = f"{begin}\n{table}\n{end}"
            text = re.sub(f"{begin}.*{end}", lambda _, new=inside: new, text, flags=re.DOTALL)
        page.write_text(text, "utf-8")


def _compared(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Return the methods that have every attribute that ours and plain have, on those.

    Of a method's training seeds, those that have every attribute.
    """
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell["method"], cell["seed"]), []).append(cell)
    known = {of: {c["attribute"] for c in own} for of, own in groups.items()}
    wanted = known.get(("ours", 0), set()) & known.get(("plain", 0), set())
    by_method: dict[str, list[Cell]] = {}
    for (method, seed), own in groups.items():
        if wanted and wanted <= known[method, seed]:
            there = (c for c in own if c["attribute"] in wanted)
            by_method.setdefault(method, []).extend(there)
    return {m: by_method[m] for m in _order(by_method)}


def _order(methods: Mapping[str, Any]) -> list[str]:
    return sorted(methods, key=lambda m: (m != "ours", not m.startswith("ours"), m))


def _means(cells: Sequence[Cell], compared: Mapping[str, Sequence[Cell]]) -> str:
    """Return means over attributes and training seeds; P with its interval over prompts."""
    if not compared:
        return "No cells yet."
    every = [c for own in compared.values() for c in own]
    attributes = sorted({c["attribute"] for c in every})
    lines = _head(["method", "seeds", *COLUMNS, "seconds", "MiB"])
    first = next(iter(compared.values()))
    control = [_mean(first, f.replace("@1", "@0")) if "@" in f else None for f in COLUMNS.values()]
    lines.append(_row("prompt only", ["", *map(_text, control), "", ""]))
    for method, own in compared.items():
        shown = [_text(_mean(own, figure)) for figure in COLUMNS.values()]
        shown[1] += " ({:.2f} to {:.2f})".format(*_interval(own, "P@1"))
        cost = ([c.get(key) for c in own] for key in ("processor_seconds", "peak_mib"))
        known = (f"{mean(each):.0f}" if all(each) else "" for each in cost)  # old cells have none
        seeds = str(len({c["seed"] for c in own}))
        lines.append(_row(method, [seeds, *shown, *known]))
    said = (
        f"Means over {', '.join(attributes)} and training seeds, at strength 1; in brackets the "
        "95 % interval over prompts. Seconds are processor time of the steps and of drawing pairs, "
        "without what is prepared before them; MiB is the process's peak."
    )
    also = (
        "At the strength where response reaches 0.8, a method / ours: means over the attributes "
        "and training seeds with which both reach it. The last column is the 95 % interval, over "
        "prompts, of how much lower our SPS is; without 0 in it the difference is real."
    )
    beside = [line for one in BESIDE if one in compared for line in ("", *_matched(compared, one))]
    return "\n".join([*lines, "", said, "", also, *beside])


def _matched(compared: Mapping[str, Sequence[Cell]], one: str) -> list[str]:
    """Return each method beside one of ours where response first reaches 0.8."""
    lines = _head([f"method / {one}", "cells", *MATCHED, f"SPS, {one} as a share", "lower by"])
    ours = {(c["attribute"], c["seed"]): c for c in compared[one]}
    for method, own in compared.items():
        pairs = [
            (cell, other)
            for cell in own
            if (other := ours.get((cell["attribute"], cell["seed"])))
            and _figure(cell, SPS) is not None
            and _figure(other, SPS) is not None
        ]
        if method == one or not pairs:
            continue
        theirs, beside = zip(*pairs, strict=True)
        means = {n: [_mean_there(side, m) for side in (theirs, beside)] for n, m in MATCHED.items()}
        shown = [" / ".join(map(_text, each)) for each in means.values()]
        they, we = means["SPS"]
        share = we / they if we is not None and they else None
        less = "{:.2f} to {:.2f}".format(*_less(pairs))
        lines.append(_row(method, [str(len(pairs)), *shown, _text(share), less]))
    return lines


def _less(pairs: Sequence[tuple[Cell, Cell]]) -> tuple[float, float]:
    """Return the 95 % interval of how much lower the second's SPS is; prompts are drawn again.

    Of a prompt's pictures P counts, at the strengths where all prompts' response reaches 0.8.
    """
    by_attribute: dict[str, list[np.ndarray]] = {}
    for they, we in pairs:
        apart = _sps_by_prompt(they) - _sps_by_prompt(we)
        by_attribute.setdefault(they["attribute"], []).append(apart)
    return mean_interval([np.mean(seeds, axis=0) for seeds in by_attribute.values()])


def _sps_by_prompt(cell: Cell) -> np.ndarray:
    strengths = _strengths(cell)
    pollution = np.array([cell["per_prompt"][figure_name("P", s)] for s in strengths]).T
    rho = np.array([[_figure(cell, figure_name("rho", s)) or 0.0 for s in strengths]])
    return np.asarray(at_response(rho.repeat(len(pollution), axis=0), pollution, LEVEL))


def _strengths(cell: Cell) -> list[float]:
    return sorted(float(k[4:]) for k in cell["figures"] if k.startswith("rho@"))


def _mean_there(cells: Sequence[Cell], measure: str) -> float | None:
    """Return a measure where response first reaches 0.8, as SPS takes P; the mean over cells."""
    values = []
    for cell in cells:
        strengths = _strengths(cell)
        rho, wanted = (
            np.array([[_figure(cell, figure_name(name, s)) or 0.0 for s in strengths]])
            for name in ("rho", measure)
        )
        values.append(float(at_response(rho, wanted, LEVEL)[0]))
    return mean(values) if values else None


def _by_attribute(cells: Sequence[Cell]) -> str:
    attributes = sorted({c["attribute"] for c in cells})
    groups: dict[str, dict[str, list[Cell]]] = {}
    for cell in cells:
        groups.setdefault(cell["method"], {}).setdefault(cell["attribute"], []).append(cell)
    tables = []
    for title, figure in BY_ATTRIBUTE.items():
        lines = _head([title, *attributes])
        for method in _order(groups):
            own = (groups[method].get(a, []) for a in attributes)
            lines.append(_row(method, [_cell(found, figure) for found in own]))
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _cell(cells: Sequence[Cell], figure: str) -> str:
    """Return the mean over training seeds, and each seed's where there are several."""
    if not cells:
        return ""
    values = [_figure(c, figure) for c in sorted(cells, key=lambda c: c["seed"])]
    if all(value is None for value in values):
        return "not reached" if figure == SPS else ""
    known = [value for value in values if value is not None]
    each = ", ".join(_text(value) or "-" for value in values)
    return f"{mean(known):.2f}" + (f" ({each})" if len(values) > 1 else "")


def _summary(compared: Mapping[str, Sequence[Cell]]) -> str:
    """Return README's table: a few methods, four figures."""
    lines = _head(["", "response", "pollution", "leakage", "shown unasked"])
    for name, title in SUMMARY.items():
        own = compared.get(name)
        if own:
            figures = (_text(_mean(own, f"{one}@1")) for one in ("rho", "P", "BL", "unasked"))
            lines.append(_row(title, list(figures)))
    return "\n".join(lines)


def _rivals() -> str:
    lines = _head(["method", "source", "what we chose", "forwards"])
    lines += [_row(n, [r.source, r.chosen, str(r.forwards)]) for n, r in RIVALS.items()]
    return "\n".join(lines)


def _curve(cells: Sequence[Cell], compared: Mapping[str, Sequence[Cell]]) -> str:
    """Return pollution over response of the methods compared, as an SVG that stands alone."""
    series = []
    for method, own in ((m, compared[m]) for m in DRAWN if m in compared):
        swept = ({float(k[4:]) for k in c["figures"] if k.startswith("rho@")} for c in own)
        strengths = sorted(set.intersection(*swept))
        numbers = {}
        for strength in strengths:
            rho, pollution = (figure_name(measure, strength) for measure in ("rho", "P"))
            low, high = _interval(own, pollution)
            numbers[rho] = Figure(_mean(own, rho), None, None, len(own))
            numbers[pollution] = Figure(_mean(own, pollution), low, high, len(own))
        series.append(SimpleNamespace(name=method, strengths=strengths, numbers=numbers))
    drawn: Any = series
    svg = draw_curve(drawn)
    colours = "".join(
        f".s{i}{{stroke:{c}}}.mark.s{i},.name.s{i}{{fill:{c}}}" for i, c in enumerate(COLOURS)
    )
    style = (
        "<style>svg{background:#fff;font-family:sans-serif}text{fill:#555;font-size:13px}"
        ".grid{stroke:#ddd}.matched{stroke:#888;stroke-dasharray:3 4}.control{fill:#222}"
        f".line{{fill:none;stroke-width:2.5}}.bar{{stroke-width:1.2;opacity:.6}}{colours}"
        ".mark{stroke:none}.name{stroke:#fff;stroke-width:5;paint-order:stroke}</style>"
    )
    names = "".join(
        f'<text class="name s{i}" x="64" y="{44 + 17 * i}">{one.name}</text>'
        for i, one in enumerate(series)
    )
    head, rest = svg.split(">", 1)
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    return f"{head}>{style}{rest.removesuffix('</svg>')}{names}</svg>\n"


def _interval(cells: Sequence[Cell], figure: str) -> tuple[float, float]:
    """Return the 95 % interval of the mean over cells; each attribute's prompts are drawn again.

    A prompt is drawn with all its training seeds, which are no prompts more.
    """
    by_attribute: dict[str, list[list[float]]] = {}
    for cell in cells:
        by_attribute.setdefault(cell["attribute"], []).append(cell["per_prompt"][figure])
    return mean_interval([np.array(seeds).mean(axis=0) for seeds in by_attribute.values()])


def _figure(cell: Cell, name: str) -> float | None:
    found = cell["figures"].get(name)
    return None if found is None or found["value"] is None else float(found["value"])


def _mean(cells: Sequence[Cell], name: str) -> float | None:
    values = [v for c in cells if (v := _figure(c, name)) is not None]
    return mean(values) if values else None


def _head(names: Sequence[str]) -> list[str]:
    return [_row(names[0], names[1:]), "| --- |" + " --- |" * (len(names) - 1)]


def _row(name: str, values: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(values)} |"


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
