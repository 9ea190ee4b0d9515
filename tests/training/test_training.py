import random
from dataclasses import replace

import pytest
import torch
from PIL import Image

from spf_lora.adapters.attach import adapter_off, attach_trainable, trained_adapter
from spf_lora.base.load import load_base
from spf_lora.data.worlds.portraits import caption, phrases, region, render, unbiased
from spf_lora.draw.weights import attached
from spf_lora.errors import AdapterFileError, CheckpointError, TrainingError
from spf_lora.training import objectives
from spf_lora.training.baselines import RIVALS, RivalObjective
from spf_lora.training.batch import Mix, draw_batch
from spf_lora.training.checkpoint import load_checkpoint, save_checkpoint
from spf_lora.training.objectives import Align, Learn, MapSettings, Weights, time_weights
from spf_lora.training.optim import OPTIMIZERS, make_optimizer, rate_at
from spf_lora.training.prepare import prepare
from spf_lora.training.trainer import Plan, Stage, Trainer

pytestmark = pytest.mark.usefixtures("few_draws")
PLAN = Plan(batch_size=4, learning_rate=1e-2, warmup_steps=1, max_grad_norm=1.0, seed=0)
MIX = Mix(twins=0.2, base_prompts=0.2, empty_prompts=0.2)
WEIGHTS = Weights(
    denoise=2.0, outside_map=2.0, fine_grained=0.5, text_consistent=5.0, response=0.0,
    response_max_t=300, phrases=0.1,
)  # fmt: skip
ONLY_DENOISE = replace(WEIGHTS, outside_map=0, fine_grained=0, text_consistent=0, phrases=0)
SETTINGS = MapSettings(area_cap=0.4, decay=0.8)


@pytest.fixture(scope="module")
def drawn(tiny_folder, few_draws):
    """The tensors of five portraits; their twins are drawn once."""
    rng = random.Random(0)
    people = [unbiased(rng) for _ in range(5)]
    return prepare(
        load_base(str(tiny_folder), device=torch.device("cpu")),
        [render(p, ("hat",)) for p in people],
        base_prompts=[caption(p) for p in people],
        full_prompts=[caption(p, ("hat",)) for p in people],
        phrases=[phrases(p) for p in people],
        target_text="a hat",
        twin_prompts=[(caption(p), caption(p, ("hat",))) for p in people],
        masks=[Image.fromarray(region(p, "hat")) for p in people],
    )


@pytest.fixture
def make_trainer(drawn):
    def make(
        base, path, *, plan=PLAN, optimizer="adamw8bit", run_id="run", learn=3, align=3,
        weights=WEIGHTS, settings=SETTINGS, mix=MIX, embed=None, rival=None, data=None,
        masked=False,
    ):  # fmt: skip
        masks = drawn.masks if masked else None
        data = data or replace(drawn, latents=drawn.latents.clone(), masks=masks)
        times = time_weights(base.scheduler, 5.0)
        parameters = attach_trainable(
            base.unet, preset="attention", rank=4, alpha=4.0, seed=plan.seed
        )
        aligned = Align(
            base.unet, data, weights=weights, settings=settings, times=times,
            alphas=base.scheduler.alphas_cumprod, embed=embed,
        )  # fmt: skip
        stages = [
            Stage("learn", learn, Learn(base.unet, data, times)),
            Stage("align", align, aligned, mix),
        ]
        if rival:
            row = RIVALS[rival]
            objective = RivalObjective(base.unet, data, row, weight=row.weight)
            stages = [Stage(rival, learn + align, objective, row.mix)]
        return Trainer(
            unet=base.unet, parameters=parameters, scheduler=base.scheduler, data=data, plan=plan,
            stages=stages, checkpoint=path, run_id=run_id,
            optimizer=make_optimizer(
                optimizer, list(parameters.values()), learning_rate=plan.learning_rate,
                weight_decay=0.01, betas=(0.9, 0.999),
            ),
        )  # fmt: skip

    return make


def can_learn(name):
    """The tiny model's mid block has one pixel: self-attention has no choice, so no gradient."""
    return not ("mid_block" in name and ("attn1.to_q" in name or "attn1.to_k" in name))


