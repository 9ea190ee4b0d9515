"""A grid varies what was asked for, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.adapters.module import Adapter, Module
from spf_lora.draw.grid import Cell, lines_of, parse_axes
from spf_lora.draw.sheet import Row, lay_out
from spf_lora.errors import PromptError, RegistryError

HAT = Path("hat.safetensors")


@pytest.fixture
def named(in_a_clone):
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    for file in ("beard", "hat"):
        one = Module(name, np.ones((1, 2)), np.ones((2, 1)), 1.0)
        write_adapter(Adapter({name: one}), Path(f"adapters/{file}.safetensors"))


def test_the_first_axis_is_columns_and_the_second_rows(named):
    cell = Cell("", 5, ((HAT, 1.0),), steps=7)
    axes = parse_axes(["strength=0,0.5,1", "adapter=beard:2,hat,none"])
    lines = lines_of(["a man"], cell, 1, axes)
    assert [line.title for line in lines] == ["beard:2", "hat", "none"]
    assert axes[0].titles() == ("strength 0", "strength 0.5", "strength 1")
    first = [tuple((path.stem, s) for path, s in c.adapters) for c in lines[0].cells]
    assert first == [(("beard", 0.0),), (("beard", 0.5),), (("beard", 1.0),)]
    assert [c.adapters for c in lines[2].cells] == [(), (), ()]
    assert {(c.seed, c.steps, c.prompt) for line in lines for c in line.cells} == {(5, 7, "a man")}


def test_every_axis_changes_its_own_thing():
    axes = parse_axes(["seed=1,2"]), parse_axes(["guidance=2"]), parse_axes(["sampler=euler"])
    axes += parse_axes(["steps=3"]), parse_axes(["start=0.4"])
    changed = [lines_of(["x"], Cell("", 0), 1, axis)[0].cells[-1] for axis in axes]
    assert [c.seed for c in changed] == [2, 0, 0, 0, 0]
    assert [c.guidance for c in changed] == [3, 2, 3, 3, 3]
    assert [c.sampler for c in changed] == ["ddim", "ddim", "euler", "ddim", "ddim"]
    assert [c.steps for c in changed] == [25, 25, 25, 3, 25]
    assert [c.start for c in changed] == ["0", "0", "0", "0", "0.4"]


def test_without_axes_eight_stand_side_by_side():
    lines = lines_of(["x"], Cell("", 3), 10)
    assert [len(line.cells) for line in lines] == [8, 2]
    assert [c.seed for line in lines for c in line.cells] == list(range(3, 13))
    assert {line.title for line in lines} == {""}


def test_each_of_several_prompts_has_its_own_rows_and_title():
    lines = lines_of(["a man", "a woman"], Cell("", 3), 2)
    assert [(line.title, line.cells[0].prompt) for line in lines] == [
        ("a man", "a man"),
        ("a woman", "a woman"),
    ]


def test_the_bases_pictures_stand_above_from_the_same_noise():
    lines = lines_of(["x"], Cell("", 3, ((HAT, 0.5),)), 2, compare=True)
    assert [line.title for line in lines] == ["base", "with hat 0.5"]
    assert [c.adapters for c in lines[0].cells] == [(), ()]
    assert [c.seed for c in lines[0].cells] == [c.seed for c in lines[1].cells]
    kept, below = lines_of(["x"], Cell("", 3, ((HAT, 0.5),)), 2, compare=True, local=True)
    assert (kept.title, below.title) == ("base, without the words", "with hat 0.5, drawn locally")
    assert {(c.adapters, c.unasked) for c in kept.cells} == {((), (HAT,))}


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (["strength"], "cannot be read"),
        (["strength="], "cannot be read"),
        (["stength=1"], "cannot vary 'stength'; did you mean strength"),
        (["strength=much"], "strength 'much' is no number from -4 to 4"),
        (["strength=9"], "is no number from -4 to 4"),
        (["seed=1.5"], "is no whole number"),
        (["sampler=eular"], "no sampler"),
        (["seed=1", "seed=2"], "two different things"),
        (["seed=1", "steps=2", "guidance=3"], "two different things"),
    ],
)
def test_what_cannot_be_varied_is_refused(axes, said):
    with pytest.raises(PromptError, match=said):
        parse_axes(axes)


def test_an_unknown_adapter_in_a_grid_is_refused(in_a_clone):
    with pytest.raises(RegistryError, match="nobody"):
        parse_axes(["adapter=nobody"])


def test_small_pictures_are_enlarged_pixel_by_pixel():
    picture = Image.effect_noise((8, 8), 100).convert("RGB")
    plain = lay_out([Row([picture, picture])])
    assert plain.crop((8, 16, 16, 24)).tobytes() == picture.tobytes()
    large = lay_out([Row([picture] * 3, "a title", "a note", "bad")], columns=["a"], least_px=200)
    assert large.width >= 200
    colours = {pixel for _, pixel in picture.getcolors(1 << 16)}
    seen = {pixel for _, pixel in large.getcolors(1 << 20)}
    assert colours <= seen


def test_a_long_title_is_broken_and_then_cut():
    picture = Image.new("RGB", (64, 64))
    one, many = (lay_out([Row([picture], "word " * n)], least_px=100) for n in (1, 60))
    assert one.width == many.width
    assert one.height < many.height < one.height + 60


def test_no_words_leave_a_sheet_at_its_right_edge():
    picture = Image.new("RGB", (64, 64), "white")
    for letters in range(1, 60):
        row = Row([picture], " ".join(["ab", "i" * letters, "ab cd"]), "", "good")
        sheet = lay_out([row], columns=("one",), least_px=64)
        edge = sheet.crop((sheet.width - 2, 0, sheet.width, sheet.height))
        assert edge.getextrema() == ((255, 255),) * 3, letters
