import json

import numpy as np
import pytest
from adapter_files import heavy_imports, sound_file, spf_lora
from safetensors.numpy import load_file, save_file

from spf_lora.adapters.format.container import open_container


def statuses(path, *arguments, code=3):
    rows = spf_lora("verify", path, "--json", *arguments, code=code).json[str(path)]
    return {one["check"]: one["status"] for one in rows}, {
        one["check"]: one["detail"] for one in rows
    }


def rewritten(path, change, metadata=None):
    """The same file after `change` on its tensors, with its own or other metadata."""
    with open_container(path) as container:
        old = dict(container.metadata)
    tensors = {key: one.copy() for key, one in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata=old if metadata is None else metadata)
    return path


def key(tensors, end):
    return next(name for name in sorted(tensors) if name.endswith(end))


def test_a_file_of_ours_passes_every_check_and_every_app(tmp_path):
    found, _ = statuses(sound_file(tmp_path), code=0)
    assert set(found.values()) == {"ok"}
    assert {"numbers", "shapes", "declared hash", "alpha", "ComfyUI", "Draw Things"} <= set(found)


def test_a_stale_declared_hash_fails(tmp_path):
    def move(tensors):
        tensors[key(tensors, "lora_up.weight")][0, 0] += 1

    found, detail = statuses(rewritten(sound_file(tmp_path), move))
    assert found["declared hash"] == "fail"
    assert "sshs_model_hash and modelspec.hash_sha256 is stale" in detail["declared hash"]


def test_alphas_that_differ_are_the_alpha_trap(tmp_path):
    def move(tensors):
        tensors[key(tensors, ".alpha")][...] = 1

    found, detail = statuses(rewritten(sound_file(tmp_path), move, {}))
    assert found["alpha"] == "fail"
    assert "2 different alphas" in detail["alpha"]


def test_a_missing_alpha_among_others_fails(tmp_path):
    path = sound_file(tmp_path, alpha=4.0)
    found, detail = statuses(rewritten(path, lambda held: held.pop(key(held, ".alpha")), {}))
    assert found["alpha"] == "fail"
    assert "1 modules have no alpha" in detail["alpha"]


def test_a_strength_that_only_the_header_states_fails(tmp_path):
    entry = {"unet.r": 4, "unet.lora_alpha": 8}
    path = tmp_path / "a.safetensors"
    body = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = {f"{body}.lora_A.weight": np.ones((4, 768), "f2")}
    tensors[f"{body}.lora_B.weight"] = np.ones((640, 4), "f2")
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(entry)})
    found, detail = statuses(path, "--app", "diffusers")
    assert found["alpha"] == "fail"
    assert "header only" in detail["alpha"]
    assert found["diffusers"] == "ok"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_fail(tmp_path, bad):
    def move(tensors):
        tensors[key(tensors, "lora_up.weight")][0, 0] = bad

    found, detail = statuses(rewritten(sound_file(tmp_path), move, {}))
    assert found["numbers"] == "fail"
    assert "NaN or inf" in detail["numbers"]


def test_a_missing_pair_fails(tmp_path):
    path = sound_file(tmp_path)
    found, detail = statuses(rewritten(path, lambda held: held.pop(key(held, "lora_up.weight"))))
    assert found == {"readable": "fail"}
    assert "no up factor" in detail["readable"]


def test_a_shape_that_fits_no_module_fails(tmp_path):
    def move(tensors):
        name = key(tensors, "lora_up.weight")
        tensors[name] = tensors[name][:100].copy()

    found, detail = statuses(rewritten(sound_file(tmp_path), move, {}))
    assert found["shapes"] == "fail"
    assert "moves a weight of shape (100, 768)" in detail["shapes"]


def test_unmatched_keys_fail_for_each_app_that_drops_them(tmp_path):
    path = sound_file(tmp_path)
    spf_lora("convert", path, tmp_path / "b.safetensors", "--to", "diffusers")
    found, detail = statuses(tmp_path / "b.safetensors")
    failing = {check for check, status in found.items() if status == "fail"}
    assert failing == {"A1111", "Forge", "ComfyUI", "InvokeAI"}
    assert "no key matches" in detail["A1111"]
    found, _ = statuses(tmp_path / "b.safetensors", "--app", "diffusers", code=0)
    assert found["diffusers"] == "ok"


def test_a_zero_module_and_a_local_path_are_warnings(tmp_path):
    def move(tensors):
        tensors[key(tensors, "lora_up.weight")][...] = 0

    found, detail = statuses(
        rewritten(sound_file(tmp_path), move, {"ss_note": "/home/ada/x"}), code=0
    )
    assert found["numbers"] == found["local paths"] == "warn"
    assert "1 modules are zero" in detail["numbers"]
    assert "/home/ada/x" in detail["local paths"]


def test_the_table_is_printed_before_the_command_fails(tmp_path):
    path = sound_file(tmp_path)
    rewritten(path, lambda held: held.pop(key(held, "lora_up.weight")))
    done = spf_lora("verify", path, sound_file(tmp_path, "b.safetensors"), code=3)
    assert "fail readable" in done.stdout
    assert "error: 1 of 2 files did not pass" in done.stderr


def test_a_path_without_a_file_and_an_unknown_app_are_refused_not_failed(tmp_path):
    assert "does not exist" in spf_lora("verify", tmp_path / "no", code=1).stderr
    path = sound_file(tmp_path)
    assert "no app is called 'x'" in spf_lora("verify", path, "--app", "x", code=1).stderr


def test_verify_imports_no_torch(tmp_path):
    assert heavy_imports(["verify", sound_file(tmp_path)]) == []
