"""Turns a folder of submissions into one page; docs/leaderboard.md says what protocol they follow.

    python benchmarks/leaderboard.py FOLDER --out leaderboard.html

A changed file, or one of another protocol, is left out and named; the exit code is 1 then.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from spf_lora.atomic import write_text
from spf_lora.errors import SpfError
from spf_lora.evaluate.report.page import POLICY
from spf_lora.evaluate.report.tables import text
from spf_lora.evaluate.result import Figure
from spf_lora.publish.submission import PROTOCOL, Submission, read_submission
from spf_lora.recipe.digest import table_hash

# figure -> its column, and what the column says
COLUMNS = {
    "sps": ("SPS", "pollution where the response reaches 0.8"),
    "rho@1": ("response", "how often it appears where asked for"),
    "P@1": ("pollution", "what else changes"),
    "BL@1": ("base leakage", "the same where nobody asked"),
    "unasked@1": ("shown unasked", "share that shows it though nobody asked"),
}
_MOST_NAME = 60  # characters
_STYLE = """
.scroll table { font-size: .95rem; } td small, th small { font-weight: 400; color: var(--dim); }
@media (max-width: 40rem) { tbody td:first-child::before { content: ""; } }
"""


def read_all(folder: Path) -> tuple[list[Submission], list[str]]:
    """Return the sound submissions of a folder, each once, and why the others are left out."""
    sound: dict[str, Submission] = {}
    left_out = []
    for path in sorted(folder.glob("*.json")):
        try:
            one = read_submission(path)
        except SpfError as error:
            left_out.append(error.message)
            continue
        figures = {name: figure.value for name, figure in one.figures.items()}
        sound.setdefault(table_hash([one.attribute, one.adapter_id, figures]), one)
    return list(sound.values()), left_out


def page(submissions: Sequence[Submission], left_out: Sequence[str]) -> str:
    """Return the page as HTML: a table for each attribute, the least pollution first."""
    style = resources.files("spf_lora.evaluate.report").joinpath("page.css").read_text("utf-8")
    title = f"Leaderboard, protocol {PROTOCOL}"
    body = [
        f"<h1>{title}</h1>",
        f'<p class="headline">{_counted(len(submissions))}</p>',
        '<p class="detail">Measured on the 64 px cartoon model that ships with spf-lora, by the '
        "same prompts, seeds, sampler and judge. It says nothing about Stable Diffusion 1.5. "
        "Anybody can measure a row again from the file with its content id.</p>",
        *_sections(submissions),
        '<p class="note">Less is better but for the response. In brackets: 95 % intervals over '
        "prompts; rows whose intervals overlap may differ by chance. The order is by SPS, then by "
        "the area under the sweep. A signature shows that a file was not changed by accident, not "
        "who wrote it.</p>",
        _left_out(left_out),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{style}{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _counted(count: int) -> str:
    return "1 adapter" if count == 1 else f"{count} adapters"


def _sections(submissions: Sequence[Submission]) -> Iterator[str]:
    heads = "".join(
        f'<th role="columnheader" scope="col">{label}<br><small>{note}</small></th>'
        for label, note in COLUMNS.values()
    )
    for attribute in sorted({one.attribute for one in submissions}):
        rows = sorted((one for one in submissions if one.attribute == attribute), key=_order)
        lines = "".join(map(_row, rows))
        yield (
            f"<section><h2>{text(attribute)}</h2><div class=scroll><table role=table>"
            f"<thead role=rowgroup><tr role=row><th role=columnheader scope=col>adapter</th>"
            f"{heads}</tr></thead><tbody role=rowgroup>{lines}</tbody></table></div></section>"
        )


def _order(one: Submission) -> tuple[float, float, str]:
    sps, area = (one.figures[name].value for name in ("sps", "auc"))
    return (math.inf if sps is None else sps, math.inf if area is None else area, one.adapter_id)


def _row(one: Submission) -> str:
    name = one.adapter if len(one.adapter) <= _MOST_NAME else f"{one.adapter[:_MOST_NAME]}..."
    failed = [check for check, held in one.checks.items() if not held]
    note = f"<small class=fail>check failed: {text(', '.join(failed))}</small>" if failed else ""
    cells = "".join(
        f'<td role=cell data-of="{label}">{_cell(one.figures[figure])}</td>'
        for figure, (label, _) in COLUMNS.items()
    )
    return (
        f"<tr role=row><th role=rowheader scope=row>{text(name)}"
        f"<small><code>{text(one.adapter_id[:12])}</code></small>{note}</th>{cells}</tr>"
    )


def _cell(figure: Figure) -> str:
    if figure.value is None:
        return "not reached"
    value, _, interval = figure.text().partition(" ")
    return f"<b>{value}</b> <small>{interval}</small>"


def _left_out(reasons: Sequence[str]) -> str:
    lines = "".join(f"<li>{text(reason)}</li>" for reason in reasons)
    return f'<div class="remarks"><b>Left out</b><ul>{lines}</ul></div>' if lines else ""


def main(words: Sequence[str] | None = None) -> int:
    """Write the page; return 1 if a file had to be left out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("leaderboard.html"))
    options = parser.parse_args(words)
    submissions, left_out = read_all(options.folder)
    write_text(options.out, page(submissions, left_out), overwrite=True)
    print(options.out)
    for reason in left_out:
        print(reason, file=sys.stderr)
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
