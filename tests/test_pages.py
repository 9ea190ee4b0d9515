"""What a page names is there: links, headings, files, folders and tests."""

import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer
from root import ROOT

from spf_lora.cli.app import app

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("adapters/**/README.md")])
PAGES.remove(ROOT / "CHANGELOG.md")  # it speaks of what was
# a short name is meant within one of these
WITHIN = ("", "spf_lora/", "tests/", "benchmarks/", "docs/")
FOLDERS = ("spf_lora", "tests", "benchmarks", "docs", "scripts", "recipes", "adapters")
THERE = [
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in [ROOT / folder, *(ROOT / folder).rglob("*")]
] + [path.name for path in ROOT.glob("*.*")]
OTHERS = {"merge_lora.py", "svd_merge_lora.py"}  # sd-scripts'
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
SOURCE = re.compile(
    r"[\w./*-]+\.(?:py|md)|(?:[\w-]+/)*results/[\w./*-]+\.json|recipes/[\w./-]+\.toml"
)
FOLDER = re.compile(r"(?:spf_lora|tests|benchmarks|scripts|docs|recipes)(?:/[\w-]+)*/?")


def text_of(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.+)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def is_there(name: str) -> bool:
    """Tell whether a path or a pattern names one of our files; a bare name may be anywhere."""
    patterns = [folder + name for folder in WITHIN] if "/" in name else [name, f"*/{name}"]
    return any(fnmatch(path, pattern) for path in THERE for pattern in patterns)


def broken_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(text_of(page)):
        name, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


def absent(page: Path) -> Iterator[str]:
    """Yield every file and folder of ours that a page names in code and that is not there."""
    for code in CODE.findall(text_of(page)):
        for word in set(code.split()) - OTHERS:
            ours = (SOURCE.fullmatch(word) or FOLDER.fullmatch(word)) and "NAME" not in word
            if ours and not is_there(word.rstrip("/")):
                yield word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_files_and_folders_of_a_page_are_there(page: Path) -> None:
    assert not [*broken_links(page)]
    assert not [*absent(page)]


def test_every_test_that_a_page_names_is_there() -> None:
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", text_of(page))}
    assert len(named) > 5
    assert not {name for name in named if f"def {name}(" not in tests}


def test_a_page_is_linked_from_the_readme() -> None:
    links = set(LINK.findall(text_of(ROOT / "README.md")))
    assert not {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - links


def test_the_readme_fits_on_120_lines() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120


def commands(page: Path) -> list[list[str]]:
    """Return the words of every `spf-lora` command in a page's blocks of code."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [shlex.split(one, comments=True)[1:] for one in parts if one.startswith("spf-lora ")]


@pytest.mark.parametrize(
    ("page", "words"),
    [(page, words) for page in PAGES for words in commands(page)],
    ids=lambda of: of.stem if isinstance(of, Path) else " ".join(of[:2]),
)
def test_a_page_writes_every_command_as_it_is_read(page: Path, words: list[str]) -> None:
    """The words are read, options and kinds of values too; nothing runs."""
    command = typer.main.get_command(app)
    while subcommands := getattr(command, "commands", None):
        command, words = subcommands[words[0]], words[1:]
    command.make_context(command.name, [*words])


def test_a_broken_link_and_an_absent_file_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# Here\n[x](#here) [y](#there) [z](b.md) `spf_lora/no.py` `draw/sample.py`\n")
    assert [*broken_links(page)] == ["#there", "b.md"]
    assert [*absent(page)] == ["spf_lora/no.py"]
