"""The picture beside an adapter says in words what each row shows, and which one failed."""

from dataclasses import replace

import pytest
import torch
from made_evaluations import random_adapter

from spf_lora.adapters.attach import attach_trainable
from spf_lora.draw.act import acting
from spf_lora.evaluate import preview
from spf_lora.evaluate.preview import Verdict, draw_preview
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe


class Judge:
    """Sees the attribute in the first three pictures, and another background in the second."""

    def belief(self, pixels):
        return (torch.arange(len(pixels)) < 3).float()

    def changes(self, after, before, *, asked):
        assert asked
        return {"background": (torch.arange(len(after)) == 1).float()}


@pytest.fixture
def tiny(tiny):
    """The tiny base, as one that draws the portrait world."""
    return replace(tiny, world="portraits")


def drawn(tiny, monkeypatch, **how):
    monkeypatch.setattr(preview, "_judge", lambda base, recipe: Judge())
    recipe = load_recipe(find_recipe("beard"))
    return draw_preview(tiny, recipe, [], acting=acting(random_adapter(tiny.unet)), steps=1, **how)


def test_rows_are_marked_by_the_judge(tiny, monkeypatch):
    found = drawn(tiny, monkeypatch)
    assert len(found.prompts) == 6
    assert all("a beard" in prompt for prompt in found.prompts)
    assert found.verdicts[0] == Verdict(False, ())
    assert found.verdicts[1] == Verdict(False, ("background",))
    assert found.verdicts[3] == Verdict(True, ())
    assert found.picture.width >= 800
    red = found.picture.getpixel((2, found.picture.height - 20))
    assert red[0] > 150 > red[1]  # the last row failed: it has a frame


def test_an_attached_adapter_is_taken_off_for_the_bases_pictures(tiny, monkeypatch):
    monkeypatch.setattr(preview, "_judge", lambda base, recipe: None)
    seen = []
    plain = preview.lay_out
    monkeypatch.setattr(
        preview, "lay_out", lambda rows, **how: seen.append(rows) or plain(rows, **how)
    )
    attach_trainable(tiny.unet, preset="cross", rank=2, alpha=2.0, seed=0)
    recipe = load_recipe(find_recipe("beard"))
    assert draw_preview(tiny, recipe, [], steps=1).verdicts == ()
    assert all(not row.note for row in seen[0])
    assert [len(row.pictures) for row in seen[0]] == [3] * 6


def test_pictures_are_as_large_as_those_that_were_trained_on(tiny, monkeypatch):
    monkeypatch.setattr(preview, "_judge", lambda base, recipe: None)
    seen = []
    plain = preview.lay_out
    monkeypatch.setattr(
        preview, "lay_out", lambda rows, **how: seen.extend(rows) or plain(rows, **how)
    )
    larger = 2 * tiny.resolution
    recipe = load_recipe(find_recipe("beard"), [f"data.resolution={larger}"])
    draw_preview(tiny, recipe, [], acting=acting(random_adapter(tiny.unet)), steps=1)
    assert {picture.size for row in seen for picture in row.pictures} == {(larger, larger)}


def test_the_people_are_of_the_world_that_the_base_draws(tiny, monkeypatch):
    monkeypatch.setattr(preview, "_judge", lambda base, recipe: None)
    recipe, adapter = load_recipe(find_recipe("beard")), acting(random_adapter(tiny.unet))
    second = replace(tiny, world="personas")
    named = {
        base.world: " ".join(draw_preview(base, recipe, [], acting=adapter, steps=1).prompts)
        for base in (tiny, second)
    }
    assert "brows" in named["portraits"]
    assert "brows" not in named["personas"]