def weights_of(trainer):
    return {name: p.detach().clone() for name, p in trainer.parameters.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def fresh(tiny_folder):
    from spf_lora.base.load import load_base

    return lambda: load_base(str(tiny_folder), device=torch.device("cpu"))


def test_both_stages_run_and_report_their_terms(tiny, tmp_path, make_trainer):
    steps = list(make_trainer(tiny, tmp_path / "c").run())
    assert [s.stage for s in steps] == ["learn"] * 3 + ["align"] * 3
    assert set(steps[0].terms) == {"denoise"}
    assert set(steps[-1].terms) == {"denoise", "fine_grained", "text_consistent", "outside_map"}
    assert 0 < steps[-1].map_area <= 0.42


def test_two_steps_move_every_tensor_of_the_adapter_and_none_of_the_base(
    tiny, tmp_path, make_trainer
):
    trainer = make_trainer(tiny, tmp_path / "c", learn=2, align=0)
    frozen = {n: p.clone() for n, p in tiny.unet.named_parameters() if n not in trainer.parameters}
    before = weights_of(trainer)
    list(trainer.run())  # the first step moves only `up`: `down` has no gradient while up is 0
    assert all(not torch.equal(before[n], p) for n, p in trainer.parameters.items() if can_learn(n))
    assert all(torch.equal(frozen[n], tiny.unet.get_parameter(n)) for n in frozen)


def test_one_align_step_moves_every_up_factor(tiny, tmp_path, make_trainer):
    trainer = make_trainer(tiny, tmp_path / "c", learn=0, align=1, mix=Mix())
    before = weights_of(trainer)
    list(trainer.run())
    moved = {n for n, p in trainer.parameters.items() if not torch.equal(before[n], p)}
    assert {n for n in before if "lora_B" in n and can_learn(n)} <= moved


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    fresh, tmp_path, optimizer, make_trainer
):
    if optimizer == "prodigy":
        pytest.importorskip("prodigyopt")
    whole = make_trainer(fresh(), tmp_path / "a", optimizer=optimizer)
    list(whole.run())
    stopped = make_trainer(fresh(), tmp_path / "b", optimizer=optimizer)
    for step in stopped.run():
        if step.index == 4:
            stopped.save()
            break
    resumed = make_trainer(fresh(), tmp_path / "b", optimizer=optimizer)
    assert resumed.resume() == 4
    list(resumed.run())
    assert same(weights_of(whole), weights_of(resumed))


def test_the_seed_decides_the_adapter(fresh, tmp_path, make_trainer):
    runs = [make_trainer(fresh(), tmp_path / "c", plan=replace(PLAN, seed=s)) for s in (1, 1, 2)]
    for run in runs:
        list(run.run())
    assert same(weights_of(runs[0]), weights_of(runs[1]))
    assert not same(weights_of(runs[0]), weights_of(runs[2]))


def test_a_weight_of_zero_takes_a_term_out(fresh, tmp_path, make_trainer):
    made = make_trainer(fresh(), tmp_path / "c", learn=0, align=1, weights=ONLY_DENOISE)
    step = next(made.run())
    assert step.loss == pytest.approx(2 * step.terms["denoise"])
    weights = replace(ONLY_DENOISE, outside_map=3.0)
    step = next(make_trainer(fresh(), tmp_path / "c", learn=0, align=1, weights=weights).run())
    assert step.loss == pytest.approx(2 * step.terms["denoise"] + 3 * step.terms["outside_map"])


def test_samples_that_ask_for_nothing_only_hold_the_adapter_still(fresh, tmp_path, make_trainer):
    trainer = make_trainer(fresh(), tmp_path / "c", learn=0, align=2, mix=Mix(base_prompts=1.0))
    steps = list(trainer.run())
    assert [s.loss for s in steps] == [0, 0], "a fresh adapter does nothing, so nothing is wrong"
    assert [s.map_area for s in steps] == [None, None]
    with torch.no_grad():
        for parameter in trainer.parameters.values():
            parameter.add_(0.05)
    trainer.done = 0
    assert next(trainer.run()).loss > 0


def test_twins_teach_no_picture_but_must_not_move(fresh, tmp_path, make_trainer):
    trainer = make_trainer(fresh(), tmp_path / "c", learn=0, align=1, mix=Mix(twins=1.0))
    step = next(trainer.run())
    assert step.terms["denoise"] == 0
    batch = draw_batch(trainer.data, trainer.scheduler, index=0, size=4, seed=0, mix=Mix(twins=1.0))
    assert torch.equal(batch.latents, trainer.data.twins.latents[batch.rows])
    assert (batch.asked == 1).all()
    assert (batch.places == batch.rows + 5).all()


