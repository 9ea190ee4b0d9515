"""Our nodes in the real ComfyUI, on the embedded base: `COMFYUI_PATH=FOLDER pytest -m comfyui`.

Version 0.3.64 was run, with torch 2.13 on the CPU.
"""

import gc
import os
import shutil
import sys

import pytest
import torch
from embedded_comfyui import start
from root import ROOT

from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.module import Adapter
from spf_lora.draw.act import acting, draw_latents
from spf_lora.draw.pixels import pixels_of
from spf_lora.draw.prompts import asking, taught
from spf_lora.draw.sample import decode

pytestmark = pytest.mark.comfyui
BASE = "a portrait of a person, tan skin, black hair, a bob"
FULL = {"beard": f"{BASE}, a beard", "glasses": f"{BASE}, glasses"}
BOTH = f"{BASE}, a beard, glasses"
QUICK = {"seeds": [7], "steps": 4}


@pytest.fixture(scope="module")
def comfy(embedded, tmp_path_factory):
    if "COMFYUI_PATH" not in os.environ:
        pytest.skip("COMFYUI_PATH names no ComfyUI")
    loras = tmp_path_factory.mktemp("loras")
    for name in FULL:
        shutil.copy(ROOT / f"adapters/demo/{name}.safetensors", loras)
    beard = read_adapter(loras / "beard.safetensors")
    card = Card("beard", "a beard", "a beard", "", metrics={"start_percent": 0.4})
    said = file_metadata(card, rank=16, alpha=16.0, title="late")
    write_adapter(Adapter(beard.modules, said), loras / "late.safetensors")
    return start(embedded, loras, tmp_path_factory.mktemp("comfyui"))


@pytest.fixture
def local(comfy):
    """Chains LoRA Local nodes; returns the MODEL."""

    def run(*names, model=None, base=BASE, **how):
        given = {"start_percent": 0.0, "end_percent": 1.0, "area_cap": 0.6, "map_steps": 0, **how}
        model = model or comfy.model
        for name in names:
            full = comfy.conditioning(FULL[name])
            within = comfy.conditioning(base) if isinstance(base, str) else base
            node = comfy.nodes["SpfLoraLocal"]()
            (model,) = node.put_on(model, within, full, f"{name}.safetensors", 1.0, **given)
        return model

    return run


def weights(model):
    return {name: value.clone() for name, value in model.model.state_dict().items()}


def unchanged(model, before):
    return not model.hook_patches and all(
        torch.equal(value, before[name]) for name, value in model.model.state_dict().items()
    )


def map_of(model):
    return model.get_attachment("spf_lora").last_map


@pytest.mark.parametrize(("names", "text"), [(("beard",), FULL["beard"]), (tuple(FULL), BOTH)])
def test_pictures_are_those_of_generate_local(comfy, local, names, text):
    """Pixels are apart by less than 0.5 of 255: two programs round, and a map is steep."""
    rows = [(read_adapter(ROOT / f"adapters/demo/{name}.safetensors"), 1.0) for name in names]
    asks = asking(text, [taught(adapter) for adapter, _ in rows], local=True)
    acts, how = acting(rows, local=True), {"steps": 8, "guidance": 3.0}
    before = weights(comfy.model)
    found = comfy.sample(local(*names), comfy.conditioning(text), seeds=[7], steps=8, as_ours=True)
    wanted = draw_latents(comfy.base, [asks], [7], acts, **how)
    pictures = [pixels_of(decode(comfy.base, latents)[0]) for latents in (found, wanted)]
    assert (pictures[0] - pictures[1]).abs().mean() * 127.5 <= 0.5
    assert unchanged(comfy.model, before)


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [("eps", "euler"), ("eps", "dpmpp_2m"), ("eps", "heun"), ("v", "euler"), ("flow", "euler")],
)
def test_outside_of_the_map_the_picture_is_the_bases_for_every_kind_of_model(
    comfy, local, kind, sampler
):
    import comfy.model_sampling as sampling  # of ComfyUI

    model = comfy.model.clone()
    if kind != "eps":
        discrete = sampling.ModelSamplingDiscrete, sampling.V_PREDICTION
        bases = discrete if kind == "v" else (sampling.ModelSamplingDiscreteFlow, sampling.CONST)
        model.add_object_patch(
            "model_sampling", type("Sampling", bases, {})(model.model.model_config)
        )
    how = {"seeds": [1, 2], "steps": 3, "sampler": sampler, "scheduler": "normal"}
    base = comfy.sample(model, comfy.conditioning(BASE), **how)
    put_on = local("beard", model=model)
    found = comfy.sample(put_on, comfy.conditioning(FULL["beard"]), **how)
    outside = (map_of(put_on) == 0).expand_as(base)
    assert outside.any()
    assert torch.equal(found[outside], base[outside])
    assert not torch.equal(found[~outside], base[~outside])


def test_a_prompt_that_asks_for_nothing_is_the_bases_picture_bit_for_bit(comfy, local):
    base = comfy.conditioning(BASE)
    node = comfy.nodes["SpfLoraLocal"]()
    (model,) = node.put_on(comfy.model, base, base, "beard.safetensors", 1.0, 0.0, 1.0, 0.6, 0)
    plain = comfy.sample(comfy.model, base, **QUICK)
    assert torch.equal(comfy.sample(model, base, **QUICK), plain)


def test_conditionings_of_other_lengths_batches_and_sizes_are_drawn(comfy, local):
    states = comfy.conditioning(FULL["beard"])[0][0]
    long = [[torch.cat([states, comfy.conditioning("")[0][0]], dim=1), {}]]
    model = local("beard")
    found = comfy.sample(model, long, seeds=[1, 2, 3], steps=3, size=(16, 24))
    assert found.shape == (3, 4, 16, 24)
    assert map_of(model).shape == (3, 1, 16, 24)
    (mask,) = comfy.nodes["SpfLoraLocalMap"]().look(model, {"samples": found})
    assert mask.shape == (3, 128, 192)


