"""How many steps each stage has, and what they will hold."""

import pytest

from spf_lora.errors import RecipeError
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.recipe.steps import as_slider, with_steps
from spf_lora.training.fit_gpu import base_configs, needs_of


def recipe(*changes):
    return load_recipe(find_recipe("hat"), ["learn.steps=100", "distil.steps=300", *changes])


def shared(steps, *changes):
    return with_steps(recipe(*changes), steps)


def test_the_stages_share_steps_as_the_recipe_does_and_each_has_one():
    assert shared(40) == ("learn.steps=10", "distil.steps=30")
    assert shared(2) == ("learn.steps=1", "distil.steps=1")
    assert shared(3, "learn.steps=10000") == ("learn.steps=2", "distil.steps=1")


@pytest.mark.parametrize("change", ["training.method=plain", "distil.steps=0"])
def test_a_stage_that_is_alone_has_all(change):
    assert shared(40, change) == ("learn.steps=40",)
    assert shared(1, change) == ("learn.steps=1",)
    with pytest.raises(RecipeError, match="--steps 0 leaves nothing to train") as caught:
        shared(0, change)
    assert caught.value.hint == "give at least 1"


def test_fewer_steps_than_stages_are_refused():
    with pytest.raises(RecipeError, match="--steps 1 leaves nothing to train") as caught:
        shared(1)
    assert "at least 2" in caught.value.hint


def test_a_slider_is_distilled_for_a_third_unless_its_pairs_are_given():
    assert as_slider(recipe()) == ("attribute.control=strength", "distil.steps=100")
    assert as_slider(recipe("distil.steps=1")) == ("attribute.control=strength", "distil.steps=1")
    assert as_slider(recipe("learn.steps=0")) == ("attribute.control=strength",)


@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        ("ours", (False, False, False)),
        ("plain", (False, False, False)),
        ("dop", (True, False, False)),
        ("spf-portrait", (True, True, True)),
    ],
)
def test_memory_is_weighed_of_what_a_method_computes(method, kinds):
    needs = needs_of(recipe(f"training.method={method}"), *base_configs("embedded"))
    assert (needs.dual, needs.watched, needs.response) == kinds
