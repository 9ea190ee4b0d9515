"""What a step minimises: learning, the paper's second stage, and each rival."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_base import make_tiny_clip
from tiny_runs import drawing, learn, load, paper, portraits, rival, trainer, weights_of

from spf_lora.data.cache import TensorCache
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.training.baselines import RIVALS
from spf_lora.training.build import build_trainer
from spf_lora.training.examples import load_examples
from spf_lora.training.objectives import Weights, time_weights

pytestmark = pytest.mark.usefixtures("few_draws")
ONLY_DENOISE = Weights(denoise=2.0, fine_grained=0, text_consistent=0, response=0, phrases=0)


def seen_as(latents):
    """Stand for CLIP: embeddings of scaled latents."""
    return latents.flatten(1)[:, :16]


@pytest.fixture(scope="module")
def drawn(tiny_folder, few_draws):
    """The tensors of five portraits with masks, the base's own pictures and CLIP's embeddings."""
    data = portraits(load(tiny_folder), 5, own=True)
    return replace(data, target=torch.ones(16), embeddings=torch.randn(5, 16))


@pytest.fixture
def run(tiny_folder, drawn, tmp_path):
    """Runs stages; returns the trainer and its steps."""

    def go(*stages, data=None, base=None):
        made = trainer(base or load(tiny_folder), data or drawn, tmp_path / "c", *stages)
        return made, list(made.run())

    return go


def test_the_papers_two_stages_run_and_report_its_four_terms(run):
    _, steps = run(partial(learn, 1), partial(paper, 2, embed=seen_as))
    assert [step.stage for step in steps] == ["learn", "align", "align"]
    assert set(steps[0].terms) == {"denoise"}
    four = {"denoise", "fine_grained", "text_consistent", "response"}
    assert set(steps[1].terms) == set(steps[2].terms) == four
    assert 0 < steps[-1].map_area <= Weights().area_cap
    assert steps[0].map_area is None


def test_a_recipe_of_the_papers_method_trains_its_two_stages_with_the_clip_it_names(tiny, tmp_path):
    recipe = load_recipe(
        find_recipe("hat"),
        [
            "training.method=spf-portrait",
            "learn.steps=4",
            "data.count=2",
            "data.batch_size=1",
            "data.vocabulary=none",
            f"data.clip={make_tiny_clip(tmp_path / 'clip')}",
        ],
    )
    examples, cache = load_examples(recipe, None), TensorCache(tmp_path / "cache")
    made = build_trainer(recipe, tiny, examples, checkpoint=tmp_path / "c", cache=cache)
    assert [(stage.name, stage.steps) for stage in made.stages] == [("learn", 2), ("align", 2)]
    steps = list(made.run())
    assert "response" in steps[-1].terms
    assert all(step.terms["text_consistent"] >= 0 for step in steps[2:])


def test_one_step_of_the_paper_moves_every_up_factor(tiny_folder, drawn, tmp_path):
    made = trainer(load(tiny_folder), drawn, tmp_path / "c", partial(paper, 1))
    before = weights_of(made)
    next(made.run())
    moved = {n for n, p in made.parameters.items() if not torch.equal(before[n], p)}
    assert {n for n in before if "lora_B" in n} <= moved


def test_the_loss_is_the_weighted_sum_of_its_terms(run):
    for weights in (ONLY_DENOISE, Weights(), Weights(response=3.0)):
        _, (step,) = run(partial(paper, 1, weights=weights, embed=seen_as))
        total = sum(getattr(weights, name) * term for name, term in step.terms.items())
        assert step.loss == pytest.approx(total, rel=1e-5)


def test_a_global_attribute_has_no_map_and_so_no_outside(run):
    _, (step,) = run(partial(paper, 1, everywhere=True))
    assert step.map_area == 1
    assert step.terms["fine_grained"] == step.terms["text_consistent"] == 0


def test_the_response_loss_judges_only_small_times(run):
    seen = []

    def embed(latents):
        seen.append(len(latents))
        return seen_as(latents)

    for last, judged in ((999, [4]), (-1, [])):
        weights = Weights(response_max_t=last)
        _, (step,) = run(partial(paper, 1, weights=weights, embed=embed))
        assert (step.terms["response"] > 0) == bool(judged)
        assert seen == judged
        seen.clear()


def test_what_is_learned_lies_inside_the_masks_that_somebody_drew(run, drawn):
    nowhere = replace(drawn, masks=torch.zeros_like(drawn.masks))
    everywhere = replace(drawn, masks=torch.ones_like(drawn.masks))
    losses = [run(partial(learn, 1), data=data)[1][0].loss for data in (nowhere, drawn, everywhere)]
    assert losses[0] == 0
    assert losses[0] < losses[1] < losses[2]
    without = run(partial(learn, 1), data=replace(drawn, masks=None))[1][0].loss
    assert losses[2] == pytest.approx(without)


@pytest.mark.parametrize("name", RIVALS)
def test_every_rival_trains_and_starts_where_its_own_term_is_silent(run, name):
    _, steps = run(partial(rival, 2, name=name))
    assert [step.stage for step in steps] == [name] * 2
    own = {k: v for k, v in steps[0].terms.items() if k not in ("denoise", "consistency")}
    if name in ("l2-to-base", "dop", "masked-prior"):
        assert set(own.values()) == {0}, "a fresh adapter is the base"
    if name == "dco":
        assert steps[0].loss == pytest.approx(0.6931, abs=1e-4)
    assert steps[1].loss != steps[0].loss


def test_prior_preservation_sees_the_bases_own_pictures_as_often_as_the_users(drawn, tiny):
    draw = drawing(drawn, tiny, own_share=RIVALS["prior-preservation"].own_share)
    batches = [draw(i, 8) for i in range(25)]
    assert torch.cat([batch.real for batch in batches]).mean() == pytest.approx(0.5, abs=0.02)
    for batch in batches[:5]:
        for row, real, states in zip(batch.rows, batch.real, batch.full_states, strict=True):
            wanted = drawn.full_states if real else drawn.base_states
            assert torch.equal(states, wanted[row])


def test_time_weights_grow_with_time_up_to_the_cap_and_have_mean_1(tiny):
    weights = time_weights(tiny.scheduler, 5.0)
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert (weights.diff() >= 0).all()
    assert weights[-1] == weights[-100]
