"""The page of an audit: what each adapter moves and reacts to, and how several meet."""

from collections.abc import Sequence
from importlib import resources

from spf_lora.evaluate.audit import Audit, Meeting
from spf_lora.evaluate.report.page import POLICY
from spf_lora.evaluate.report.tables import text

ROWS = 12


def audit_page(audits: Sequence[Audit], meetings: Sequence[Meeting], pick: str = "") -> str:
    """Return the page as HTML.

    Args:
        audits: of each adapter.
        meetings: of each two.
        pick: which to take, where that can be said.
    """
    style = resources.files("spf_lora.evaluate.report").joinpath("page.css").read_text("utf-8")
    title = f"Audit of {', '.join(one.name for one in audits)}"
    body = [f"<h1>{text(title)}</h1>", f"<p>{text(pick)}</p>" if pick else ""]
    for one in audits:
        body += [f"<h2>{text(one.name)}</h2>", f"<p>{text(sentence(one))}</p>"]
        for name, (heads, lines) in tables_of(one).items():
            body.append(f"<h3>{text(name)}</h3>{_table(heads, lines)}")
    if meetings:
        heads, lines = meetings_table(meetings)
        body.append(f"<h2>How they meet</h2>{_table(heads, lines)}")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{style}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def sentence(audit: Audit) -> str:
    """Return what is known of response, strength and start in one sentence."""
    asked = f"{audit.target!r}" if audit.target else "no words that are known; it acts always"
    known = audit.measured
    if known is None:
        return f"Asked for by {asked}. Nobody here judges it, so only effects are told."
    rho, moved = (known.result.figure(name, 1.0).value for name in ("rho", "P"))
    strength = "no strength up to 1" if known.strength is None else f"strength {known.strength:g}"
    return (
        f"Asked for by {asked}: response {rho or 0:.2f} and pollution {moved or 0:.2f} at strength "
        f"1; it shows from {strength} on, and may begin at {known.start_percent:.0%} of the steps."
    )


def tables_of(audit: Audit) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Return title -> heads and rows of what was found, each ranked."""
    tables = {}
    if audit.moves:
        rows = [
            [one.group.replace("_", " "), one.phrase, f"{one.before:.2f}", f"{one.after:.2f}"]
            for one in audit.moves[:ROWS]
        ]
        tables["What comes with it"] = ["kind", "phrase", "before", "after"], rows
        rows = [[name.replace("_", " "), f"{share:.0%}"] for name, share in audit.changed.items()]
        tables["How often it changes"] = ["kind", "pictures"], rows
    rows = [
        [one.word, f"{one.effect:.3f}", f"{one.effect / max(audit.still, 1e-9):.2f}"]
        for one in audit.words[:ROWS]
    ]
    heads = ["word", "effect", "times that of no word"]
    tables["Words it reacts to though nobody asks"] = heads, rows
    rows = [[name, f"{share:.0%}"] for name, share in audit.blocks.items()]
    tables["Blocks that carry the effect"] = ["block", "share"], rows
    return tables


def meetings_table(meetings: Sequence[Meeting]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of how adapters meet in pairs."""
    heads = ["two adapters", "cosine of updates", "they read alike", "words that both react to"]
    rows = [
        [
            f"{one.first}, {one.second}",
            f"{one.overlap.cosine:+.2f}",
            f"{one.overlap.reads:.0%}",
            ", ".join(one.words) or "none",
        ]
        for one in meetings
    ]
    return heads, rows


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{text(head)}</th>" for head in heads)
    rows = "".join(
        f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in line)}</tr>" for line in lines
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table>"