def test_a_batch_holds_its_roles_in_their_shares_and_every_time(drawn, tiny):
    mix = Mix(twins=0.25, base_prompts=0.25, empty_prompts=0.125)
    seen = [draw_batch(drawn, tiny.scheduler, index=i, size=8, seed=3, mix=mix) for i in range(50)]
    real, asked = (torch.cat([getattr(b, n) for b in seen]).mean() for n in ("real", "asked"))
    assert real == pytest.approx(0.375, abs=0.01)
    assert asked == pytest.approx(0.625, abs=0.01)
    times = torch.cat([b.t for b in seen]).sort().values
    assert times.diff().max() <= 8, "400 draws leave no wide gap"


@pytest.mark.parametrize("scope", ["empty", "full"])
def test_a_useless_map_stops_the_run_with_advice(
    fresh, tmp_path, drawn, make_trainer, monkeypatch, scope
):
    data = replace(drawn, masks=torch.ones_like(drawn.latents[:, :1]) if scope == "full" else None)
    if scope == "empty":
        monkeypatch.setattr(objectives, "answer", lambda one, _: torch.zeros_like(one[:, :1]))
    trainer = make_trainer(
        fresh(), tmp_path / "c", learn=1, align=9, mix=Mix(), data=data,
        weights=replace(ONLY_DENOISE, outside_map=0.1),
    )  # fmt: skip
    trainer.stages[1].objective.stuck += 47
    with pytest.raises(TrainingError, match=f"the control map was {scope} for 50 steps") as caught:
        list(trainer.run())
    assert "align." in caught.value.hint
    assert trainer.done == 3


def test_a_global_attribute_has_no_map(fresh, tmp_path, make_trainer):
    settings = replace(SETTINGS, everywhere=True)
    steps = list(make_trainer(fresh(), tmp_path / "c", settings=settings, mix=Mix()).run())
    assert steps[-1].map_area == 1
    assert steps[-1].terms["outside_map"] == 0


def test_the_response_loss_judges_only_small_times(fresh, tmp_path, drawn, make_trainer):
    data = replace(drawn, masks=None, target=torch.ones(16), embeddings=torch.randn(5, 16))
    seen = []

    def embed(latents):
        seen.append(len(latents))
        return latents.flatten(1)[:, :16]

    weights = replace(ONLY_DENOISE, response=1.0, response_max_t=999)
    trainer = make_trainer(
        fresh(), tmp_path / "c", learn=0, align=1, weights=weights, embed=embed, mix=Mix(),
        data=data,
    )  # fmt: skip
    assert next(trainer.run()).terms["response"] > 0
    assert seen == [4]
    never = replace(weights, response_max_t=-1)
    trainer = make_trainer(
        fresh(), tmp_path / "c", learn=0, align=1, weights=never, embed=embed, data=data
    )
    assert next(trainer.run()).terms["response"] == 0
    assert seen == [4]


@pytest.mark.parametrize("rival", RIVALS)
def test_every_rival_trains_and_starts_where_its_own_term_is_silent(
    fresh, tmp_path, make_trainer, rival
):
    steps = list(
        make_trainer(fresh(), tmp_path / "c", learn=1, align=1, rival=rival, masked=True).run()
    )
    assert [s.stage for s in steps] == [rival] * 2
    own = {k: v for k, v in steps[0].terms.items() if k not in ("denoise", "consistency")}
    if rival in ("l2-to-base", "dop", "masked-prior"):
        assert set(own.values()) == {0}, "a fresh adapter is the base"
    if rival == "dco":
        assert steps[0].loss == pytest.approx(0.6931, abs=1e-4)
    assert steps[1].loss != steps[0].loss


def test_time_weights_grow_with_time_up_to_the_cap_and_have_mean_1(tiny):
    weights = time_weights(tiny.scheduler, 5.0)
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert (weights.diff() >= 0).all()
    assert weights[-1] == weights[-100]
    assert (time_weights(tiny.scheduler, 0) == 1).all()


def test_every_picture_comes_once_before_any_comes_twice(tiny, drawn):
    batches = [
        draw_batch(drawn, tiny.scheduler, index=i, size=2, seed=0, mix=Mix()) for i in range(5)
    ]
    rows = torch.cat([b.rows for b in batches]).tolist()
    assert sorted(rows[:5]) == sorted(rows[5:]) == list(range(5))


