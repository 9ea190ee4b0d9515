import numpy as np
import pytest
from adapter_files import heavy_imports, sound_file, spf_lora
from safetensors.numpy import load_file, save_file

from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.adapters.format.card import from_metadata
from spf_lora.adapters.format.hashes import autov3, content_id
from spf_lora.adapters.module import Adapter, Module


def target(folder, layout):
    return folder / ("out" if layout == "peft" else "out.safetensors")


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft"])
def test_convert_keeps_the_content_id_and_the_card(tmp_path, layout):
    path = sound_file(tmp_path)
    out = target(tmp_path, layout)
    done = spf_lora("convert", path, out, "--to", layout, "--json").json
    before, after = read_adapter(path), read_adapter(out)
    assert content_id(after) == content_id(before)
    assert from_metadata(after.metadata) == from_metadata(before.metadata)
    assert (done["from"], done["to"], done["dtype"], done["modules"]) == (
        "kohya",
        layout,
        "fp16",
        26,
    )
    if layout != "peft":
        assert done["AutoV3"] == autov3(out)


def test_there_and_back_gives_the_same_file(tmp_path):
    path = sound_file(tmp_path, alpha=4.0)
    spf_lora("convert", path, tmp_path / "b.safetensors", "--to", "diffusers")
    spf_lora("convert", tmp_path / "b.safetensors", tmp_path / "c.safetensors", "--to", "kohya")
    assert (tmp_path / "c.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("dtype", "stored"), [("bf16", "BF16"), ("fp32", "F32"), ("fp16", "F16")])
def test_convert_changes_the_number_format_when_asked(tmp_path, dtype, stored):
    out = tmp_path / "out.safetensors"
    spf_lora("convert", sound_file(tmp_path), out, "--to", "kohya", "--dtype", dtype)
    assert {one.stored for one in read_adapter(out).modules.values()} == {stored}


def test_convert_refuses_to_overwrite_unless_forced(tmp_path):
    path = sound_file(tmp_path, alpha=4.0)
    done = spf_lora("convert", path, path, "--to", "kohya", code=1)
    assert "--force" in done.stderr
    before = content_id(read_adapter(path))
    spf_lora("convert", path, path, "--to", "kohya", "--dtype", "fp32", "--force")
    assert content_id(read_adapter(path)) == before


def test_a_local_path_in_foreign_metadata_is_cut_down_and_said(tmp_path):
    path = sound_file(tmp_path)
    save_file(load_file(path), path, metadata={"ss_sd_model_name": "/home/ada/base.ckpt"})
    done = spf_lora("convert", path, tmp_path / "out.safetensors", "--to", "kohya")
    assert "warning: metadata 'ss_sd_model_name' held a local path" in done.stderr
    assert read_adapter(tmp_path / "out.safetensors").metadata["ss_sd_model_name"] == "base.ckpt"


def test_a_foreign_file_without_metadata_leaves_with_what_the_apps_need(tmp_path):
    path = sound_file(tmp_path)
    save_file(load_file(path), path)
    spf_lora("convert", path, tmp_path / "out.safetensors", "--to", "kohya")
    found = read_adapter(tmp_path / "out.safetensors").metadata
    assert found["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert found["ss_base_model_version"] == "sd_v1"
    assert found["ss_network_dim"] == "4"


@pytest.mark.parametrize("arguments", [("--to", "sgm"), ("--to", "kohya", "--dtype", "int8")])
def test_an_unknown_layout_or_dtype_is_refused_with_the_choices(tmp_path, arguments):
    done = spf_lora("convert", sound_file(tmp_path), tmp_path / "out", *arguments, code=1)
    assert "hint: choose" in done.stderr


def test_an_older_folder_leaves_nothing_behind_in_the_new_one(tmp_path):
    unet, both = sound_file(tmp_path), tmp_path / "both.safetensors"
    name = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    text = Module(name, np.ones((1, 768), "f4"), np.ones((3072, 1), "f4"), 1.0)
    write_adapter(Adapter({**read_adapter(unet).modules, name: text}), both)
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("of the user's")
    for source in (both, unet, both, unet):
        spf_lora("convert", source, out, "--to", "peft", "--force")
        assert content_id(read_adapter(out)) == content_id(read_adapter(source))
    assert sorted(path.name for path in out.rglob("*")) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_convert_imports_no_torch(tmp_path):
    path = sound_file(tmp_path)
    assert heavy_imports(["convert", path, tmp_path / "b.safetensors", "--to", "diffusers"]) == []
