"""A new recipe is one at once, says what to fill in, and hides no shipped one."""

from pathlib import Path

import pytest

from spf_lora.errors import RecipeError
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.recipe.new import new_recipe


def test_a_new_recipe_is_found_by_its_name_and_loads(cli, in_a_clone):
    code, said, talk = cli("recipe", "new", "crown", "--target", "a crown")
    assert (code, said.strip()) == (0, "recipes/crown.toml"), talk
    assert "spf-lora data check DIR --attribute crown" in talk
    attribute = load_recipe(find_recipe("crown")).attribute
    assert (attribute.target_text, attribute.aliases) == ("a crown", ("crown",))
    assert cli("recipe", "show", "crown")[0] == 0


def test_one_for_sd15_holds_words_of_sentences_still(cli, in_a_clone):
    assert cli("recipe", "new", "sd15/hair-bow", "--target", "a bow", "--alias", "bow")[0] == 0
    recipe = load_recipe(find_recipe("sd15/hair-bow"))
    assert recipe.profile == "sd15"
    assert "hair" in recipe.attribute.phrases


def test_what_changes_the_whole_picture_is_said_to_be_global(cli, in_a_clone):
    assert cli("recipe", "new", "foggy", "--target", "fog", "--scope", "global")[0] == 0
    assert load_recipe(find_recipe("foggy")).attribute.scope == "global"
    assert cli("recipe", "new", "dusty", "--target", "dust", "--scope", "some")[0] == 1


def test_a_recipe_that_is_there_is_not_overwritten(cli, in_a_clone):
    words = ("recipe", "new", "crown", "--target", "a crown")
    assert cli(*words)[0] == 0
    before = Path("recipes/crown.toml").read_bytes()
    assert cli(*words, "--alias", "tiara")[0] == 1
    assert Path("recipes/crown.toml").read_bytes() == before
    assert cli(*words, "--alias", "tiara", "--force")[0] == 0
    assert load_recipe(find_recipe("crown")).attribute.aliases == ("tiara",)


@pytest.mark.parametrize(
    ("known", "target", "said"),
    [
        ("beard", "a beard", "there is a recipe beard already"),
        ("Crown", "a crown", "attribute.name is 'Crown'"),
        ("crown", "a crown, gold", "attribute.target_text"),
        ("xl/crown", "a crown", "xl is no family of bases"),
        ("crown", "", "attribute.target_text"),
    ],
)
def test_what_would_be_no_recipe_is_refused(known, target, said):
    with pytest.raises(RecipeError, match=said):
        new_recipe(known, target)


def test_quotes_and_backslashes_of_a_target_are_kept(tmp_path):
    (tmp_path / "x.toml").write_text(new_recipe("x", 'a "sk8\\er" cap'), encoding="utf-8")
    assert load_recipe(tmp_path / "x.toml").attribute.target_text == 'a "sk8\\er" cap'