def test_a_checkpoint_of_another_run_is_refused(fresh, tmp_path, make_trainer):
    first = make_trainer(fresh(), tmp_path / "c", run_id="one recipe")
    first.save()
    with pytest.raises(CheckpointError, match="another recipe"):
        make_trainer(fresh(), tmp_path / "c", run_id="another recipe").resume()


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x80\x04pickle"])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(CheckpointError, match="no checkpoint that can be read"):
        load_checkpoint(tmp_path / "c")


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint that can be read"):
        load_checkpoint(tmp_path / "nothing")


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    groups = {"a": {"x|y": torch.arange(3), "z": torch.tensor(2.5)}, "b": {"x": torch.zeros(0)}}
    save_checkpoint(tmp_path / "c", groups, {"step": 3, "name": "ü"})
    found, facts = load_checkpoint(tmp_path / "c")
    assert facts == {"step": 3, "name": "ü"}
    assert {g: same(groups[g], found[g]) for g in groups} == {"a": True, "b": True}


def test_a_loss_that_is_not_finite_stops_before_it_touches_the_adapter(
    tiny, tmp_path, make_trainer
):
    trainer = make_trainer(tiny, tmp_path / "c")
    run = trainer.run()
    next(run)
    trainer.save()
    kept = weights_of(trainer)
    trainer.data.latents[:] = float("nan")
    with pytest.raises(TrainingError, match="the loss became nan at step 2"):
        next(run)
    assert same(kept, weights_of(trainer))
    assert load_checkpoint(tmp_path / "c")[1]["step"] == 1


def test_the_rate_warms_up_and_falls_to_nothing():
    rates = [rate_at(i, steps=100, warmup_steps=10) for i in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-3


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(TrainingError, match="no optimizer 'adamx'"):
        make_optimizer("adamx", [], learning_rate=1, weight_decay=0, betas=(0.9, 0.999))


def _draw(base):
    torch.manual_seed(0)
    noisy, states = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 24)
    with torch.no_grad():
        return base.unet(noisy, torch.tensor([5, 500]), states).sample


def test_an_attached_file_draws_what_was_trained_and_detaches_without_a_trace(
    fresh, tmp_path, make_trainer
):
    trained = fresh()
    trainer = make_trainer(trained, tmp_path / "c")
    list(trainer.run())
    adapter = trained_adapter(trained.unet, {})
    other = fresh()
    plain = _draw(other)
    with adapter_off(trained.unet):
        assert torch.equal(_draw(trained), plain)
    with attached(other.unet, [(adapter, 1.0)]):
        torch.testing.assert_close(_draw(other), _draw(trained), atol=1e-5, rtol=1e-5)
    assert torch.equal(_draw(other), plain)
    with attached(other.unet, [(adapter, 0.0)]):
        assert torch.equal(_draw(other), plain)
    with attached(other.unet, [(adapter, 0.25), (adapter, 0.75)]):
        torch.testing.assert_close(_draw(other), _draw(trained), atol=1e-5, rtol=1e-5)


def test_switching_off_and_on_keeps_what_trains(tiny, tmp_path, make_trainer):
    trainer = make_trainer(tiny, tmp_path / "c")
    wanted = {n: p.requires_grad for n, p in tiny.unet.named_parameters()}
    with adapter_off(tiny.unet):
        pass
    assert {n: p.requires_grad for n, p in tiny.unet.named_parameters()} == wanted
    assert sum(wanted.values()) == len(trainer.parameters)


def test_an_adapter_of_another_architecture_is_refused_and_leaves_the_base_alone(tiny, tmp_path):
    import numpy as np

    from spf_lora.adapters.module import Adapter, Module

    plain = _draw(tiny)
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    good = Module(name, np.ones((1, 24), np.float32), np.ones((16, 1), np.float32), 1.0)
    wide = Module(name, np.ones((1, 768), np.float32), np.ones((320, 1), np.float32), 1.0)
    with (
        pytest.raises(AdapterFileError, match="is an update of shape"),
        attached(tiny.unet, [(Adapter({name: good}, {}), 1.0), (Adapter({name: wide}, {}), 1.0)]),
    ):
        pass
    assert torch.equal(_draw(tiny), plain)
    alien = Module("unet.nowhere", good.down, good.up, 1.0)
    with (
        pytest.raises(AdapterFileError, match=r"no module unet\.nowhere"),
        attached(tiny.unet, [(Adapter({"unet.nowhere": alien}, {}), 1.0)]),
    ):
        pass


def test_a_mask_that_somebody_drew_is_the_map(fresh, tmp_path, make_trainer, drawn):
    trainer = make_trainer(fresh(), tmp_path / "c", learn=0, align=1, mix=Mix(), masked=True)
    step = next(trainer.run())
    batch = draw_batch(drawn, trainer.scheduler, index=0, size=4, seed=0, mix=Mix())
    assert step.map_area == pytest.approx(drawn.masks[batch.rows].mean().item())
