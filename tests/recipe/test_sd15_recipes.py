"""The recipes for SD1.5: each loads, says what a user needs, and trains on a small SD1.5."""

from pathlib import Path

import pytest
from PIL import Image

from spf_lora.base.load import Base
from spf_lora.data.cache import TensorCache
from spf_lora.data.captions import base_phrases, base_prompt, full_prompt, has_target
from spf_lora.data.folder import Example
from spf_lora.errors import RecipeError
from spf_lora.recipe.files import find_recipe, list_recipes, locate_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.training.build import build_trainer
from spf_lora.training.finish import finished_adapter

pytestmark = pytest.mark.usefixtures("few_draws")
TEN = sorted(
    f"sd15/{name}"
    for name in (
        "beard",
        "moustache",
        "glasses",
        "sunglasses",
        "hat",
        "blonde-hair",
        "curly-hair",
        "freckles",
        "smile",
        "old",
    )
)
SMALL = (
    "training.precision=fp32",
    "data.batch_size=1",
    "data.passes=1",
    "learn.steps=1",
    "distil.steps=1",
    "training.base=small",
)
SENTENCE = "a young woman with brown hair and a frown, in a blue shirt, a grey background"


def test_ten_attributes_have_a_recipe() -> None:
    assert list(list_recipes("sd15")) == TEN
    assert not set(TEN) & set(list_recipes()), "the embedded base's recipes are apart"


@pytest.mark.parametrize("name", TEN)
def test_a_recipe_says_what_a_user_needs(name: str) -> None:
    path = find_recipe(name)
    recipe = load_recipe(path)
    attribute = recipe.attribute
    assert (recipe.profile, f"sd15/{attribute.name}") == ("sd15", name)
    assert attribute.aliases
    assert base_phrases(SENTENCE, attribute), "phrases of a sentence are found"
    assert not any(has_target(phrase, attribute) for phrase in attribute.phrases)
    assert path.read_text(encoding="utf-8").startswith("# Data: ")
    assert f"--attribute {name}" in path.read_text(encoding="utf-8")
    asked = full_prompt(SENTENCE, attribute)
    assert has_target(asked, attribute)
    assert not has_target(base_prompt(asked, attribute), attribute)


# one that has a place, and one that changes the whole picture
FAST = ("sd15/beard", "sd15/old")
BY_COST = [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in TEN]


@pytest.mark.parametrize("name", BY_COST)
def test_a_recipe_trains_for_two_steps(name: str, tiny: Base, tmp_path: Path) -> None:
    recipe = load_recipe(find_recipe(name), SMALL)
    caption = full_prompt(SENTENCE, recipe.attribute)
    examples = [Example(Image.new("RGB", (32, 32), c), caption, c) for c in ("red", "blue")]
    cache = TensorCache(tmp_path / "cache")
    trainer = build_trainer(recipe, tiny, examples, checkpoint=tmp_path / "c", cache=cache)
    steps = list(trainer.run())
    assert [step.stage for step in steps] == ["learn", "distil"]
    adapter = finished_adapter(recipe, tiny, examples)
    assert any(module.up.any() for module in adapter.modules.values()), "it has learned something"
    assert adapter.metadata["modelspec.trigger_phrase"] == recipe.attribute.target_text


def test_a_family_is_part_of_the_name() -> None:
    assert locate_recipe("sd15/beard") == find_recipe("sd15/beard") != find_recipe("beard")
    assert locate_recipe("mine/beard.toml") == Path("mine/beard.toml")


@pytest.mark.parametrize(
    ("name", "near"), [("smile", "sd15/smile"), ("sd15/smlie", "sd15/smile"), ("baerd", "beard")]
)
def test_the_nearest_recipe_is_named_wherever_it_is(name: str, near: str) -> None:
    with pytest.raises(RecipeError, match=rf"did you mean {near}\?"):
        find_recipe(name)
