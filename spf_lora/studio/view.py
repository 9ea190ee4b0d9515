"""What the page shows, as HTML: all text goes through `escape`, and pictures are data URIs."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from spf_lora.adapters.check.facts import AdapterFacts
from spf_lora.draw.parameters import png
from spf_lora.errors import SpfError
from spf_lora.studio.drawing import Drawn
from spf_lora.studio.jobs import Job, State

TITLES = {
    "base": "Base",
    "plain": "Adapter, as any app draws it",
    "local": "Adapter, drawn locally",
}
_MOST_ROWS = 60
# gradio reads its HTML as a template too
_TEMPLATE_SIGNS = {ord(sign): f"&#{ord(sign)};" for sign in "{}$`"}


def escape(text: str) -> str:
    """Return a text that is nothing but text, in HTML and in a template."""
    return html.escape(text).translate(_TEMPLATE_SIGNS)


def head(base: str) -> str:
    """Return the page's title."""
    return f'<header class="spf-head"><h1>spf-lora studio</h1>{note(f"base: {base}")}</header>'


def error(fault: SpfError) -> str:
    """Return a refusal with its hint."""
    hint = f" <span>{escape(fault.hint)}</span>" if fault.hint else ""
    return f'<div class="spf-error" role="alert"><b>{escape(fault.message)}</b>{hint}</div>'


def note(text: str) -> str:
    """Return a quiet sentence."""
    return f'<p class="spf-note">{escape(text)}</p>' if text else ""


def data_uri(picture: Image.Image, text: str = "") -> str:
    """Return a picture as an address that needs no server."""
    return f"data:image/png;base64,{base64.b64encode(png(picture, text)).decode()}"


def row(drawn: Drawn) -> str:
    """Return the pictures of a row: a line for each seed, a column for each way, and a slider."""
    pictures = drawn.pictures
    columns = {"base": pictures.base, "plain": pictures.plain, "local": pictures.local}
    shown = {name: many for name, many in columns.items() if name in drawn.parameters and many}
    if not drawn.asked.adapters:
        shown = {"base": pictures.base}
    lines = []
    for at, seed in enumerate(drawn.asked.seeds):
        uris = {
            name: data_uri(many[at], drawn.parameters[name][at]) for name, many in shown.items()
        }
        cells = [_cell(drawn, name, at, seed, uri) for name, uri in uris.items()]
        if "plain" in uris:
            cells.append(_before_after(uris["base"], uris.get("local", uris["plain"]), seed))
        lines.append(f'<div class="spf-line">{"".join(cells)}</div>{_parameters(drawn, at, seed)}')
    remarks = "".join(map(note, drawn.remarks))
    told = f"{drawn.asked.count} seeds in {drawn.seconds:.1f} s. Base: {drawn.within}"
    return f'<div class="spf-row">{remarks}{"".join(lines)}{note(told)}</div>'


def _cell(drawn: Drawn, name: str, at: int, seed: int, uri: str) -> str:
    look = drawn.looks.get(name)
    said = f"pollution {look.pollution[at]:.2f}" if look else ""
    overlay, hint = "", ""
    if name == "local":
        overlay = f'<img class="spf-map" src="{data_uri(drawn.pictures.maps[at])}" alt="">'
        hint = ' tabindex="0" aria-description="focus or hover shows the control map"'
    title = escape(TITLES[name])
    return (
        f'<figure class="spf-cell"{hint}><div class="spf-frame"><img src="{uri}" '
        f'alt="{title}, seed {seed}">{overlay}</div><figcaption><b>{title}</b>'
        f"<span>seed {seed}{f', {said}' if said else ''}</span>"
        f'<a download="{name}-{seed}.png" href="{uri}">save PNG</a></figcaption></figure>'
    )


