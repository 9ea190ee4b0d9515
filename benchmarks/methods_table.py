"""Print the methods' table from the cells' JSON, and write it into a page between two markers."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from spf_lora.training.baselines import RIVALS

BEGIN, END = "<!-- methods: begin -->", "<!-- methods: end -->"
COLUMNS = {
    "response": "rho@1", "P": "P@1", "P, lower": "P@1:low", "P, upper": "P@1:high",
    "base leakage": "BL@1", "shown unasked": "unasked@1", "H": "H@1",
    "distance to truth": "truth:pixels@1",
}  # fmt: skip


def write_page(folder: Path, page: Path | None) -> None:
    """Print the table of every cell in `folder`; with a page, replace what is between its marks."""
    cells = [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]
    text = "\n".join(_lines(cells))
    print(text)
    if page is not None:
        before, rest = page.read_text().split(BEGIN)
        after = rest.split(END)[1]
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def _lines(cells: list[dict[str, Any]]) -> list[str]:
    by_method: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        by_method.setdefault(cell["method"], []).append(cell)
    heads = [*COLUMNS, "SPS at 0.8", "seconds"]
    lines = [
        f"| method | cells | {' | '.join(heads)} |",
        f"| --- | --- | {' | '.join('---' for _ in heads)} |",
    ]
    rows = [("prompt only", cells, "0")] if cells else []
    order = sorted(by_method, key=lambda m: (not m.startswith("ours"), m))
    rows += [(m, by_method[m], "1") for m in order]
    for name, own, strength in rows:
        values = [_mean(own, figure.replace("@1", f"@{strength}")) for figure in COLUMNS.values()]
        seconds = mean(c["training_seconds"] for c in own) if strength == "1" else None
        sps = _sps(own) if strength == "1" else ""
        count = len({(c["attribute"]) for c in own}) if strength == "0" else len(own)
        shown = [_text(v) for v in values] + [sps, f"{seconds:.0f}" if seconds else ""]
        lines.append(f"| {name} | {count} | {' | '.join(shown)} |")
    lines += ["", "Response / pollution at strength 1, by attribute:", ""]
    attributes = sorted({c["attribute"] for c in cells})
    lines += [f"| method | {' | '.join(attributes)} |", f"| --- |{' --- |' * len(attributes)}"]
    for method in order:
        parts = []
        for attribute in attributes:
            own = [c for c in by_method[method] if c["attribute"] == attribute]
            pair = [_text(_mean(own, figure)) for figure in ("rho@1", "P@1")] if own else []
            parts.append(" / ".join(pair))
        lines.append(f"| {method} | {' | '.join(parts)} |")
    lines += ["", "The rivals, and U-Net forwards in a step of one sample (ours: 3):", ""]
    lines += ["| method | source | what we chose | forwards |", "| --- | --- | --- | --- |"]
    lines += [f"| {n} | {r.source} | {r.chosen} | {r.forwards} |" for n, r in RIVALS.items()]
    return lines


def _figure(figures: Mapping[str, Any], name: str) -> float | None:
    figure, _, part = name.partition(":") if name.startswith("P@") else (name, "", "")
    found = figures.get(figure)
    value = None if found is None else found[part or "value"]
    return None if value is None else float(value)


def _mean(cells: list[dict[str, Any]], name: str) -> float | None:
    values = [v for c in cells if (v := _figure(c["figures"], name)) is not None]
    return mean(values) if values else None


def _sps(cells: list[dict[str, Any]]) -> str:
    values = [v for c in cells if (v := _figure(c["figures"], "sps")) is not None]
    missed = len(cells) - len(values)
    said = f"{mean(values):.2f}" if values else ""
    return f"{said} ({missed} not reached)".strip() if missed else said


def _text(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.2f}"