def test_a_model_and_conditionings_with_hooks_below_keep_them(comfy, local):
    import folder_paths
    from comfy.hooks import create_hook_lora, set_hooks_for_conditioning
    from comfy.utils import load_torch_file

    path = folder_paths.get_full_path("loras", "glasses.safetensors")
    hooks = create_hook_lora(load_torch_file(path), 1.0, 0.0)
    hooked = [
        set_hooks_for_conditioning(comfy.conditioning(text), hooks)
        for text in (BASE, FULL["beard"], "")
    ]
    before = weights(comfy.model)
    plain = comfy.sample(comfy.model, hooked[0], negative=hooked[2], **QUICK)
    model = local("beard", base=hooked[0])
    found = comfy.sample(model, hooked[1], negative=hooked[2], **QUICK)
    outside = (map_of(model) == 0).expand_as(found)
    assert torch.equal(found[outside], plain[outside])
    assert unchanged(comfy.model, before)


def test_cancelled_in_the_middle_nothing_stays_patched(comfy, local):
    before, seen = weights(comfy.model), []

    def cancel(*given):
        seen.append(given)
        if len(seen) == 6:  # of 12: the LoRA is on
            raise InterruptedError

    model = local("beard")
    plain = comfy.sample(comfy.model, comfy.conditioning(BASE), **QUICK)
    with pytest.raises(InterruptedError):
        comfy.sample(model, comfy.conditioning(FULL["beard"]), callback=cancel, **QUICK)
    assert unchanged(comfy.model, before)
    assert torch.equal(comfy.sample(comfy.model, comfy.conditioning(BASE), **QUICK), plain)


def test_memory_is_one_copy_of_the_weights_that_change_and_four_latents_a_step(comfy, local):
    step, model = sys.modules["spf_lora_nodes.local"].Step, local(*FULL)
    copied, kept = set(), set()

    def count(*_):
        assert not model.cached_hook_patches
        copied.add(sum(weight.nbytes for weight, _ in model.hook_backup.values()))
        alive = [one for one in gc.get_objects() if isinstance(one, step)]
        tensors = {id(tensor): tensor for one in alive for tensor in (one.latents, one.picture)}
        kept.add(sum(tensor.nbytes for tensor in tensors.values()))

    found = comfy.sample(model, comfy.conditioning(BOTH), callback=count, **QUICK)
    weights = model.model_state_dict()
    changed = {key for part in model.get_attachment("spf_lora").parts for key in keys(part)}
    assert copied == {0, sum(weights[key].nbytes for key in changed)}
    assert max(kept) == 4 * QUICK["steps"] * found.nbytes


def keys(part):
    """Return the names of the weights that a LoRA changes."""
    return {key for hook in part.hooks.hooks for key in hook.weights}


def test_a_lora_for_another_family_is_refused(comfy, local, embedded):
    import folder_paths
    from safetensors.torch import save_file

    path = folder_paths.get_full_path("loras", "beard.safetensors")
    other = {
        "lora_te2_x.lora_down.weight": torch.ones(2, 2),
        "lora_te2_x.lora_up.weight": torch.ones(2, 2),
    }
    save_file(other, path.replace("beard", "xl"))
    folder_paths.filename_list_cache.clear()
    base = comfy.conditioning(BASE)
    node = comfy.nodes["SpfLoraLocal"]()
    with pytest.raises(ValueError, match="another family of models"):
        node.put_on(comfy.model, base, base, "xl.safetensors", 1.0, 0.0, 1.0, 0.6, 0)


def test_the_control_map_node_finds_the_map_that_is_drawn_with(comfy, local):
    model = local("beard")
    how = {"sampler": "euler", "scheduler": "normal"}
    comfy.sample(model, comfy.conditioning(FULL["beard"]), seeds=[7], steps=4, **how)
    latents = {"samples": torch.zeros(1, 4, 16, 16)}
    node = comfy.nodes["SpfLoraControlMap"]()
    (mask,) = node.find(model, comfy.conditioning(""), latents, 7, 4, 3.0, "euler", "normal")
    (drawn,) = comfy.nodes["SpfLoraLocalMap"]().look(model, latents)
    torch.testing.assert_close(mask, drawn)


class Clip:
    """A CLIP that encodes as the embedded base does."""

    def __init__(self, comfy):
        self.tokenize, self._comfy = str, comfy

    def encode_from_tokens_scheduled(self, text):
        return self._comfy.conditioning(text)


def test_a_lora_by_its_card_begins_when_its_words_do(comfy):
    node = comfy.nodes["SpfLoraByCard"]()
    negative = comfy.conditioning("")
    positive, other, text = node.encode(Clip(comfy), BASE, negative, "late.safetensors", 1.0)
    assert text == FULL["beard"]
    assert [(one[1]["start_percent"], one[1]["end_percent"]) for one in positive] == [
        (0, 0.4),
        (0.4, 1),
    ]
    assert all("hooks" in one[1] for one in [*positive, *other])
    found = comfy.sample(comfy.model, positive, negative=other, **QUICK)
    plain = comfy.sample(comfy.model, comfy.conditioning(FULL["beard"]), **QUICK)
    assert not torch.allclose(found, plain, atol=1e-2)
    never, other, _ = node.encode(Clip(comfy), BASE, negative, "late.safetensors", 0.0)
    assert comfy.sample(comfy.model, never, negative=other, **QUICK).isfinite().all()
