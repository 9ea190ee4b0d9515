"""Our keys against the apps' rules restated as tables, and the product's own table against them."""

import json

import naming
import pytest

from spf_lora.adapters import sd15
from spf_lora.adapters.check import apps
from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.adapters.format.keys import kohya_body

MODULES = list(sd15.weight_shapes())


def header(path):
    with path.open("rb") as file:
        table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {key: entry["shape"] for key, entry in table.items() if key != "__metadata__"}


@pytest.fixture(scope="module")
def kohya_keys():
    ends = ("lora_down.weight", "lora_up.weight", "alpha")
    return [f"{kohya_body(name)}.{end}" for name in MODULES for end in ends]


def test_our_module_table_is_stable_diffusion_15_as_the_restated_tables_have_it():
    ours = {name.removeprefix("unet.") for name in MODULES if name.startswith("unet.")}
    text = {
        name.removeprefix("text_encoder.") for name in MODULES if name.startswith("text_encoder.")
    }
    assert ours == set(naming.ORIGINAL.values())
    assert text == set(naming.TEXT)
    assert len(ours) == 282
    assert len(text) == 72


def test_kohyas_set_has_192_unet_modules_and_72_of_the_text_encoder():
    names = sd15.kohya_modules()
    assert sum(name.startswith("unet.") for name in names) == 192
    assert sum(name.startswith("text_encoder.") for name in names) == 72


@pytest.mark.parametrize(
    "reads",
    [naming.a1111_reads, naming.comfy_reads, naming.forge_reads, naming.invoke_reads],
    ids=["A1111", "ComfyUI", "Forge", "InvokeAI"],
)
def test_every_key_we_write_is_read(kohya_keys, reads):
    assert [key for key in kohya_keys if not reads(key)] == []


def test_a1111_puts_every_module_on_a_layer_of_its_own():
    places = [naming.a1111_place(kohya_body(name)) for name in MODULES]
    assert len(set(places)) == len(MODULES)
    for name, place in zip(MODULES, places, strict=True):
        if name.startswith("unet."):
            original = next(one for one, ours in naming.ORIGINAL.items() if f"unet.{ours}" == name)
            assert place == f"diffusion_model_{naming.flat(original)}"


def test_invokeai_and_draw_things_tell_the_base_of_a_cross_attention_file(tmp_path, make_adapter):
    names = [name for name in MODULES if name.endswith(("attn2.to_k", "attn2.to_v"))]
    path = tmp_path / "a.safetensors"
    write_adapter(make_adapter(names=names, full_size=True), path)
    assert naming.invoke_base(header(path)) == "sd-1"
    assert naming.draw_things_base(header(path)) == "v1"


def foreign_keys():
    """Keys in every layout that exists in the wild."""
    for original, path in naming.ORIGINAL.items():
        for end in ("lora_down.weight", "lora_up.weight", "alpha"):
            yield f"lora_unet_{naming.flat(path)}.{end}"
            yield f"lora_unet_{naming.flat(original)}.{end}"
            yield f"lycoris_{naming.flat(path)}.{end}"
            yield f"diffusion_model.{original}.{end}"
        for end in ("lora_A.weight", "lora_B.weight", "lora.down.weight", "lora.up.weight"):
            yield f"unet.{path}.{end}"
        if ".to_" in path:
            processor = path.replace(".to_", ".processor.to_").removesuffix(".0")
            yield f"unet.{processor}_lora.down.weight"
            yield f"unet.{processor}_lora.up.weight"
    for path in naming.TEXT:
        for prefix in ("lora_te_", "lora_te1_"):
            yield f"{prefix}{naming.flat(path)}.lora_down.weight"
        yield f"text_encoder.{path}.lora_A.weight"
        yield f"text_encoder.{path}.lora_linear_layer.up.weight"
        yield f"text_encoders.clip_l.transformer.{path}.lora_up.weight"


@pytest.mark.parametrize(
    ("app", "reads"),
    [
        ("A1111", naming.a1111_reads),
        ("ComfyUI", naming.comfy_reads),
        ("Forge", naming.forge_reads),
        ("InvokeAI", naming.invoke_reads),
    ],
)
def test_the_table_behind_inspect_and_verify_says_what_the_app_does(app, reads):
    every = list(foreign_keys())
    dropped = set(apps.reading(apps.APPS[app], every, {}).dropped)
    assert dropped == {key for key in every if not reads(key)}


def test_comfyui_reads_64_of_192_unet_modules_in_diffusers_layout():
    keys = [f"{name}.lora_A.weight" for name in sd15.kohya_modules() if name.startswith("unet.")]
    dropped = apps.reading(apps.APPS["ComfyUI"], keys, {}).dropped
    assert len(keys) - len(dropped) == 64


def test_forge_forgives_12_strange_keys_and_refuses_at_13():
    good = [f"{kohya_body(MODULES[0])}.lora_down.weight"]
    strange = [f"unet.mid_block.attentions.0.to_q{at}.lora_A.weight" for at in range(13)]
    assert not apps.reading(apps.APPS["Forge"], good + strange[:12], {}).refused
    assert "13 keys" in apps.reading(apps.APPS["Forge"], good + strange, {}).refused


def test_an_app_that_cannot_tell_the_base_refuses_and_says_why():
    body = kohya_body("unet.mid_block.attentions.0.proj_in")
    keys = [f"{body}.lora_down.weight", f"{body}.lora_up.weight"]
    assert "base model" in apps.reading(apps.APPS["InvokeAI"], keys, {}).refused
    assert "block 1" in apps.reading(apps.APPS["Draw Things"], keys, {}).refused


def test_diffusers_refuses_alphas_together_with_its_own_header_entry():
    body = kohya_body("unet.mid_block.attentions.0.proj_in")
    keys = [f"{body}.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha")]
    found = apps.reading(apps.APPS["diffusers"], keys, {"lora_adapter_metadata": "{}"})
    assert "not both" in found.refused
