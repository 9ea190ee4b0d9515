import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_runs import (
    PLAN,
    drawing,
    learn,
    load,
    portraits,
    same,
    trainer,
    weights_of,
)

from spf_lora.adapters.attach import adapter_off, trained_adapter
from spf_lora.draw.weights import attached
from spf_lora.errors import AdapterFileError, CheckpointError, TrainingError
from spf_lora.training.checkpoint import load_checkpoint, save_checkpoint
from spf_lora.training.optim import make_optimizer, rate_at


@pytest.fixture(scope="module")
def drawn(tiny_folder):
    """The tensors of five portraits."""
    return replace(portraits(load(tiny_folder), 5), masks=None)


@pytest.fixture
def fresh(tiny_folder):
    return lambda: load(tiny_folder)


@pytest.fixture
def learning(drawn, tmp_path):
    """Makes a trainer of one stage that learns."""

    def make(base, *, steps=3, **more):
        data = replace(drawn, latents=drawn.latents.clone())
        plan = more.get("plan", PLAN)
        stage = partial(learn, steps, seed=plan.seed)
        return data, trainer(base, data, tmp_path / "c", stage, **more)

    return make


def test_two_steps_move_every_tensor_of_the_adapter_and_none_of_the_base(tiny, learning):
    _, trainer = learning(tiny, steps=2)
    frozen = {n: p.clone() for n, p in tiny.unet.named_parameters() if n not in trainer.parameters}
    before = weights_of(trainer)
    list(trainer.run())  # the first step moves only `up`: `down` has no gradient while up is 0
    assert all(not torch.equal(before[n], p) for n, p in trainer.parameters.items())
    assert all(torch.equal(frozen[n], tiny.unet.get_parameter(n)) for n in frozen)


def test_the_seed_decides_the_adapter(fresh, learning):
    runs = [learning(fresh(), plan=replace(PLAN, seed=s))[1] for s in (1, 1, 2)]
    for run in runs:
        list(run.run())
    assert same(weights_of(runs[0]), weights_of(runs[1]))
    assert not same(weights_of(runs[0]), weights_of(runs[2]))


def test_every_picture_comes_once_before_any_comes_twice(tiny, drawn):
    batches = [drawing(drawn, tiny)(i, 2) for i in range(5)]
    rows = torch.cat([b.rows for b in batches]).tolist()
    assert sorted(rows[:5]) == sorted(rows[5:]) == list(range(5))


def test_a_batch_holds_every_time(tiny, drawn):
    draw = drawing(drawn, tiny, seed=3)
    times = torch.cat([draw(i, 8).t for i in range(50)]).sort().values
    assert times.diff().max() <= 8, "400 draws leave no wide gap"


def test_a_checkpoint_of_another_run_is_refused(fresh, learning):
    learning(fresh(), run_id="one recipe")[1].save()
    with pytest.raises(CheckpointError, match="another recipe"):
        learning(fresh(), run_id="another recipe")[1].resume()


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


@pytest.mark.parametrize(
    ("old", "new"), [(b'"step', b'"stop'), (b": 3", b": 4"), (b"\x07", b"\x06")]
)
def test_a_checkpoint_of_which_one_byte_is_another_is_refused(tmp_path, old, new):
    save_checkpoint(
        tmp_path / "c", {"a": {"x": torch.full((3,), 7)}}, {"step": 3, "grow": math.inf}
    )
    assert load_checkpoint(tmp_path / "c")[1]["grow"] == math.inf
    data = (tmp_path / "c").read_bytes()
    at = data.rindex(old)
    (tmp_path / "c").write_bytes(data[:at] + new + data[at + len(old) :])
    with pytest.raises(CheckpointError, match="it is not as it was written"):
        load_checkpoint(tmp_path / "c")


def test_a_loss_that_is_not_finite_stops_before_it_touches_the_adapter(tiny, tmp_path, learning):
    data, trainer = learning(tiny)
    run = trainer.run()
    next(run)
    trainer.save()
    kept = weights_of(trainer)
    data.latents[:] = float("nan")
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


def test_an_attached_file_draws_what_was_trained_and_detaches_without_a_trace(fresh, learning):
    trained = fresh()
    list(learning(trained)[1].run())
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


def test_switching_off_and_on_keeps_what_trains(tiny, learning):
    _, trainer = learning(tiny)
    wanted = {n: p.requires_grad for n, p in tiny.unet.named_parameters()}
    with adapter_off(tiny.unet):
        pass
    assert {n: p.requires_grad for n, p in tiny.unet.named_parameters()} == wanted
    assert sum(wanted.values()) == len(trainer.parameters)


def test_an_adapter_of_another_architecture_is_refused_and_leaves_the_base_alone(tiny):
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
