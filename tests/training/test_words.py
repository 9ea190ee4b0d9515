"""Words that the text encoder hardly reads are told before the training."""

import pytest
import torch

from spf_lora.data.cache import TensorCache
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.recipe.schema import Attribute
from spf_lora.training import build
from spf_lora.training.build import build_trainer
from spf_lora.training.examples import load_examples
from spf_lora.training.words import LEAST_HEARD, hardly_heard, heard

PROMPTS = ["a person, pale skin, red hair, a bob", "a person, a frown, a hoodie, a pink background"]


@pytest.fixture
def reads(monkeypatch):
    """Return a base whose states move by 1 for each phrase, but for those that say otherwise."""

    def made(**said):
        def encode(base, prompts):
            told = [sum(said.get(phrase, 1.0) for phrase in p.split(", ")) for p in prompts]
            return torch.tensor(told)[:, None, None].expand(-1, 77, 4)

        monkeypatch.setattr("spf_lora.training.words.encode", encode)

    return made


def test_the_share_is_of_what_the_median_phrase_does(reads):
    reads(crown=0.25, hoodie=9.0)
    prompts = ["x, bob, frown", "x, hoodie, smile, wink"]
    assert heard(None, prompts, "crown") == pytest.approx(0.25)
    told = []
    assert heard(None, prompts, "hoodie", lambda *of: told.append(of)) == pytest.approx(9)
    assert [done for _, done, _ in told] == list(range(6)), "five phrases and the target"
    assert {total for _, _, total in told} == {6}


def test_with_too_few_phrases_nothing_is_said(reads, tiny, tmp_path):
    reads(crown=0.0)
    crown = Attribute(name="crown", target_text="crown")
    assert heard(None, ["a person", "a man, a bob"], "crown") is None
    assert hardly_heard(tiny, ["a person", "a man, a bob"], crown, TensorCache(tmp_path)) == []


def test_words_are_read_once(reads, tiny, tmp_path):
    reads(crown=0.25)
    crown, cache, told = Attribute(name="crown", target_text="crown"), TensorCache(tmp_path), []
    for _ in range(2):
        (said,) = hardly_heard(
            tiny, ["x, bob, frown, smile, wink"], crown, cache, tell=lambda *of: told.append(of)
        )
        assert "0.2 times" in said
    assert len(told) == 5


def test_the_embedded_base_knows_its_words_and_not_others(embedded):
    assert heard(embedded, PROMPTS, "a beard") > 2 * LEAST_HEARD
    for unknown in ("freckles", "a monocle"):
        assert heard(embedded, PROMPTS, unknown) < LEAST_HEARD


def test_training_says_so_before_it_starts(embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_completed", lambda recipe, base, examples, *_: (examples, [], ()))
    monkeypatch.setattr(build, "_sight", lambda *_: None)

    def remarks(*changes):
        few = ("data.count=4", *changes)
        recipe = load_recipe(find_recipe("beard"), few)
        examples = load_examples(load_recipe(find_recipe("beard"), few[:1]), None)
        made = build_trainer(
            recipe, embedded, examples, checkpoint=tmp_path / "c", cache=TensorCache(tmp_path)
        )
        return [one for one in made.remarks if "hardly reads" in one]

    (said,) = remarks("attribute.target_text=freckles")
    assert "'freckles'" in said
    assert "adapter.text_encoder=true" in said
    assert "--slider" in said
    assert remarks() == []
    assert remarks("attribute.target_text=freckles", "adapter.text_encoder=true") == []
    assert remarks("attribute.target_text=freckles", "attribute.control=strength") == []
