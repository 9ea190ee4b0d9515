"""What a page asks for is drawn as the command line draws it, or refused in a sentence."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_base import noisy_adapter

from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.module import Adapter
from spf_lora.draw.infotext import parse
from spf_lora.errors import PromptError, RegistryError, SpfError
from spf_lora.studio.drawing import Asked, Chosen, Desk

PROMPT = "a man, a hat"
HASTY = {"steps": 2, "count": 2}


@pytest.fixture(scope="module")
def factors(tiny_folder):
    return noisy_adapter(tiny_folder)


@pytest.fixture
def desk(tiny, tiny_folder, factors, shelf):
    """A desk with the tiny base, and the adapters "hat" and "scarf" in ./adapters."""
    Path("adapters").mkdir()
    for name in ("hat", "scarf"):
        said = file_metadata(Card(name, name, f"a {name}", tiny.id), rank=2, alpha=2.0, title=name)
        write_adapter(Adapter(factors.modules, said), Path(f"adapters/{name}.safetensors"))
    write_adapter(Adapter(factors.modules, {}), Path("adapters/wordless.safetensors"))
    return Desk(str(tiny_folder))


HAT = (Chosen("hat"),)


def asked(prompt=PROMPT, adapters=HAT, **how):
    return Asked(prompt=prompt, adapters=adapters, **(HASTY | how))


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def read_sheet(path):
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize(
    "adapters",
    [(Chosen("hat"),), (Chosen("hat", -0.5), Chosen("scarf", 1.0, 0.6))],
    ids=["one", "two that begin apart"],
)
def test_its_commands_draw_the_same_pictures(desk, cli, adapters):
    drawn = desk.draw(asked("a man, a hat, a scarf", adapters), "page")
    for column, row in (("plain", drawn.pictures.plain), ("local", drawn.pictures.local)):
        # what compares is enlarged
        words = [one for one in shlex.split(drawn.commands[column])[1:] if one != "--compare"]
        code, path, talk = cli(*words)
        assert code == 0, talk
        sheet = read_sheet(path.strip())
        for picture in row:
            pixels = np.asarray(picture)
            assert _holds(sheet, pixels), column


def _holds(sheet, pixels):
    """Tell whether a sheet shows a picture somewhere."""
    high, wide = pixels.shape[:2]
    corners = np.argwhere((sheet == pixels[0, 0]).all(-1))
    return any(np.array_equal(sheet[y : y + high, x : x + wide], pixels) for y, x in corners)


def test_the_bases_pictures_are_drawn_once_and_the_second_row_is_the_same(desk):
    calls = []
    first = desk.draw(asked(), "page", lambda done, total: calls.append(total))
    again = desk.draw(asked(), "page", lambda done, total: calls.append(-total))
    assert same(first.pictures.local, again.pictures.local)
    assert same(first.pictures.plain, again.pictures.plain)
    assert same(first.pictures.base, again.pictures.base)
    # 5 passes of 2 steps, then all but the base's own; the total is told right
    assert calls == [10] * 10 + [-8] * 8


def test_two_adapters_are_looked_for_one_by_one_and_progress_is_told_right(desk):
    calls = []
    both = asked("a man, a hat, a scarf", (Chosen("hat"), Chosen("scarf", 0.5)))
    drawn = desk.draw(both, "page", lambda done, total: calls.append((done, total)))
    assert len(drawn.pictures.local) == 2
    assert calls[-1][0] + 1 == calls[-1][1] == len(calls)


def test_without_adapters_there_is_the_bases_picture_alone(desk):
    drawn = desk.draw(asked(adapters=()), "page")
    assert same(drawn.pictures.plain, drawn.pictures.base)
    assert not drawn.pictures.local


def test_an_adapter_without_words_is_not_drawn_locally_and_that_is_said(desk):
    drawn = desk.draw(asked(adapters=(Chosen("wordless"),)), "page")
    assert not drawn.pictures.local
    assert "does not say which words" in drawn.remarks[0]
    assert set(drawn.commands) == {"plain"}


def test_where_nobody_asks_the_local_picture_is_the_bases_and_that_is_said(desk):
    drawn = desk.draw(asked("a man"), "page")
    assert same(drawn.pictures.local, drawn.pictures.base)
    assert "asks for no adapter" in drawn.remarks[0]


def test_each_picture_says_how_it_was_drawn(desk):
    drawn = desk.draw(asked(adapters=(Chosen("hat", start=0.5),)), "page")
    told = parse(drawn.parameters["local"][1])
    assert told.prompt == PROMPT
    assert told.adapters == (("hat", 1.0),)
    assert told.settings["Seed"] == "2"
    assert told.settings["Runtime"] == "local"
    assert told.settings["Start percent"] == "0.5"
    assert parse(drawn.parameters["base"][0]).prompt == "a man"


def test_a_cancelled_drawing_ends_at_the_next_step_and_leaves_the_base_as_it_was(desk):
    before = [p.clone() for p in desk.base.unet.parameters()]

    def tell(done, total):
        if done == 7:  # the adapter is on
            desk.cancel("page")

    with pytest.raises(SpfError, match="cancelled"):
        desk.draw(asked(), "page", tell)
    assert all(torch.equal(a, b) for a, b in zip(before, desk.base.unet.parameters(), strict=True))
    assert desk.draw(asked(), "page").pictures.local  # and the next one is not cancelled


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "a" * 100_000}, "100000 characters"),
        ({"prompt": "\ud800"}, "no text"),
        ({"count": 1000}, "count is 1000"),
        ({"seed": -1}, "seed is -1"),
        ({"steps": 10**9}, "steps is"),
        ({"adapters": (Chosen("hat", start=float("nan")),)}, "start is nan"),
        ({"adapters": (Chosen("hat", 9.0),)}, "strength is 9"),
    ],
)
def test_what_no_page_sends_is_refused_before_anything_is_loaded(change, sentence):
    with pytest.raises(PromptError, match=sentence):
        Desk("nowhere").draw(asked(**change), "page")


@pytest.mark.parametrize("name", ["../hat", "/etc/passwd", "adapters/hat.safetensors", "<b>", ""])
def test_a_name_is_never_a_path(desk, name):
    with pytest.raises(RegistryError, match=r"is no name|no adapter"):
        desk.draw(asked(adapters=(Chosen(name),)), "page")
