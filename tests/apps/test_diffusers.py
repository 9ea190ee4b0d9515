"""Local drawing in a pipeline of diffusers is `draw.local`'s, and leaves the pipeline alone."""

import copy
import shutil
from functools import partial

import diffusers
import pytest
import torch
from made_evaluations import random_adapter
from root import ROOT
from tiny_base import noisy_adapter

from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.apps import pipeline as apps_pipeline
from spf_lora.apps.diffusers import local
from spf_lora.base.load import load_base
from spf_lora.base.texts import encode
from spf_lora.draw.late import Late
from spf_lora.draw.local import Asking, sample_locally
from spf_lora.draw.sample import start_noise
from spf_lora.draw.weights import attached
from spf_lora.errors import PromptError
from spf_lora.method import control_map

DETERMINISTIC = [
    "DDIMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
]
HOW = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "latent"}


def pipeline(base):
    """Return a standard pipeline with a U-Net of its own, since LoRAs are put into it."""
    pipe = diffusers.StableDiffusionPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=copy.deepcopy(base.unet),
        scheduler=base.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def worn(tiny_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("worn") / "hat.safetensors"
    write_adapter(noisy_adapter(tiny_folder), path)
    return path


@pytest.fixture(scope="module")
def dressed(tiny_folder, worn):
    made = pipeline(load_base(str(tiny_folder), device=torch.device("cpu")))
    made.load_lora_weights(worn, adapter_name="hat")
    return made


@pytest.fixture
def pipe(dressed):
    scheduler = dressed.scheduler
    yield dressed
    dressed.scheduler = scheduler


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def draw(pipe, prompt="a man, a hat", base_prompt="a man", adapters=None, **how):
    given = {"generator": seeded(), **HOW, **how}
    return local(pipe, prompt, base_prompt, adapters or {"hat": 1.0}, **given).images


def plain(pipe, prompt, *, on, **how):
    pipe.enable_lora() if on else pipe.disable_lora()
    return pipe(prompt, **{"generator": seeded(), **HOW, **how}).images


@pytest.mark.parametrize("kind", ["tiny", pytest.param("embedded", marks=pytest.mark.slow)])
def test_it_draws_what_the_runtime_draws_for_one_adapter_and_for_two(kind, request, worn, tmp_path):
    base = request.getfixturevalue(kind)
    made = pipeline(base)
    files = {name: ROOT / f"adapters/demo/{name}.safetensors" for name in ("beard", "glasses")}
    if kind == "tiny":
        files = {"beard": worn, "glasses": tmp_path / "glasses.safetensors"}
        write_adapter(random_adapter(base.unet), files["glasses"])
    for name, file in files.items():
        made.load_lora_weights(file, adapter_name=name)
    rows = [(read_adapter(file), 1.0) for file in files.values()]
    full, beard, glasses, bare = (
        f"a portrait of a person, tan skin, black hair{words}"
        for words in (", a beard, glasses", ", a beard", ", glasses", "")
    )
    how = {"steps": 2, "guidance": 3.0}
    for prompt, adapters, each in ((beard, rows[:1], ()), (full, rows, (beard, glasses))):
        on = partial(attached, base.unet, adapters)
        asking = [Asking(encode(base, [one]), on) for one in each]
        states, within = (encode(base, [one]) for one in (prompt, bare))
        expected = sample_locally(base, states, [7], within=within, acting=on, each=asking, **how)
        found = local(
            made,
            prompt,
            bare,
            dict.fromkeys(list(files)[: len(adapters)], 1.0),
            each=each,
            latents=start_noise(base, [7]),
            **HOW,
        ).images
        # LoRAs beside the weights and within them are the same up to rounding
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)


def test_a_late_start_is_the_runtimes(pipe, tiny, worn):
    on = partial(attached, tiny.unet, [(read_adapter(worn), 1.0)], start_percent=0.5)
    states, within = (encode(tiny, [one]) for one in ("a man, a hat", "a man"))
    late = [Late(["a man"], 0.5)]
    how = {"steps": 2, "guidance": 3.0, "late": late}
    expected = sample_locally(tiny, states, [7], within=within, acting=on, **how)
    noise = start_noise(tiny, [7])
    found = draw(pipe, latents=noise, start_percent=0.5)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(found, draw(pipe, latents=noise), atol=1e-2)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_every_deterministic_scheduler_keeps_the_bases_picture_outside(pipe, name, monkeypatch):
    config = {**pipe.scheduler.config, "skip_prk_steps": True}  # PNDM's, as SD1.5 has it
    pipe.scheduler = getattr(diffusers, name).from_config(config)
    where = torch.zeros(1, 1, 8, 8)
    where[..., :4] = 1
    monkeypatch.setattr(control_map, "region", lambda *_, area_cap: where)
    base = plain(pipe, "a man", on=False)
    found = draw(pipe)
    assert torch.equal(found[..., 4:], base[..., 4:])
    assert (found != base)[..., :4].all()


def test_where_all_answers_the_picture_is_the_adapters(pipe, monkeypatch):
    monkeypatch.setattr(control_map, "region", lambda *_, area_cap: torch.ones(1, 1, 8, 8))
    torch.testing.assert_close(draw(pipe), plain(pipe, "a man, a hat", on=True))


