import pytest
from adapter_files import heavy_imports, sound_file, spf_lora
from safetensors.numpy import load_file, save_file

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.hashes import autov2, autov3


def test_metadata_shows_every_entry(tmp_path):
    path = sound_file(tmp_path)
    assert spf_lora("metadata", path, "--json").json == read_adapter(path).metadata
    assert "modelspec.title=Beard" in spf_lora("metadata", path).stdout.splitlines()


def test_setting_an_entry_changes_the_file_hash_and_not_the_tensors_hash(tmp_path):
    path = sound_file(tmp_path)
    v2, v3 = autov2(path), autov3(path)
    spf_lora("metadata", path, "--set", "modelspec.title=A=B", "--set", "modelspec.tags=")
    found = read_adapter(path).metadata
    assert found["modelspec.title"] == "A=B"
    assert "modelspec.tags" not in found
    assert found["sshs_model_hash"][:12] == autov3(path) == v3
    assert autov2(path) != v2


def test_a_foreign_file_keeps_the_order_of_its_tensors(tmp_path):
    """Otherwise an edit would change AutoV3, by which A1111 and Civitai know the file."""
    import json

    path = sound_file(tmp_path)
    tensors = load_file(path)
    names = sorted(tensors, reverse=True)
    body, header = b"", {}
    for name in names:
        data = tensors[name].tobytes()
        dtype = {"float16": "F16", "float32": "F32"}[tensors[name].dtype.name]
        header[name] = {
            "dtype": dtype,
            "shape": tensors[name].shape,
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    before = autov3(path)
    spf_lora("metadata", path, "--set", "ss_output_name=x")
    assert autov3(path) == before
    assert spf_lora("verify", path).returncode == 0


def test_strip_removes_everything_and_changes_no_tensor(tmp_path):
    path = sound_file(tmp_path)
    before = autov3(path)
    assert spf_lora("metadata", path, "--strip", "--json").json == {}
    assert autov3(path) == before
    assert spf_lora("verify", path).returncode == 0


def test_strip_keeps_what_says_the_strength(tmp_path):
    import json

    path = sound_file(tmp_path, alpha=4.0)
    out = tmp_path / "b.safetensors"
    spf_lora("convert", path, out, "--to", "diffusers")
    entry = json.dumps({"unet.r": 4, "unet.lora_alpha": 2})
    save_file(load_file(out), out, metadata={"lora_adapter_metadata": entry, "a": "b"})
    assert spf_lora("metadata", out, "--strip", "--json").json == {"lora_adapter_metadata": entry}
    assert {module.scale for module in read_adapter(out).modules.values()} == {0.5}


def test_strip_and_set_together_leave_only_what_was_set(tmp_path):
    path = sound_file(tmp_path)
    found = spf_lora("metadata", path, "--strip", "--set", "a=b", "--json").json
    assert found == {"a": "b"}


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("title", "no KEY=VALUE"),
        ("=x", "no KEY=VALUE"),
        ("sshs_model_hash=0", "cannot be set by hand"),
        ("lora_adapter_metadata={}", "cannot be set by hand"),
        ("a=/home/ada/x", "local path"),
        ("a=\udcff", "is no text in UTF-8"),
        ("\udcff=a", "is no text in UTF-8"),
    ],
)
def test_entries_that_would_lie_or_leak_are_refused_and_the_file_is_left(tmp_path, setting, reason):
    path = sound_file(tmp_path)
    before = path.read_bytes()
    assert reason in spf_lora("metadata", path, "--set", setting, code=1).stderr
    assert path.read_bytes() == before


def test_a_folder_is_refused(tmp_path):
    path = sound_file(tmp_path)
    spf_lora("convert", path, tmp_path / "out", "--to", "peft")
    done = spf_lora("metadata", tmp_path / "out", "--set", "a=b", code=1)
    assert "is a folder" in done.stderr


def test_metadata_imports_no_torch(tmp_path):
    assert heavy_imports(["metadata", sound_file(tmp_path), "--set", "a=b"]) == []
