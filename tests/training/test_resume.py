"""A run that was stopped and resumed gives the same adapter, bit for bit, as one that was not."""

import shutil
from functools import partial

import pytest
import torch
from tiny_runs import distil, learn, load, portraits, same, trainer, weights_of

from spf_lora.draw import trajectories
from spf_lora.training.checkpoint import load_checkpoint
from spf_lora.training.optim import OPTIMIZERS
from spf_lora.training.trainer import Stage

pytestmark = pytest.mark.usefixtures("few_draws")
LEARN, DISTIL = 2, 2
STEPS = {"learning": 1, "between": LEARN, "distilling": LEARN + 1}


@pytest.fixture(scope="module")
def drawn(tiny_folder):
    return portraits(load(tiny_folder), 3)


def make_in(room, tiny_folder, drawn, checkpoint="c", *, optimizer="adamw8bit", seed=0):
    """Make a trainer of both stages, on a base of its own."""
    stages = partial(learn, LEARN), partial(distil, DISTIL, cache=room / "cache", seed=seed)
    path = room / checkpoint
    return trainer(load(tiny_folder), drawn, path, *stages, optimizer=optimizer)


@pytest.fixture
def make(tiny_folder, drawn, tmp_path):
    return partial(make_in, tmp_path, tiny_folder, drawn)


@pytest.fixture(scope="module")
def whole(tiny_folder, drawn, few_draws, tmp_path_factory):
    """What an undisturbed run learns, and its folder: its cache, a checkpoint after each step."""
    room = tmp_path_factory.mktemp("whole")
    return stopped(make_in(room, tiny_folder, drawn), *STEPS.values()), room


def stopped(run, *steps):
    """Run to the end; save after some steps, each time to a file of its own."""
    for step in run.run():
        if step.index in steps:
            run.save()
            shutil.copy(run.checkpoint, run.checkpoint.with_name(f"after {step.index}"))
    return weights_of(run)


def settings_of(run):
    """Return what the optimizer's groups say beside their parameters."""
    (group,) = run.optimizer.param_groups
    return {name: value for name, value in group.items() if name != "params"}


@pytest.fixture
def packed(monkeypatch):
    """The teachers that pairs were drawn with."""
    real, seen = trajectories._packed, []
    monkeypatch.setattr(
        trajectories,
        "_packed",
        lambda base, teacher, *rest: seen.append(teacher) or real(base, teacher, *rest),
    )
    return seen


@pytest.mark.parametrize("emptied", [False, True], ids=["", "the cache is gone"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    make, whole, tmp_path, packed, step, emptied
):
    weights, room = whole
    shutil.copytree(room, tmp_path, dirs_exist_ok=True)
    if emptied:
        shutil.rmtree(tmp_path / "cache")
    resumed = make(f"after {step}")
    assert resumed.resume() == step
    list(resumed.run())
    assert same(weights, weights_of(resumed))
    assert len(packed) == emptied, "pairs that are there are not drawn again"


# "paged" is where adamw8bit keeps its state; what is in it, the test above has proved
OTHERS = [name for name in OPTIMIZERS if "adamw8bit" not in name]


@pytest.mark.parametrize(
    "optimizer", [*OTHERS, pytest.param("paged-adamw8bit", marks=pytest.mark.slow)]
)
def test_so_it_is_with_every_optimizer(make, optimizer):
    if optimizer == "prodigy":
        pytest.importorskip("prodigyopt")
    whole = stopped(make(optimizer=optimizer), LEARN + 1)
    resumed = make(f"after {LEARN + 1}", optimizer=optimizer)
    resumed.resume()
    list(resumed.run())
    assert same(whole, weights_of(resumed))


def test_the_teacher_of_a_run_resumed_while_distilling_comes_from_its_checkpoint(
    make, tmp_path, packed
):
    run = make()
    for step in run.run():
        if step.index == LEARN:
            learned = weights_of(run)
    run.save()
    left = load_checkpoint(run.checkpoint)[0]["left"]
    assert same(learned, left)
    assert not same(left, weights_of(run))
    (teacher,) = packed
    for name, module in teacher.modules.items():
        path = f"{name.removeprefix('unet.')}.lora_B.default.weight"
        assert torch.equal(torch.from_numpy(module.up), left[path])


@pytest.mark.parametrize("optimizer", ["adamw8bit", "prodigy"])
def test_a_fresh_stage_starts_from_an_adapter_and_an_optimizer_that_know_nothing(make, optimizer):
    if optimizer == "prodigy":
        pytest.importorskip("prodigyopt")
    run = make(optimizer=optimizer)
    untrained, unused = weights_of(run), settings_of(run)
    begin, seen = run.stages[1].begin, {}

    def look(left, tell):
        seen["weights"], seen["left"] = weights_of(run), left
        seen["state"], seen["settings"] = dict(run.optimizer.state), settings_of(run)
        return begin(left, tell)

    second = run.stages[1]
    run.stages = (
        run.stages[0],
        Stage("distil", second.steps, second.objective, second.batch, look, fresh=True),
    )
    list(run.run())
    assert same(seen["weights"], untrained)
    assert not same(seen["left"], untrained)
    assert seen["state"] == {}
    assert seen["settings"] == unused


def test_a_stage_that_is_not_fresh_goes_on_from_the_one_before(tiny_folder, drawn, tmp_path):
    two = trainer(load(tiny_folder), drawn, tmp_path / "c", partial(learn, 1), partial(learn, 1))
    first, second = (weights_of(two) for _ in two.run())
    assert not same(first, second)
    assert same(first, two._left)


def test_the_seed_decides_what_is_drawn_and_distilled(make):
    runs = [make(seed=seed) for seed in (0, 1)]
    for run in runs:
        list(run.run())
    assert not same(*map(weights_of, runs))