def test_a_prompt_that_asks_for_nothing_is_the_bases_picture_bit_for_bit(pipe):
    base = plain(pipe, ["a man"] * 2, on=False, num_images_per_prompt=2)
    found = draw(pipe, ["a man", "a man, a hat"], ["a man"] * 2, num_images_per_prompt=2)
    assert torch.equal(found[:2], base[:2])
    assert (found[2:] != base[2:]).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_predictions_of_every_kind_are_measured_as_pictures(pipe, kind, monkeypatch):
    """Apart is what diffusers' own step makes of two predictions from one place."""
    schedule = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, prediction_type=kind)
    pipe.scheduler, seen = schedule, []
    monkeypatch.setattr(
        control_map, "region", lambda *along, area_cap: seen.append(along) or along[0] * 0
    )
    distances = []
    monkeypatch.setattr(
        control_map, "apart", lambda one, other: distances.append((one, other)) or one[:, :1]
    )
    draw(pipe, num_inference_steps=1)
    schedule.set_timesteps(1)
    t = schedule.timesteps[0]
    one, other = distances[0]
    noisy = torch.zeros_like(one)
    pictures = [schedule.step(p, t, noisy).pred_original_sample for p in (one, other)]
    wanted = (pictures[0] - pictures[1]).abs().max() / (one - other).abs().max()
    torch.testing.assert_close((seen[0][0] / one[:, :1]).mean(), wanted, atol=1e-4, rtol=1e-4)


def test_slices_and_halves_are_drawn_with(pipe):
    expected = draw(pipe)
    pipe.enable_attention_slicing()
    torch.testing.assert_close(draw(pipe), expected, atol=1e-4, rtol=1e-4)
    pipe.disable_attention_slicing()
    half = copy.deepcopy(pipe).to(torch.float16)
    found = draw(half)
    assert found.dtype == torch.float16
    assert (found.float() - expected).abs().mean() < 0.02 * expected.abs().mean()


@pytest.mark.slow  # a minute of tracing
def test_a_compiled_network_is_drawn_with(pipe):
    compiled = copy.deepcopy(pipe)
    compiled.unet.compile(backend="eager")
    torch.testing.assert_close(draw(compiled), draw(pipe), atol=1e-4, rtol=1e-4)


def test_without_guidance_it_draws_too(pipe):
    base = plain(pipe, "a man", on=False, guidance_scale=1.0)
    moved = (draw(pipe, guidance_scale=1.0) != base).any(dim=1).float().mean()
    assert 0 < moved < 1


def test_the_pipeline_is_left_as_it_was_even_if_it_is_cancelled(pipe, worn):
    pipe.load_lora_weights(worn, adapter_name="cap")
    pipe.set_adapters(["cap"], [0.3])
    before = pipe("a man", **HOW, generator=seeded()).images
    draw(pipe)
    assert pipe.get_active_adapters() == ["cap"]
    assert torch.equal(pipe("a man", **HOW, generator=seeded()).images, before)
    calls = []

    def cancel(*_):
        calls.append(True)
        if len(calls) == 3:  # of 12: within the second run
            raise KeyboardInterrupt

    handle = pipe.unet.register_forward_pre_hook(cancel)
    with pytest.raises(KeyboardInterrupt):
        draw(pipe)
    handle.remove()
    hooks = len(pipe.unet._forward_hooks) + len(pipe.unet._forward_pre_hooks)
    assert pipe.get_active_adapters() == ["cap"]
    assert torch.equal(pipe("a man", **HOW, generator=seeded()).images, before)
    assert hooks == 0
    pipe.delete_adapters("cap")


def test_a_models_folder_with_our_pipeline_draws_locally(pipe, tiny, worn, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", tmp_path / "cache"
    )
    folder = tmp_path / "model"
    pipeline(tiny).save_pretrained(folder)
    shutil.copy(apps_pipeline.__file__, folder)
    loaded = diffusers.DiffusionPipeline.from_pretrained(
        folder, custom_pipeline="pipeline", trust_remote_code=True
    )
    assert type(loaded).__name__ == "LocalStableDiffusionPipeline"
    loaded.set_progress_bar_config(disable=True)
    loaded.load_lora_weights(worn, adapter_name="hat")
    given = {"base_prompt": "a man", "adapters": {"hat": 1.0}, "generator": seeded(), **HOW}
    assert torch.equal(loaded("a man, a hat", **given).images, draw(pipe))
    assert torch.equal(plain(loaded, "a man", on=False), plain(pipe, "a man", on=False))
    with pytest.raises(PromptError, match="no LoRA is named"):
        loaded("a man, a hat", base_prompt="a man", **HOW)
    with pytest.raises(PromptError, match="with and without"):
        loaded("a man, a hat", adapters={"hat": 1.0}, **HOW)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"adapters": {"scarf": 1.0}}, "has not loaded scarf"),
        ({"prompt": ["a", "b"]}, "2 prompts and 1 base prompts"),
        ({"start_percent": 1.0}, "no share of the steps"),
        ({"each": ["a man, a hat", "a man"]}, "1 LoRAs and 2 prompts"),
        ({"callback_on_step_end": print}, "callback_on_step_end of its own"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is(pipe, given, said):
    with pytest.raises(PromptError, match=said):
        draw(pipe, **given)


def test_no_lora_and_another_kind_of_pipeline_are_refused(pipe):
    with pytest.raises(PromptError, match="no LoRA is named"):
        local(pipe, "a", "a", {}, **HOW)
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(PromptError, match="predictions of the type flow"):
        draw(pipe)
