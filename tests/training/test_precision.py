"""What changes memory and time must not change what is learned."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import PLAN as SMALL_PLAN
from tiny_runs import distil, learn, load, paper, portraits, some_teacher
from tiny_runs import trainer as tiny_trainer

from spf_lora.errors import RecipeError, TrainingError
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.training.objectives import Weights

pytestmark = pytest.mark.usefixtures("few_draws")
PLAN = replace(SMALL_PLAN, batch_size=8, learning_rate=0.1, max_grad_norm=1e6)
WEIGHTS = Weights(denoise=2.0, fine_grained=0.5, response=1.0, response_max_t=600, phrases=0.1)


def eight_portraits(folder):
    data = portraits(load(folder), 8)
    return replace(data, masks=None, target=torch.ones(16), embeddings=torch.ones(8, 16))


def make_trainer(folder, drawn, *, plan=PLAN, steps=1, processes=None, **how):
    """Return a trainer of every term, by plain gradient descent: it hides no difference."""
    stages = (
        partial(learn, 1),
        partial(paper, steps, weights=WEIGHTS, embed=lambda latents: latents.flatten(1)[:, :16]),
        partial(
            distil, 1, cache=folder.parent / "cache", teacher=some_teacher(folder), fresh=False
        ),
    )
    return tiny_trainer(
        load(folder),
        drawn,
        folder.parent / "c",
        *stages,
        plan=plan,
        optimizer=None,
        processes=processes,
        **how,
    )


@pytest.fixture(scope="module")
def eight(tiny_folder):
    return eight_portraits(tiny_folder)


@pytest.fixture
def trainer(tiny_folder, eight):
    return partial(make_trainer, tiny_folder, eight)


def moved(trainer):
    """Train; return how each tensor moved, the steps, and the largest move."""
    before = {n: p.detach().clone() for n, p in trainer.parameters.items()}
    steps = list(trainer.run())
    return {n: p.detach() - before[n] for n, p in trainer.parameters.items()}, steps


@pytest.fixture(scope="module")
def plainly(tiny_folder, eight, few_draws):
    """How a trainer without any of this moves."""
    return moved(make_trainer(tiny_folder, eight))


def distance(one, other):
    """Return the largest difference, as a share of the largest move."""
    largest = max(move.abs().max() for move in one.values())
    assert largest > 1e-4, "something was learned"
    return max((one[n] - other[n]).abs().max() for n in one) / largest


def test_four_passes_of_two_pictures_equal_one_of_eight(trainer, plainly):
    once, steps = plainly
    often, parts = moved(trainer(plan=replace(PLAN, passes=4)))
    assert distance(once, often) < 1e-4  # sums of fp32 in another order, over three steps
    for step, part in zip(steps, parts, strict=True):
        assert part.loss == pytest.approx(step.loss, rel=1e-4)
        assert part.terms == pytest.approx(step.terms, rel=1e-3, abs=1e-7)
        assert part.map_area == (step.map_area and pytest.approx(step.map_area, rel=1e-3))


@pytest.mark.parametrize(
    "how",
    [{"gradient_checkpointing": True}, {"channels_last": True}],
    ids=lambda how: next(iter(how)),
)
def test_what_is_kept_and_how_it_lies_in_memory_changes_nothing(trainer, plainly, how):
    plain, _ = plainly
    other, _ = moved(trainer(**how))
    assert distance(plain, other) < 1e-4


def test_gradient_checkpointing_keeps_less(trainer):
    def kept(**how):
        made, sizes = trainer(**how), {}

        def note(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            next(made.run())
        return sum(sizes.values())

    assert kept(gradient_checkpointing=True) < 0.7 * kept()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_keeps_the_adapter_exact_and_learns_nearly_the_same(
    trainer, plainly, precision
):
    plan = replace(PLAN, scaled=precision == "fp16")
    exact, wanted = plainly
    made = trainer(plan=plan, precision=precision)
    half, steps = moved(made)
    assert {p.dtype for p in made.parameters.values()} == {torch.float32}
    frozen = {p.dtype for n, p in made.unet.named_parameters() if n not in made.parameters}
    assert frozen == {torch.bfloat16 if precision == "bf16" else torch.float16}
    learned = [s.loss for s in wanted if s.stage == "learn"]  # pairs are drawn in it too, so differ
    assert [s.loss for s in steps if s.stage == "learn"] == pytest.approx(learned, rel=0.1)
    assert distance(exact, half) < 1.5  # 8 bits of mantissa; the loss is the sharper check


def test_a_run_in_fp16_resumes_with_the_scale_of_its_loss(trainer):
    plan = replace(PLAN, scaled=True)
    first = trainer(plan=plan, precision="fp16")
    first.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run = first.run()
    next(run)
    first.save()
    second = trainer(plan=plan, precision="fp16")
    assert second.resume() == 1
    assert second.scaler.get_scale() == 1024
    list(first.run())
    list(second.run())
    assert all(torch.equal(p, second.parameters[n]) for n, p in first.parameters.items())


def test_gradients_that_overflow_for_long_stop_a_run_in_fp16(trainer):
    made = trainer(plan=replace(PLAN, scaled=True), precision="fp16", steps=60)
    made.scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    before = {n: p.detach().clone() for n, p in made.parameters.items()}
    next(made.run())
    assert all(torch.equal(before[n], p) for n, p in made.parameters.items()), (
        "that step is skipped"
    )
    assert made.skipped == 1
    made.skipped = 30
    made.scaler.update(3e38)
    with pytest.raises(TrainingError, match="the gradient's norm became"):
        next(made.run())


def test_passes_must_divide_the_batch():
    with pytest.raises(RecipeError, match=r"data\.passes must divide data\.batch_size, which is 8"):
        load_recipe(find_recipe("beard"), ["data.passes=3"])


def launched(*words):
    """Run a script or module in two CPU processes; `accelerate launch` does so on GPUs only."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_with_twice_the_batch(trainer, tiny_folder, tmp_path):
    one = trainer()
    _, steps = moved(one)
    launched(Path(__file__).with_name("two_processes.py"), tiny_folder, tmp_path / "two")
    two = load_file(tmp_path / "two")
    losses = two.pop("losses").tolist()
    assert losses == pytest.approx([step.loss for step in steps], rel=1e-4)
    assert two.keys() == one.parameters.keys()
    assert max((one.parameters[n] - two[n]).abs().max() for n in two) <= 1e-5