def _before_after(before: str, after: str, seed: int) -> str:
    """Return two pictures with a slider that moves the border between them."""
    return (
        '<figure class="spf-cell"><div class="spf-frame spf-cut">'
        f'<img src="{before}" alt="before, seed {seed}">'
        f'<img class="spf-after" src="{after}" alt="after, seed {seed}"></div><figcaption>'
        '<b>Before and after</b><input type="range" min="0" max="100" value="50" '
        f'aria-label="border between before and after, seed {seed}" '
        "oninput=\"this.closest('figure').style.setProperty('--cut', this.value + '%')\">"
        "</figcaption></figure>"
    )


def _parameters(drawn: Drawn, at: int, seed: int) -> str:
    texts = "".join(
        f"<b>{escape(TITLES[name])}</b><pre>{escape(texts[at])}</pre>"
        for name, texts in drawn.parameters.items()
    )
    return f"<details><summary>parameters of seed {seed}</summary>{texts}</details>"


def measured(drawn: Drawn | None) -> str:
    """Return the live pollution of what is on screen, and what moved in words."""
    if drawn is None:
        return note("Draw something in Try first: its pictures are measured here.")
    if not drawn.looks:
        return note(drawn.unjudged)
    heads = ["seed"]
    for name in drawn.looks:
        heads += [f"{TITLES[name]}: pollution", "what moved"]
    rows = []
    for at, seed in enumerate(drawn.asked.seeds):
        cells = [str(seed)]
        for look in drawn.looks.values():
            cells += [f"{look.pollution[at]:.2f}", ", ".join(look.words[at]) or "nothing"]
        rows.append(cells)
    total = [f"mean, n = {len(rows)}"]
    for look in drawn.looks.values():
        total += [f"{look.mean:.2f}", ""]
    return (
        note(drawn.asked.prompt)
        + table(heads, [*rows, total])
        + note(
            "Pollution: 0 is the base's picture, 1 as far from it as the next seed of the row. "
            f"{len(rows)} pictures are a first look, not a claim; the full report has intervals."
        )
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; wide ones scroll by themselves."""
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in rows
    )
    return (
        f'<div class="spf-scroll" tabindex="0"><table class="spf-table"><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def matrix(names: Sequence[str], cells: Sequence[Sequence[float]]) -> str:
    """Return a stack's cross-talk, whose cells are buttons; a click names the cell, as "0,1".

    Args:
        names: of the rows and columns.
        cells: [i][j], how much more of i there is when j is asked for, about in [-1, 1].
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = []
    for i, name in enumerate(names):
        buttons = "".join(
            f'<td><button type="button" data-cell="{i},{j}" class="{"own" if i == j else "other"}" '
            f'style="--heat:{min(1, abs(v)):.2f}" '
            f'aria-label="{escape(name)} when {escape(names[j])} is asked for: {v:.2f}">{v:+.2f}'
            "</button></td>"
            for j, v in enumerate(round(v, 2) + 0.0 for v in cells[i])  # no -0.00
        )
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{buttons}</tr>')
    return (
        '<div class="spf-scroll"><table class="spf-table spf-matrix"><caption>How much more there '
        "is of a row's attribute when a column's is asked for, of 1. Green: what is asked for, the "
        "more the better. Red: what is not, 0 is best.</caption><thead><tr><td></td>"
        f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def page(document: str, title: str) -> str:
    """Return a whole HTML document of ours in a frame that runs no script."""
    return (
        f'<iframe class="spf-page" sandbox="" title="{escape(title)}" '
        f'srcdoc="{escape(document)}"></iframe>'
    )


def picture(image: Image.Image, alt: str) -> str:
    """Return one large picture, such as a sheet."""
    return f'<img class="spf-sheet" src="{data_uri(image)}" alt="{escape(alt)}">'


def pre(text: str) -> str:
    """Return a text as it is."""
    return f'<pre class="spf-pre">{escape(text)}</pre>'


def folder_report(report: Mapping[str, Any], thumbnails: Mapping[str, str]) -> str:
    """Return the data check of a folder.

    Args:
        report: what `data check --json` prints.
        thumbnails: file -> data URI, of the pictures with faults.
    """
    head = f"{report['pictures']} pictures, {report['usable']} to train on"
    parts = [f"<h3>{escape(head)}</h3>"]
    faults = report["faults"][:_MOST_ROWS]
    if faults:
        items = "".join(
            f"<li>{_thumbnail(thumbnails.get(one['file'], ''), one['file'])}"
            f"<span><b>{escape(one['file'])}</b> {escape(one['text'])}</span></li>"
            for one in faults
        )
        parts.append(f'<h4>Faults: training would stop</h4><ul class="spf-faults">{items}</ul>')
    parts += [note(str(text)) for text in report["notes"]]
    rows = [
        [
            str(one["words"]),
            f"{one['count']}/{one['captions']}",
            f"{one['share']:.0%}",
            "-" if one["expected"] is None else f"{one['expected']:.0%}",
            "-" if one["lift"] is None else f"{one['lift']:.1f}",
        ]
        for one in report["companions"][:12]
    ]
    if rows:
        parts.append("<h4>Beside the attribute: bias</h4>")
        parts.append(table(("words", "captions", "share", "expected", "lift"), rows))
    return "".join(parts)


def _thumbnail(uri: str, file: str) -> str:
    return f'<img src="{uri}" alt="{escape(file)}">' if uri else '<span class="spf-none"></span>'


def facts(found: AdapterFacts) -> str:
    """Return what a file is."""
    card = found.card
    rows = [
        ("layout", found.layout),
        ("base family", found.family),
        ("modules", str(sum(found.components.values()))),
        ("ranks", ", ".join(map(str, found.ranks))),
        ("size", f"{found.size / 1e6:.1f} MB"),
        ("asked for by", card.target_text if card else "the file does not say"),
        ("read whole by", ", ".join(one.app for one in found.apps if one.whole) or "no app"),
    ]
    return table(("file", found.path.name), rows)


def losses(stages: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Return the losses of each stage as a line."""
    return "".join(_curve(name, points) for name, points in stages.items() if len(points) > 1)


def _curve(name: str, points: Sequence[tuple[int, float]]) -> str:
    first, last = points[0][0], points[-1][0]
    top = max(loss for _, loss in points) or 1.0
    line = " ".join(
        f"{300 * (step - first) / max(1, last - first):.1f},{60 - 56 * loss / top:.1f}"
        for step, loss in points
    )
    label = f"{name}: loss {points[-1][1]:.4f} at step {last}"
    return (
        f'<figure class="spf-curve"><svg viewBox="0 0 300 62" role="img" '
        f'aria-label="{escape(label)}" preserveAspectRatio="none"><polyline points="{line}"/></svg>'
        f"<figcaption>{escape(label)}</figcaption></figure>"
    )


def job(one: Job) -> str:
    """Return how far a job is: its state, a bar and the end of what it told."""
    state = one.state()
    progress = one.progress() if state == "running" else None
    parts = [f'<div class="spf-job"><b>{escape(one.title)}</b> {badge(state)}']
    if progress:
        what, done, total = progress
        parts.append(
            f'<progress max="{total}" value="{done}" aria-label="{escape(what)}"></progress>'
        )
    parts.append(losses(one.losses()))
    parts.append(f'<pre class="spf-log">{escape(chr(10).join(one.lines()[-8:]))}</pre></div>')
    return "".join(parts)


def badge(state: State) -> str:
    """Return a state as a word that is coloured too."""
    return f'<span class="spf-badge spf-{state}">{state}</span>'


def queue(many: Sequence[tuple[Job, State]]) -> str:
    """Return the last jobs, the newest first."""
    if not many:
        return note("No job yet. One runs at a time, the others wait; all outlive this page.")
    rows = "".join(
        f"<tr><td>{escape(one.title)}</td><td>{escape(one.kind)}</td><td>{badge(state)}</td></tr>"
        for one, state in reversed(many[-20:])
    )
    return (
        '<div class="spf-scroll"><table class="spf-table"><thead><tr><th scope="col">job</th>'
        f'<th scope="col">command</th><th scope="col">state</th></tr></thead><tbody>{rows}'
        "</tbody></table></div>"
    )
