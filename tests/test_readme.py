"""Every command of the README and of the page on drawing runs, in its order, in an empty clone."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from root import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_draws")]
README, DRAWING = ROOT / "README.md", ROOT / "docs" / "drawing.md"
# A reader has minutes where a test has seconds.
FEWER = {
    "train": ["--steps", "2", "--set", "data.count=4", "--set", "data.batch_size=2"],
    "generate": ["--steps", "1"],
    "evaluate": ["--steps", "1", "--seeds", "1", "--strengths", "0,1"],
    "compare": ["--steps", "1", "--seeds", "1", "--strengths", "0,1"],
    "portraits": ["--count", "16"],
}


def commands(page: Path) -> list[list[str]]:
    """Return the words of every command in a block of code, comments left out."""
    blocks = re.findall(r"^```\n(.*?)^```", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in re.split(r"&&|;", line)]
    return [shlex.split(part, comments=True)[1:] for part in parts if part.startswith("spf-lora ")]


def add_photographs(folder: Path) -> None:
    """Write pictures as a reader has them, with captions."""
    folder.mkdir()
    for number in range(16):
        rng = np.random.default_rng(number)
        values = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(values).resize((320, 320)).save(folder / f"{number:02}.jpg")
        hair, shirt = rng.choice(["brown", "black", "red"]), rng.choice(["blue", "white"])
        text = f"a portrait of a man, {hair} hair, a {shirt} shirt, a grey wall, a beard"
        (folder / f"{number:02}.txt").write_text(text)


def fewer(words: list[str], base: Path) -> list[str]:
    """Return what makes a command short; what is for SD1.5 runs on a small random base."""
    more = FEWER.get(words[0], [])
    if words[0] == "train" and any(word.startswith("sd15/") for word in words):
        return [*more, "--base", str(base), "--resolution", "64"]
    return more


@pytest.mark.parametrize("page", [README, DRAWING], ids=lambda page: page.stem)
def test_every_command_of_a_page_runs_in_its_order(
    page, cli, tiny_folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "adapters" / "demo", tmp_path / "adapters" / "demo")
    add_photographs(tmp_path / "photos")
    failed = []
    for words in commands(page):
        code, said, talk = cli(*words, *fewer(words, tiny_folder))
        if code:
            failed.append(f"spf-lora {shlex.join(words)}: {talk[-300:] or said[-300:]}")
    assert not failed, "\n".join(failed)


def test_the_readme_trains_draws_measures_merges_and_stacks() -> None:
    words = {words[0] for words in commands(README)}
    assert {"train", "generate", "evaluate", "merge", "stack"} <= words


def test_what_the_commands_leave_behind_is_ignored_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text("utf-8").split()
    assert {"/out/", "/adapters/*.safetensors", "/adapters/*.png"} <= set(ignored)
