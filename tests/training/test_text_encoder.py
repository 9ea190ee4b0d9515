"""A recipe with `adapter.text_encoder`: the text encoder's LoRA is trained, written and drawn."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tiny_base import text_adapter
from tiny_runs import load

from spf_lora.adapters.attach import (
    adapter_off,
    attach_trainable,
    attach_trainable_text,
    trained_adapter,
)
from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.base.texts import encode, token_ids
from spf_lora.draw.act import acting, draw
from spf_lora.draw.weights import attached
from spf_lora.errors import AdapterFileError, RecipeError
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.training.encoders import ReadingUnet
from spf_lora.training.fit_gpu import base_configs, needs_of, trained_text
from spf_lora.training.memory import estimate

SMALL = (
    "--set",
    "data.count=4",
    "--set",
    "data.batch_size=2",
    "--set",
    "adapter.text_encoder=true",
)
PROMPTS = ["a man, a hat", "a woman, a hat"]


def of_text(adapter):
    return {name: m for name, m in adapter.modules.items() if name.startswith("text_encoder.")}


def test_both_parts_learn_in_both_stages_and_are_in_the_file(
    cli, tiny_folder, few_draws, in_a_clone
) -> None:
    path, kept = Path("adapters/hat.safetensors"), Path("adapters/hat-steps")
    words = ("-a", "hat", "--base", tiny_folder, "--steps", "4", "--keep-every", "2", *SMALL)
    code, _, talk = cli("train", *words)
    assert code == 0, talk
    with safe_open(path, "np") as file:
        keys = [key for key in file.keys() if key.startswith("lora_te_text_model_encoder_")]  # noqa: SIM118
    assert len(keys) == 2 * 6 * 3, "two layers, six modules each: down, up, alpha"
    learned = read_adapter(next(kept.glob("*.safetensors")))
    for adapter in (learned, read_adapter(path)):
        assert all(abs(module.up).max() > 0 for module in of_text(adapter).values())


def test_a_stopped_run_goes_on_to_the_same_file(
    cli, tiny_folder, few_draws, in_a_clone, monkeypatch
) -> None:
    from spf_lora.training.trainer import Trainer

    words = ("train", "-a", "hat", "--base", tiny_folder, "--steps", "4", *SMALL)
    assert cli(*words, "--out", "whole.safetensors")[0] == 0
    run = Trainer.run

    def stopped(self):
        for step in run(self):
            yield step
            if step.index == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run", stopped)
        assert cli(*words, "--out", "again.safetensors")[0] == 130
    code, _, talk = cli(*words, "--out", "again.safetensors", "--resume")
    assert code == 0, talk
    assert Path("again.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()


def test_the_trained_part_reads_prompts_as_the_finished_one_does(tiny_folder) -> None:
    base = load(tiny_folder)
    before = encode(base, PROMPTS)
    attach_trainable(base.unet, preset="kv", rank=2, alpha=2.0, seed=0)
    parts = attach_trainable_text(base.text_encoder, rank=2, alpha=2.0, seed=0)
    assert torch.equal(encode(base, PROMPTS), before), "an untrained part changes nothing"
    torch.manual_seed(0)
    with torch.no_grad():
        for part in parts.values():
            part.add_(0.1 * torch.randn(part.shape))
    now = encode(base, PROMPTS)
    assert (now - before).abs().max() > 1e-3
    with adapter_off(base.unet, base.text_encoder):
        assert torch.equal(encode(base, PROMPTS), before)
    adapter = trained_adapter(base.unet, {}, text_encoder=base.text_encoder)
    other = load(tiny_folder)
    with attached(other.unet, [(adapter, 1.0)], text_encoder=other.text_encoder):
        assert torch.allclose(encode(other, PROMPTS), now, atol=1e-5)
    assert torch.equal(encode(other, PROMPTS), before)


def test_a_unet_that_reads_ids_passes_the_gradient_on(tiny_folder) -> None:
    base = load(tiny_folder)
    parts = attach_trainable_text(base.text_encoder, rank=2, alpha=2.0, seed=0)
    noisy, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 500])
    ids = token_ids(base.tokenizer, PROMPTS)
    eps = ReadingUnet(base.unet, base.text_encoder)(noisy, t, ids, return_dict=False)[0]
    assert torch.allclose(eps, base.unet(noisy, t, encode(base, PROMPTS), return_dict=False)[0])
    eps.square().mean().backward()
    ups = [p.grad.abs().max() for name, p in parts.items() if "lora_B" in name]
    assert min(ups) > 0


def test_pictures_are_drawn_with_the_part_for_every_prompt(tiny_folder) -> None:
    base, adapter = load(tiny_folder), text_adapter(tiny_folder)

    def drawn(acts):
        return draw(base, PROMPTS, [1, 2], acts, steps=2)

    plain = drawn(acting(None))
    assert drawn(acting(adapter))[0].tobytes() != plain[0].tobytes()
    assert drawn(acting([(adapter, 0.0)]))[0].tobytes() == plain[0].tobytes()
    assert drawn(acting(None))[0].tobytes() == plain[0].tobytes(), "it is off again"


def test_local_drawing_leaves_the_reference_to_the_frozen_text_encoder(tiny_folder) -> None:
    from spf_lora.draw.prompts import Prompt

    base, adapter = load(tiny_folder), text_adapter(tiny_folder)
    own = draw(base, ["a man"], [1], steps=2)[0]
    asks = [Prompt("a man", within="a man"), Prompt("a man, a hat", within="a man")]
    same, other = draw(base, asks, [1, 1], acting(adapter, local=True), steps=2)
    assert same.tobytes() == own.tobytes(), "a prompt that does not ask has the base's picture"
    assert other.tobytes() != own.tobytes()


def test_what_cannot_be_is_refused(tiny_folder) -> None:
    base, adapter = load(tiny_folder), text_adapter(tiny_folder)
    with pytest.raises(AdapterFileError, match=r"no module text_encoder\.") as refused:
        draw(base, PROMPTS, [1, 2], acting(adapter, words=["a hat"]), steps=2)
    assert "--exact" in refused.value.hint
    with (
        pytest.raises(AdapterFileError, match=r"no module text_encoder\."),
        attached(base.unet, [(adapter, 1.0)]),
    ):
        pass
    for method in ("dop", "spf-portrait"):
        with pytest.raises(RecipeError, match=f"cannot be trained with training.method {method}"):
            load_recipe(
                find_recipe("hat"), ["adapter.text_encoder=true", f"training.method={method}"]
            )


def test_the_memory_estimate_counts_the_part(tiny_folder) -> None:
    recipes = [
        load_recipe(
            find_recipe("hat"),
            [f"training.base={tiny_folder}", f"adapter.text_encoder={on}", "data.batch_size=2"],
        )
        for on in ("false", "true")
    ]
    unet, vae = base_configs(str(tiny_folder))
    without, with_it = (
        estimate(unet, vae, replace(needs_of(one, unet, vae), cuda=False), trained_text(one))
        for one in recipes
    )
    base = load(tiny_folder)
    rank = recipes[0].adapter.rank
    parts = attach_trainable_text(base.text_encoder, rank=rank, alpha=1.0, seed=0)
    assert with_it.adapter - without.adapter == 4 * sum(p.numel() for p in parts.values())
    frozen = sum(p.numel() for p in base.text_encoder.parameters() if not p.requires_grad)
    assert with_it.weights - without.weights == 4 * frozen
    assert with_it.activations > without.activations
