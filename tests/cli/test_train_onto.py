"""`spf-lora train --onto`: what is below is on, frozen, protected and named in the card."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spf_lora.adapters.attach import attach_trainable
from spf_lora.adapters.format.adapter_file import Adapter, Module, read_adapter, write_adapter
from spf_lora.adapters.format.card import Card, file_metadata, from_metadata
from spf_lora.adapters.format.hashes import content_id
from spf_lora.draw.weights import attached
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.recipe.schema import Attribute
from spf_lora.registry import stack_edit
from spf_lora.registry.onto import NOTHING, Below, below
from spf_lora.registry.stack import Known, onto_members
from spf_lora.training.build import run_id
from spf_lora.training.pairs import protected_prompts, taught, teaching_prompts

pytestmark = pytest.mark.usefixtures("few_draws")
NAME = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
HAT = Attribute(name="hat", target_text="a hat", aliases=("hat",))
SMALL = ("--steps", "2", "--set", "data.count=3", "--set", "data.batch_size=2")


def parent(attribute="glasses", text="glasses", base_id="", seed=0, **said):
    rng = np.random.default_rng(seed)
    down, up = rng.normal(size=(2, 24)), rng.normal(size=(32, 2))
    card = Card(attribute, text, text, base_id, recipe={"attribute": said} if said else {})
    entries = file_metadata(card, rank=2, alpha=2.0, title=attribute)
    return Adapter({NAME: Module(NAME, down.astype("f4"), up.astype("f4"), 2.0)}, entries)


def under(*cards):
    return Below("x", tuple((Known("x", Path("x"), "ab" * 32, card), 1.0) for card in cards))


def card(text, **said):
    return Card("other", text, text, "", recipe={"attribute": said})


@pytest.fixture
def train(cli, tiny_folder, shelf, monkeypatch):
    monkeypatch.setenv("SPF_LORA_ADAPTERS", str(shelf))

    def run(*words, attribute="hat"):
        return cli("train", "-a", attribute, "--base", tiny_folder, *SMALL, *words)

    return run


def test_the_card_names_what_is_below_and_the_next_onto_takes_it_along(train, shelf, tiny):
    write_adapter(parent(base_id=tiny.id), shelf / "glasses.safetensors")
    write_adapter(parent("beard", "a beard", tiny.id, seed=1), shelf / "beard.safetensors")
    stack_edit.create("portrait", [("beard", 1.0), ("glasses", 0.5)], shelf)
    code, said, talk = train("--onto", "portrait", "--out", "onto.safetensors")
    assert (code, said.strip()) == (0, "onto.safetensors"), talk
    assert "training hat onto beard, glasses: 3 pictures" in talk
    made = read_adapter("onto.safetensors")
    told = from_metadata(made.metadata)
    ids = [content_id(read_adapter(shelf / f"{one}.safetensors")) for one in ("beard", "glasses")]
    assert told.parents == tuple(ids)
    assert [(m.name, m.strength) for m in onto_members(told)] == [("beard", 1.0), ("glasses", 0.5)]
    assert told.base_id == tiny.id
    write_adapter(made, shelf / "hat.safetensors")
    assert [known.name for known, _ in below("hat", shelf).members] == ["beard", "glasses", "hat"]


@pytest.mark.parametrize(
    ("onto", "reason"),
    [
        ("nobody", "no adapter is called nobody"),
        ("../nobody", "../nobody does not exist"),
        ("hat", "hat cannot be trained onto hat"),
        ("glasses", "was trained on the base base:other"),
        ("glasses:9", "no number from -4 to 4"),
        ("broken", "needs gone with the content id"),
    ],
)
def test_what_cannot_be_trained_onto_is_refused_and_leaves_no_folder(train, shelf, onto, reason):
    write_adapter(parent(base_id="base:other"), shelf / "glasses.safetensors")
    write_adapter(parent("hat", "a hat"), shelf / "hat.safetensors")
    write_adapter(parent("gone", "gone", seed=4), shelf / "gone.safetensors")
    stack_edit.create("broken", [("gone", 1.0)], shelf)
    (shelf / "gone.safetensors").unlink()
    code, said, talk = train("--onto", onto)
    assert (code, said) == (1, "")
    assert reason in " ".join(talk.split())
    assert not Path("adapters").exists()


def test_generate_draws_with_a_stack_as_with_its_adapters(cli, shelf, tiny_folder, monkeypatch):
    monkeypatch.setenv("SPF_LORA_ADAPTERS", str(shelf))
    for seed, name in enumerate(("beard", "glasses")):
        write_adapter(parent(name, name, seed=seed), shelf / f"{name}.safetensors")
    stack_edit.create("portrait", [("beard", 1.0), ("glasses", 0.5)], shelf)
    words = ("generate", "x", "--base", tiny_folder, "--count", "1", "--steps", "2", "--out")
    assert cli(*words, "stack.png", "--stack", "portrait")[0] == 0
    assert cli(*words, "each.png", "--adapter", "beard", "--adapter", "glasses:0.5")[0] == 0
    assert cli(*words, "base.png")[0] == 0
    stack, each, base = (Path(f"{name}.png").read_bytes() for name in ("stack", "each", "base"))
    assert stack == each != base
    assert "no stack is called nobody" in cli(*words, "x.png", "--stack", "nobody")[2]


def test_a_file_that_is_below_is_not_overwritten(train, shelf):
    path = shelf / "glasses.safetensors"
    write_adapter(parent(), path)
    before = path.read_bytes()
    code, _, talk = train("--onto", "glasses", "--out", path, "--force")
    assert code == 1
    assert "is part of glasses" in " ".join(talk.split())
    assert path.read_bytes() == before


def test_a_checkpoint_belongs_to_what_is_below_too(tiny):
    recipe = load_recipe(find_recipe("hat"))
    ids = {
        run_id(recipe, tiny, [], one)
        for one in (NOTHING, under(None), Below("x", (*under(None).members, *under(None).members)))
    }
    assert len(ids) == 3
    assert run_id(recipe, tiny, [], NOTHING) == run_id(recipe, tiny, [])


def test_what_is_below_is_on_in_both_paths_and_off_again_though_peft_wrapped_it(tiny):
    weight = tiny.unet.get_parameter(f"{NAME.removeprefix('unet.')}.weight")
    before = weight.clone()
    with attached(tiny.unet, [(parent(), 0.5)]):
        attach_trainable(tiny.unet, preset="kv", rank=2, alpha=2.0, seed=0)
        assert not torch.equal(weight, before)
        assert not weight.requires_grad
    assert torch.equal(weight, before)


def test_the_base_draws_what_is_below_in_turn_and_the_target_comes_on_top():
    prompts = ["a man, red hair", "a woman", "a person", "a child, red hair"]
    blonde = card("blonde hair", replaces=["red hair"], unknown=[1], phrases="text")
    found = protected_prompts(prompts, HAT, under(card("glasses"), blonde))
    assert found == [
        ("a man, red hair", "a man, red hair, a hat"),
        ("a woman, glasses", "a woman, glasses, a hat"),
        ("a person, blonde hair", "a person, blonde hair, a hat"),
        ("a child, red hair", "a child, red hair, a hat"),
    ]
    assert protected_prompts(prompts, HAT, NOTHING) == [(p, f"{p}, a hat") for p in prompts]


def test_what_means_the_target_itself_is_not_protected_against_it():
    top_hat = card("a top hat")
    assert protected_prompts(["a man", "a woman"], HAT, under(top_hat))[1][0] == "a woman"
    assert taught(under(None, card(""))) == []


def test_the_pairs_that_teach_ask_for_what_is_below_too():
    recipe = load_recipe(find_recipe("hat"), ["distil.pairs=8", "distil.vocabulary=none"])
    found = teaching_prompts(recipe, ["a man", "a woman"], under(card("glasses")), 8)
    assert found[:2] == [("a man", "a man, a hat"), ("a woman, glasses", "a woman, glasses, a hat")]
    assert len(found) == 8
