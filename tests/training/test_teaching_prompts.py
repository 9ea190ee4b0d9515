"""What pairs are asked for: the captions' subject, anything besides, and the target."""

from spf_lora.data.cache import TensorCache
from spf_lora.data.captions import has_target
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.registry.onto import NOTHING
from spf_lora.training.pairs import teaching_prompts
from spf_lora.training.stages import teaching_of

SAID = ["a man", "a woman, red hair"]


def prompts_of(*changes, said=SAID):
    recipe = load_recipe(find_recipe("hat"), changes)
    return teaching_prompts(recipe, said, NOTHING, 8), recipe.attribute


def test_pairs_are_asked_for_in_the_words_of_the_captions_in_turn():
    found, _ = prompts_of("distil.vocabulary=none")
    assert found == [(said, f"{said}, a hat") for said in SAID] * 4


def test_with_a_vocabulary_they_keep_the_subject_and_name_anything_but_the_target():
    found, hat = prompts_of("distil.vocabulary=portraits")
    assert len({without for without, _ in found}) == 8
    for said, (without, asking) in zip(SAID * 4, found, strict=True):
        assert without.startswith(f"{said.split(',')[0]}, ")
        assert not has_target(without, hat)
        assert has_target(asking, hat)
    assert found == prompts_of("distil.vocabulary=portraits")[0]
    recipe = load_recipe(find_recipe("hat"))
    assert teaching_prompts(recipe, SAID, NOTHING, 20)[:8] == found
    assert found != prompts_of("distil.vocabulary=portraits", "training.seed=1")[0]


def test_what_the_target_takes_the_place_of_is_in_no_prompt_of_a_pair(tiny, tmp_path):
    recipe = load_recipe(find_recipe("hat"), ["distil.vocabulary=none", "distil.pairs=8"])
    said = ["a man, a bun, red clothes", "a man, red clothes"]
    made = teaching_of(recipe, tiny, said, (8, 8), TensorCache(tmp_path))
    own, full = zip(*made.prompts, strict=True)
    assert own == ("a man, red clothes",) * 8
    assert full == ("a man, a hat, red clothes", "a man, red clothes, a hat") * 4
    assert made.asked == list(full)
    assert made.held == said, "nothing may change under any of them"
