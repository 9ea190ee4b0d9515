"""The form has every key of the schema, and what it changes is what a recipe takes."""

import pytest

from spf_lora.errors import RecipeError
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe, recipe_to_dict
from spf_lora.studio import form

PATH = find_recipe("beard").resolve()  # whatever folder a test is in
KEYS = [field.key for field in form.fields()]


def filled(**changed):
    values = dict(zip(KEYS, form.values(load_recipe(PATH)), strict=True))
    return list((values | changed).values())


def test_every_key_but_the_attributes_has_a_field_and_what_is_basic_is_there():
    table = recipe_to_dict(load_recipe(PATH))
    keys = [f"{one}.{key}" for one in table if isinstance(table[one], dict) for key in table[one]]
    assert [key for key in keys if not key.startswith("attribute.")] == KEYS
    assert set(form.BASIC) <= set(KEYS)
    assert all(field.note for field in form.fields())


@pytest.mark.parametrize("attribute", form.attributes())
def test_a_form_as_it_was_filled_changes_nothing(attribute):
    values = form.values(load_recipe(find_recipe(attribute)))
    assert form.changes(attribute, values) == []


def test_every_kind_of_value_comes_into_the_recipe():
    wanted = {
        "adapter.rank": 4.0,  # a page sends whole numbers so
        "adapter.text_encoder": True,
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 0.002,
        "optimizer.betas": "0.8, 0.9",
        "distil.keep": "face, a long word",
        "training.tokenizer": 'a "quoted" = name',
    }
    recipe = load_recipe(PATH, form.changes("beard", filled(**wanted)))
    assert recipe.adapter.rank == 4
    assert recipe.adapter.text_encoder
    assert recipe.optimizer.name == "adamw"
    assert recipe.optimizer.learning_rate == 0.002
    assert recipe.optimizer.betas == (0.8, 0.9)
    assert recipe.distil.keep == ("face", "a long word")
    assert recipe.training.tokenizer == 'a "quoted" = name'


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(RecipeError, match=r"(?s)adapter\.rank.*learn\.steps"):
        form.changes("beard", filled(**{"adapter.rank": 0, "learn.steps": 2.5}))


@pytest.mark.parametrize("name", ["../beard", "/etc/passwd", "beard.toml", "nobody", ""])
def test_an_attribute_is_never_a_path(name):
    with pytest.raises(RecipeError, match="no recipe"):
        form.changes(name, filled())
