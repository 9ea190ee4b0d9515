"""A training ends with a verdict in one line and three commands that can be typed."""

import shlex
from pathlib import Path

import pytest
from PIL import Image

from spf_lora.cli.verdict import next_commands, verdict
from spf_lora.evaluate.preview import Preview, Verdict
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe

GOOD, MISSING, CHANGED = Verdict(False, ()), Verdict(True, ()), Verdict(False, ("skin",))
PROMPTS = ("a person's portrait, a beard",)


def beard(*changes):
    return load_recipe(find_recipe("beard"), list(changes))


def said(*verdicts):
    preview = Preview(Image.new("RGB", (1, 1)), PROMPTS, verdicts)
    return verdict(preview, beard(), Path("beard.png"))


@pytest.mark.parametrize(
    ("verdicts", "start", "end"),
    [
        ([GOOD] * 5 + [CHANGED], "good: a beard in 6 of 6 pictures, nothing", "changed in 5"),
        ([GOOD] * 5 + [MISSING], "good: a beard in 5 of 6 pictures, nothing", "changed in 6"),
        ([GOOD] * 3 + [MISSING] * 3, "weak: a beard in 3 of 6", "look at the data's captions"),
        ([GOOD] * 2 + [CHANGED] * 4, "polluted: a beard in 6", "a lower strength changes less"),
    ],
)
def test_a_verdict_says_how_it_is_and_what_to_do(verdicts, start, end):
    line = said(*verdicts)
    assert line.startswith(f"verdict: {start}")
    assert line.endswith(end)
    assert ("skin in most others" in line) == ("polluted" in line)


def test_where_nobody_judges_the_reader_is_asked_to_look():
    assert said() == (
        "verdict: nobody judged beard.png; look at it: only 'a beard' should be new in a row"
    )


@pytest.mark.parametrize(
    ("target", "data", "changes"),
    [
        ("adapters/beard.safetensors", None, ()),
        ("my work/b.safetensors", Path("my photos"), ("training.base=some/base",)),
    ],
)
def test_the_next_commands_are_known_with_all_their_options(target, data, changes):
    import typer

    from spf_lora.cli.app import app

    preview = Preview(Image.new("RGB", (1, 1)), PROMPTS, ())
    for line in next_commands(preview, beard(*changes), Path(target), data):
        program, *words = shlex.split(line)
        assert program == "spf-lora"
        command = typer.main.get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context("spf-lora", words).close()  # parses, runs nothing
        added = "adapters add" in line
        assert ("my photos" in line) == (data is not None and "evaluate" in line)
        assert ("--base some/base" in line) == (bool(changes) and not added)
