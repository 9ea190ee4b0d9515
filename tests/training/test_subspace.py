"""Which text states choose the selective subspace, on the embedded base's own text encoder."""

import pytest
import torch

from spf_lora.base.load import load_base
from spf_lora.base.texts import encode
from spf_lora.data.captions import base_prompt
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.registry.onto import NOTHING
from spf_lora.training import subspace
from spf_lora.training.subspace import subspace_of_prompts

PROMPTS = [
    f"a portrait of a person, {skin}, {hair}"
    for skin in ("pale skin", "tan skin", "dark skin")
    for hair in ("a bob", "short hair", "an afro", "a bun")
]


@pytest.fixture(scope="module")
def embedded():
    return load_base("embedded", device=torch.device("cpu"))


@pytest.mark.parametrize("door", ["padding", "both"])
def test_the_chosen_direction_reads_the_target_and_not_prompts_without_it(embedded, door):
    asking = [f"{prompt}, a beard" for prompt in PROMPTS]
    found = subspace_of_prompts(
        embedded, PROMPTS, asking, others=[f"{p}, glasses" for p in PROMPTS], door=door, rank=1
    )
    assert found.selectivity > 10
    assert found.leak < 0.02
    unseen = "a portrait of a person, brown skin, dreadlocks"

    def read(prompt):
        return (encode(embedded, [prompt])[0] @ found.basis).square().sum()

    assert read(f"{unseen}, a beard") > 10 * read(unseen)
    assert read(f"{unseen}, a beard") > 10 * read(f"{unseen}, glasses")


def test_the_targets_own_tokens_separate_less_than_the_padding_behind_them(embedded):
    asking = [f"{prompt}, a beard" for prompt in PROMPTS]
    target, padding = (
        subspace_of_prompts(embedded, PROMPTS, asking, others=(), door=door, rank=1)
        for door in ("target", "padding")
    )
    assert 1 < target.selectivity < padding.selectivity


def _kept(base, *changes):
    recipe = load_recipe(find_recipe("beard"), ["adapter.subspace=1", *changes])
    prompts = [base_prompt(f"{p}, a beard", recipe.attribute) for p in PROMPTS]
    name = "x.attn2.to_k.lora_A.default.weight"
    parameters = {name: torch.nn.Parameter(torch.randn(2, 192))}
    keep, remarks = subspace.kept_to_subspace(recipe, base, prompts, NOTHING, parameters)
    with torch.no_grad():
        parameters[name] += 1e-2 * torch.randn(2, 192)  # as a step would
    before = parameters[name].detach().clone()
    keep()
    return torch.equal(before, parameters[name]), remarks


def test_the_choice_is_told_and_kept_to(embedded):
    same, remarks = _kept(embedded)
    assert not same
    assert "times as strongly" in remarks[0]


def test_a_choice_that_separates_too_little_is_told_and_not_kept_to(embedded, monkeypatch):
    monkeypatch.setattr(subspace, "LEAST_SELECTIVE", 1e9)
    same, remarks = _kept(embedded)
    assert same
    assert "so they read everything" in remarks[0]


@pytest.mark.parametrize("change", ["adapter.subspace=0", "training.method=plain"])
def test_no_subspace_and_no_rival_keeps_to_anything(embedded, change):
    same, remarks = _kept(embedded, change)
    assert same
    assert remarks == ()
