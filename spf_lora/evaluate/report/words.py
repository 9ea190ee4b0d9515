"""The glossary in a report: each term leads to its line in the page, which reaches nowhere else.

The words are those of docs/glossary.md, which travels in the wheel.
"""

import re
from functools import lru_cache
from html import escape

from spf_lora.shipped import shipped_folder

_LINK = re.compile(r"\[([^\]]+)\]\(#([\w-]+)\)")
_CODE = re.compile(r"`([^`]+)`")


@lru_cache
def glossary() -> dict[str, tuple[str, str]]:
    """Return anchor -> term and what it means, as HTML."""
    text = (shipped_folder("docs") / "glossary.md").read_text("utf-8")
    terms = {}
    for part in text.split("\n## ")[1:]:
        term, _, meaning = part.partition("\n")
        terms[anchor(term)] = (term.strip(), _html(meaning.strip()))
    return terms


def anchor(term: str) -> str:
    """Return what a heading is linked by, in a page and on GitHub."""
    return re.sub(r"[^\w-]", "", term.strip().lower().replace(" ", "-"))


def linked(label: str, term: str) -> str:
    """Return a label that leads to its term."""
    where = anchor(term)
    assert where in glossary(), f"{term} is not in docs/glossary.md"
    return f'<a class="term" href="#{where}">{escape(label)}</a>'


def words_section() -> str:
    """Return the whole glossary, folded; a link into it unfolds it."""
    lines = "".join(
        f'<dt id="{where}">{escape(term)}</dt><dd>{meaning}</dd>'
        for where, (term, meaning) in glossary().items()
    )
    folded = f'<details class="words"><summary>Words</summary><dl>{lines}</dl></details>'
    return f"<section>{folded}</section>"


def _html(text: str) -> str:
    """Return a glossary's paragraphs: plain text, code and links to other terms."""
    flat = escape(" ".join(text.split()))
    flat = _LINK.sub(r'<a class="term" href="#\2">\1</a>', flat)
    return _CODE.sub(r"<code>\1</code>", flat)