@pytest.mark.slow
def test_of_two_processes_one_writes_and_talks(tiny_folder, tmp_path):
    words = "train -a hat --steps 4 --set data.count=8 --set data.batch_size=2"
    out = tmp_path / "hat.safetensors"
    done = launched(
        Path(__file__).parents[1] / "hasty.py", *words.split(), "--base", tiny_folder, "--out", out
    )
    assert done.stdout.count("hat.safetensors") == 1
    assert done.stderr.count("in 2 processes") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hat.png", "hat.safetensors"]


@pytest.mark.slow
def test_two_processes_draw_each_half_of_the_pairs_and_all_are_those_of_one(tiny_folder, tmp_path):
    script = Path(__file__).with_name("two_drawers.py")
    done = launched(script, tiny_folder, tmp_path / "two")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(script), str(tiny_folder), str(tmp_path / "one")]
    subprocess.run(words, env=env, check=True, timeout=300)
    one, two = (
        {p.name: p.read_bytes() for p in (tmp_path / name).rglob("*.safetensors")}
        for name in ("one", "two")
    )
    assert len(one) == 3
    assert one == two
    assert "process 0 made 2 and found 3" in done.stdout
    assert "process 1 made 1 and found 3" in done.stdout
    assert "process 0 told [0, 16, 20]" in done.stdout  # the others' pairs count too
