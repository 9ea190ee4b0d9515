import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from tiny_base import make_tiny_clip

from spf_lora.base.clip import load_clip
from spf_lora.data.cache import TensorCache
from spf_lora.data.captions import full_prompt, names_any
from spf_lora.data.completion import Vocabulary, complete, load_vocabulary, varied
from spf_lora.data.folder import Example
from spf_lora.data.worlds.portraits import FACTORS, caption, partial_caption, render, unbiased
from spf_lora.errors import RecipeError
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.recipe.schema import Attribute
from spf_lora.training import build
from spf_lora.training.build import build_trainer, run_id
from spf_lora.training.complete_captions import completed
from spf_lora.training.finish import card_of
from spf_lora.training.sight import Asked

BEARD = Attribute(name="beard", target_text="a beard", aliases=("bearded",))
BLONDE = Attribute(name="blonde", target_text="blonde hair", replaces=("red hair",))
WORDS = Vocabulary(
    "a photo, {}", (("tan skin", "pale skin"), ("red hair", "grey hair"), ("a hoodie", "a suit"))
)
SURE = ("tan skin", "red hair", "a suit")


def test_what_a_caption_leaves_out_is_added_in_the_order_of_the_vocabulary():
    found = complete("a man, grey hair, a beard", BEARD, WORDS, SURE)
    assert found == "a man, tan skin, grey hair, a suit, a beard"
    assert complete(found, BEARD, WORDS, SURE) == found


def test_a_sentence_keeps_its_words_and_gets_the_rest_behind_it():
    found = complete("A bearded man with Red Hair", BEARD, WORDS, SURE)
    assert found == "A bearded man with Red Hair, tan skin, a suit"


def test_what_is_not_certain_is_not_added():
    assert complete("a beard", BEARD, WORDS, [None, "red hair", None]) == "red hair, a beard"


def test_what_the_target_replaces_or_is_called_is_never_added():
    assert complete("blonde hair", BLONDE, WORDS, SURE) == "tan skin, a suit, blonde hair"
    named = replace(BEARD, aliases=("red hair",))
    assert "red hair" not in complete("a beard", named, WORDS, SURE)


def test_a_varied_prompt_keeps_its_subject_and_names_anything_but_the_target():
    rng, words = random.Random(0), replace(WORDS, groups=(*WORDS.groups, ("a beard", "stubble")))
    found = [varied("a man, red hair, in a park", BEARD, words, rng) for _ in range(200)]
    assert all(one.startswith("a man, in a park") for one in found)
    said = Counter(phrase for one in found for phrase in one.split(", ")[2:])
    assert set(said) == {p for group in words.groups for p in group} - {"a beard"}
    assert said["red hair"] + said["grey hair"] == pytest.approx(0.75 * 200, abs=25)
    assert found == [varied(found[0], BEARD, words, r) for r in [random.Random(0)] for _ in found]


def test_the_shipped_vocabularies_are_right():
    for name in ("photographs", "tags"):
        groups = load_vocabulary(name).groups
        for phrase in (phrase for group in groups for phrase in group):
            # what a caption names of one group must not look like one of another
            others = [group for group in groups if phrase not in group]
            assert not any(names_any(phrase, group) for group in others), phrase
    shown = tuple(tuple(phrase for phrase, _ in values.values()) for values in FACTORS.values())
    assert load_vocabulary("portraits").groups == shown


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("template = 3\n[groups]\na = ['b', 'c']", "template must be a text with one {}"),
        ("template = '{}'", "groups must hold lists of phrases"),
        ("template = '{}'\n[groups]", "groups must hold lists of phrases"),
        ("template = '{}'\n[groups]\na = ['b']", "groups.a must list two phrases or more"),
        ("template = '{}'\n[groups]\na = ['b, c', 'd']", "not one phrase without commas"),
        ("template = '{}'\n[groups]\na = ['b', 'b']", "stands there twice"),
        ("x = 1\ntemplate = '{}'\n[groups]\na = ['b', 'c']", "x is not a known key"),
        ("x =", "cannot be read"),
        (f"x = {'[' * 9999}", "cannot be read: it nests too deep"),
    ],
)
def test_a_vocabulary_that_is_not_right_is_refused(tmp_path, text, fault):
    path = tmp_path / "words.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=fault):
        load_vocabulary(str(path))


def test_an_unknown_vocabulary_is_refused_with_those_there_are():
    with pytest.raises(RecipeError, match="the vocabulary nothing") as caught:
        load_vocabulary("nothing")
    assert "photographs, portraits, tags" in caught.value.hint


class Sure:
    """A CLIP whose pictures are as near to the words as their brightness says."""

    scale = 100.0

    def embed_text(self, texts):
        angle = torch.tensor(
            [0.0 if "tan" in t or "red" in t or "suit" in t else 1.5 for t in texts]
        )
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def embed_image(self, pixels):
        angle = (1 - pixels.mean(dim=(1, 2, 3))) / 2 * 1.5
        return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_pictures_are_judged_one_by_one_and_the_count_is_told(embedded):
    white, black = (Image.fromarray(np.full((64, 64, 3), v, np.uint8)) for v in (255, 0))
    examples = [Example(white, "a beard", "white"), Example(black, "a beard", "black")]
    found, told, _ = completed(examples, BEARD, WORDS, embedded, Asked(Sure(), None), [0.8] * 3)
    assert [e.caption for e in found] == [
        "tan skin, red hair, a suit, a beard",
        "pale skin, grey hair, a hoodie, a beard",
    ]
    assert found[0].image is white
    assert "3.0 phrases each" in told


