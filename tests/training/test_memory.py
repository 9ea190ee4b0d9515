"""The estimate of memory is checked against what torch's allocator reports of real steps."""

import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from root import ROOT

from spf_lora.adapters.attach import adapter_off, attach_trainable
from spf_lora.base.load import load_base
from spf_lora.training.baselines import RIVALS, RivalObjective
from spf_lora.training.batch import Batch
from spf_lora.training.distil import Distil, Lesson
from spf_lora.training.fit_gpu import base_configs, fit
from spf_lora.training.memory import GPU_OWN, Needs, estimate, optimizer_bytes
from spf_lora.training.objectives import Learn, SpfPortrait, Weights
from spf_lora.training.optim import OPTIMIZERS, make_optimizer
from spf_lora.training.peak_memory import Tally, allocated_peak
from spf_lora.training.precision import set_up
from spf_lora.training.prepare import Prepared

pytestmark = pytest.mark.usefixtures("one_dnn")
FEW = ("--set", "data.batch_size=2")
SD15 = Needs(side=64, pictures=1, preset="attention", rank=8, optimizer="adamw8bit")


def samples(side, pictures, width):
    zero = torch.zeros(pictures, dtype=torch.long)
    latents = torch.randn(pictures, 4, side, side)
    states, one = torch.randn(pictures, 77, width), torch.ones(pictures)
    groups = torch.eye(77).expand(pictures, 77, 77)
    batch = Batch(
        noise=latents.flip(3),
        noisy=latents,
        t=zero,
        rows=zero,
        base_states=states,
        full_states=states.flip(1),
        base_groups=groups,
        full_groups=groups,
        real=one,
    )
    data = Prepared(
        latents=latents,
        sizes=((side, side),) * len(latents),
        base_states=states,
        full_states=states,
        base_groups=groups,
        full_groups=groups,
        phrases=torch.ones(pictures, 77),
    )
    return batch, data


def measured(unet, needs, width, *, distils=False):
    """Run one real step as the trainer does; return what the allocator held at its peak."""
    parameters = attach_trainable(unet, preset=needs.preset, rank=needs.rank, alpha=1.0, seed=0)
    set_up(unet, precision=needs.precision, gradient_checkpointing=needs.gradient_checkpointing)
    batch, data = samples(needs.side, needs.pictures, width)
    objective = Learn(unet, data)
    if distils:
        objective = Distil(unet, torch.ones(1000), partial(adapter_off, unet))
        places = torch.ones_like(batch.noise[:, :1])
        batch = Lesson(
            batch.noisy, batch.t, batch.full_states, batch.noise, batch.real, places, 0 * batch.real
        )
    elif needs.watched:
        objective = SpfPortrait(unet, data, weights=Weights(), alphas=torch.ones(1000), embed=None)
    elif needs.dual:
        objective = RivalObjective(unet, data, RIVALS["l2-to-base"], weight=1.0)

    def step():
        for parameter in parameters.values():
            parameter.grad = None
        objective(batch).loss.backward()

    step()
    return allocated_peak(step)


def step_of(found):
    return found.total - found.weights - found.adapter - found.optimizer