def test_a_group_is_believed_from_its_own_limit_on(embedded):
    white = Image.fromarray(np.full((64, 64, 3), 255, np.uint8))
    examples = [Example(white, "a beard", "white")]
    asked, limits = Asked(Sure(), None), [0.8, math.inf, 0.8]
    found, *_ = completed(examples, BEARD, WORDS, embedded, asked, limits)
    assert found[0].caption == "tan skin, a suit, a beard"


def test_the_embedded_base_completes_captions_to_the_truth(embedded, tmp_path):
    rng = random.Random(3)
    people = [unbiased(rng) for _ in range(8)]
    examples = [
        Example(render(p, ("beard",)), partial_caption(p, ("beard",), rng, coverage=0.5), str(i))
        for i, p in enumerate(people)
    ]
    words, asked = load_vocabulary("portraits"), Asked(load_clip(embedded), None)
    found, *_ = completed(examples, BEARD, words, embedded, asked, [0.8] * len(words.groups))
    exact = [caption(p, ("beard",)) for p in people]
    assert [full_prompt(e.caption, BEARD) for e in found] == exact


def training_of(base, folder, captions, *changes):
    """Return a training of a few red pictures that has not begun."""
    few = ("learn.steps=1", "distil.steps=0", "data.batch_size=1")
    recipe = load_recipe(find_recipe("beard"), [*few, *changes])
    red = Image.new("RGB", (32, 32), "red")
    examples = [Example(red, text, f"{i}") for i, text in enumerate(captions)]
    cache = TensorCache(folder / "cache")
    return build_trainer(recipe, base, examples, checkpoint=folder / "c", cache=cache)


@pytest.mark.parametrize(
    ("width", "why"),
    [(24, "its text encoder is 24 wide"), (768, "HF_HUB_OFFLINE is set")],
)
def test_where_no_clip_is_at_hand_captions_stay_and_what_is_lost_is_told(
    width, why, tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    tiny.text_encoder.config.hidden_size = width
    (remark,) = training_of(tiny, tmp_path, ["a beard"]).remarks
    assert "captions stay as they are" in remark
    assert why in remark
    assert "--set data.clip=" in remark


@pytest.mark.usefixtures("few_draws")
def test_a_run_that_began_without_a_clip_does_not_go_on_with_one(tiny, tmp_path, monkeypatch):
    clip = str(make_tiny_clip(tmp_path / "clip"))
    begun = training_of(tiny, tmp_path, ["a beard"])
    monkeypatch.setattr(build, "find_clip", lambda *_: clip)
    assert training_of(tiny, tmp_path, ["a beard"]).run_id != begun.run_id


@pytest.mark.usefixtures("few_draws")
def test_a_clip_that_is_wrong_about_the_bases_own_pictures_completes_nothing(tiny, tmp_path):
    clip = f"data.clip={make_tiny_clip(tmp_path / 'clip')}"
    (remark,) = training_of(tiny, tmp_path, ["a beard"], clip).remarks
    assert "captions stay as they are: of what CLIP is sure of in the base's own" in remark
    assert "90% is needed" in remark


def test_where_all_captions_are_alike_no_vocabulary_is_found_in_them(tiny, tmp_path):
    changes = ("data.vocabulary=auto", f"data.clip={make_tiny_clip(tmp_path / 'clip')}")
    (remark,) = training_of(tiny, tmp_path, ["a man, a beard"] * 3, *changes).remarks
    assert "no two kinds of one thing" in remark


def test_a_caption_that_would_be_cut_off_stays_as_it_is(embedded):
    white = Image.fromarray(np.full((64, 64, 3), 255, np.uint8))
    long = ", ".join(["a portrait of a person"] * 13) + ", a beard"
    found, told, _ = completed(
        [Example(white, long, "w")], BEARD, WORDS, embedded, Asked(Sure(), None), [0.8] * 3
    )
    assert found[0].caption == long
    assert "captions are as they were" in told


def test_braces_in_a_template_are_no_trouble(embedded):
    white = Image.fromarray(np.full((64, 64, 3), 255, np.uint8))
    words = replace(WORDS, template="{a} {} }")
    found, *_ = completed(
        [Example(white, "a beard", "w")],
        BEARD,
        words,
        embedded,
        Asked(Sure(), None),
        [0.8] * 3,
    )
    assert found[0].caption.endswith("a suit, a beard")


def test_what_a_vocabulary_file_says_decides_the_run_and_its_path_is_told_to_nobody(
    embedded, tmp_path
):
    path = tmp_path / "words.toml"
    ids = []
    for phrase in ("red hair", "grey hair"):
        path.write_text(f'template = "{{}}"\n[groups]\nhair = ["black hair", "{phrase}"]')
        recipe = load_recipe(find_recipe("beard"), [f"data.vocabulary={path}"])
        ids.append(run_id(recipe, embedded, []))
        assert card_of(recipe, embedded, []).recipe["data"]["vocabulary"] == "words.toml"
    assert ids[0] != ids[1]