@pytest.mark.parametrize(
    "how",
    [
        {"dual": False, "gradient_checkpointing": True},
        pytest.param({"watched": True, "gradient_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"dual": False}, marks=pytest.mark.slow),
        pytest.param(
            {"precision": "bf16", "preset": "full", "rank": 32, "cuda": False},
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda how: "-".join(how) or "dual",
)
def test_the_estimate_is_what_a_real_step_holds(tiny_folder, how):
    needs = replace(SD15, side=16, pictures=2, **how)
    unet, vae = base_configs(str(tiny_folder))
    base = load_base(str(tiny_folder), device=torch.device("cpu"))
    found = step_of(estimate(unet, vae, needs))
    assert measured(base.unet, needs, 24) == pytest.approx(found, rel=0.15)


def test_a_step_of_stage_2_holds_no_more_than_one_of_stage_1(tiny_folder):
    needs = replace(SD15, side=16, pictures=2, dual=False)
    learn, distil = (
        measured(load_base(str(tiny_folder), device=torch.device("cpu")).unet, needs, 24, distils=d)
        for d in (False, True)
    )
    assert distil == pytest.approx(learn, rel=0.02)


@pytest.mark.slow
def test_parts_of_the_estimate_follow_from_the_settings(tiny_folder):
    unet, vae = base_configs(str(tiny_folder))
    small = replace(SD15, side=16, watched=True)
    one = estimate(unet, vae, replace(small, response=True))
    base = load_base(str(tiny_folder), device=torch.device("cpu"))
    frozen, vae_too = (sum(p.numel() for p in m.parameters()) for m in (base.unet, base.vae))
    assert one.weights == 4 * (frozen + vae_too), "a response loss decodes"
    assert one.adapter == one.gradients
    assert min(one.reference_targets, one.response_loss) > 0
    plain = replace(small, dual=False)
    half = estimate(unet, vae, replace(plain, precision="bf16"))
    assert half.weights == 2 * frozen
    assert half.reference_targets == half.response_loss == 0
    one, two = (estimate(unet, vae, replace(plain, pictures=n)) for n in (1, 2))
    assert two.activations == pytest.approx(2 * one.activations, rel=0.1)
    kept = estimate(unet, vae, replace(plain, gradient_checkpointing=True))
    assert kept.activations < 0.8 * one.activations


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizers_bytes_are_those_of_its_state(name):
    if name == "prodigy":
        pytest.importorskip("prodigyopt")
    parameters = [torch.nn.Parameter(torch.randn(n)) for n in (64, 4096, 10_000)]
    made = make_optimizer(name, parameters, learning_rate=1e-3, weight_decay=0, betas=(0.9, 0.999))
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    made.step()
    state = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for p in parameters
        for key, tensor in made.state[p].items()
        if isinstance(tensor, torch.Tensor) and not key.startswith("qmap")  # one table for all
    }
    found = optimizer_bytes(name, [p.numel() for p in parameters])
    assert found == pytest.approx(sum(state.values()), rel=0.01)


def test_a_tally_counts_what_lives_and_forgets_what_went():
    before = torch.zeros(10)
    with Tally([before]) as tally:
        kept = before + 1
        _gone = torch.zeros(1000)
        del _gone
        view = kept[:5]
    assert tally.live == 40
    assert tally.peak == 4040
    assert view.untyped_storage().data_ptr() == kept.untyped_storage().data_ptr()


def test_a_convolutions_backward_pass_holds_its_weights_twice():
    conv = torch.nn.Conv2d(640, 640, 3, padding=1).requires_grad_(False)
    pixels = torch.randn(1, 640, 8, 8, requires_grad=True)

    def step():
        pixels.grad = None
        conv(pixels).square().mean().backward()

    step()
    with Tally([pixels, *conv.parameters()]) as tally:
        step()
    assert tally.peak == pytest.approx(allocated_peak(step), rel=0.15)


def test_a_dry_run_prints_the_plan_and_what_fits_and_trains_nothing(
    cli, tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, said, _ = cli(
        "train", "-a", "hat", "--base", tiny_folder, "--dry-run", "--vram", "0.5", *FEW
    )
    assert code == 0
    assert "attention adapter of rank 16, adamw8bit, fp32" in said
    assert "peak of a step" in said
    assert re.search(r"draw pairs to learn from +\d+ (s|min)\n", said)
    assert re.search(r"in all +\d+ (s|min)\n", said)
    assert "nothing here fits 0.5 GB" in said, "CUDA itself takes more"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("px", [256, 512])
def test_the_estimate_holds_for_the_full_model(px, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from step import full_unet

    unet, vae = base_configs("owner/some-sd15")
    for watched in (False, True):
        needs = replace(SD15, side=px // 8, watched=watched)
        real = measured(full_unet(torch.device("cpu")), needs, 768)
        assert real == pytest.approx(step_of(estimate(unet, vae, needs)), rel=0.15)


@pytest.mark.slow
def test_cudas_autocast_computes_norms_in_fp32_and_so_keeps_more(tiny_folder):
    unet, vae = base_configs(str(tiny_folder))
    needs = replace(SD15, side=16, dual=False)
    half = replace(needs, precision="bf16")
    cuda, cpu = (estimate(unet, vae, replace(half, cuda=kind)) for kind in (True, False))
    assert cuda.activations > 1.05 * cpu.activations
    assert cuda.weights == cpu.weights
    fp32 = [estimate(unet, vae, replace(needs, cuda=kind)) for kind in (True, False)]
    assert fp32[0] == fp32[1]


@pytest.mark.slow
def test_settings_are_found_for_small_gpus():
    from spf_lora.recipe.files import find_recipe
    from spf_lora.recipe.load import load_recipe

    recipe = load_recipe(find_recipe("beard"), ["training.base=owner/sd15"])
    changes = {vram: fit(recipe, vram) for vram in (4, 8, 24)}
    assert all(found.needs.total + GPU_OWN <= vram * 1e9 for vram, found in changes.items())
    assert changes[24].changes == ()
    assert "training.precision=bf16" in changes[4].changes
