"""What is written: nothing lost, one alpha, the same bytes every time, whole or not at all."""

import json
import os

import foreign
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from root import ROOT

from spf_lora.adapters import number_formats
from spf_lora.adapters.format import scaling
from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.adapters.format.hashes import autov2, autov3, content_id, tensor_sha256
from spf_lora.adapters.module import Adapter, Module, Spec
from spf_lora.adapters.number_formats import widen_bf16
from spf_lora.errors import AdapterFileError, OutputError, RecipeError

LAYOUTS = ("kohya", "diffusers", "peft")
# rounding of one multiplication and two factors, relative to the largest number
TOLERANCE = {"fp32": 1e-6, "fp16": 2**-9, "bf16": 2**-6}
MIXED = {"ranks": (1, 3, 4, 6), "alphas": (1.0, 2.5, 4.0)}


def target(folder, layout, name="a"):
    return folder / (name if layout == "peft" else f"{name}.safetensors")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_writing_and_reading_keeps_the_change_of_every_module(
    tmp_path, make_adapter, delta_of, layout, dtype
):
    adapter = make_adapter(**MIXED)
    write_adapter(adapter, target(tmp_path, layout), layout=layout, dtype=dtype)
    found = read_adapter(target(tmp_path, layout)).modules
    assert list(found) == sorted(adapter.modules)
    for name, module in adapter.modules.items():
        wanted = delta_of(module)
        error = np.abs(delta_of(found[name]) - wanted).max() / np.abs(wanted).max()
        assert error < TOLERANCE[dtype], name


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_an_adapter_has_one_content_id_in_every_layout_and_after_every_conversion(
    tmp_path, make_adapter, dtype
):
    ids = set()
    source = make_adapter(**MIXED)
    for at, layout in enumerate([*LAYOUTS, "kohya", "peft", "diffusers", "kohya"]):
        path = target(tmp_path, layout, f"step{at}")
        write_adapter(source, path, layout=layout, dtype=dtype)
        source = read_adapter(path)
        ids.add(content_id(source))
    assert len(ids) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_adapter_in_another_order_gives_the_same_bytes(
    tmp_path, make_adapter, full_metadata, layout
):
    adapter = make_adapter(**MIXED, metadata=full_metadata)
    turned = Adapter(
        dict(reversed(adapter.modules.items())), dict(reversed(adapter.metadata.items()))
    )
    write_adapter(adapter, target(tmp_path, layout, "a"), layout=layout)
    write_adapter(turned, target(tmp_path, layout, "b"), layout=layout)
    first, second = (contents(target(tmp_path, layout, name)) for name in "ab")
    assert first == second


def contents(path):
    """The bytes of a file, or of every file in a folder."""
    if path.is_file():
        return {".": path.read_bytes()}
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*.*")}


def test_a_kohya_file_has_one_alpha_and_a_peft_folder_one_lora_alpha(tmp_path, make_adapter):
    adapter = make_adapter(**MIXED)
    write_adapter(adapter, tmp_path / "a.safetensors")
    write_adapter(adapter, tmp_path / "b", layout="peft")
    found = read_adapter(tmp_path / "a.safetensors").modules.values()
    assert len({module.alpha for module in found}) == 1
    config = json.loads((tmp_path / "b" / "unet" / "adapter_config.json").read_text())
    assert config["alpha_pattern"] == {}


def test_an_adapter_with_one_alpha_is_written_number_for_number(tmp_path, make_adapter):
    adapter = make_adapter(ranks=(3, 4), alphas=2.0)
    write_adapter(adapter, tmp_path / "a.safetensors", dtype="fp32")
    for name, module in read_adapter(tmp_path / "a.safetensors").modules.items():
        assert module.alpha == 2.0
        assert np.array_equal(module.down, adapter.modules[name].down)
        assert np.array_equal(module.up, adapter.modules[name].up)


def spec(rank, alpha):
    return Spec("unet.conv_in", (rank, 4, 3, 3), (8, rank, 1, 1), alpha, "F16")


@given(st.lists(st.tuples(st.integers(1, 320), st.floats(0.125, 512, width=32)), min_size=1))
def test_every_folded_scale_is_a_power_of_two_and_padding_less_than_doubles(modules):
    specs = {str(at): spec(*one) for at, one in enumerate(modules)}
    chosen = scaling.one_alpha(specs)
    assert len({one.alpha for one in chosen.values()}) == 1
    for name, one in chosen.items():
        assert specs[name].rank <= one.rank
        if len({spec.alpha for spec in specs.values()}) > 1:
            assert np.log2(one.alpha / one.rank).is_integer()
    padded = sum(one.rank for one in chosen.values())
    assert padded < 2 * sum(spec.rank for spec in specs.values())


@settings(max_examples=50)
@given(st.floats(1e-6, 1e3), st.sampled_from(["F16", "BF16"]))
def test_the_table_of_16_bit_products_is_the_multiplication(scale, dtype):
    bits = np.arange(0, 1 << 16, 7, dtype=np.uint16)
    stored = bits.view(np.float16) if dtype == "F16" else bits
    found = number_formats._scaled(stored, scale, dtype, 1.0)
    wanted = number_formats._multiplied(stored, scale, dtype, 1.0)
    assert np.array_equal(found.view(np.uint16), wanted.view(np.uint16))


def test_bf16_rounds_to_nearest_even_as_torch_does():
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    values[:3] = [1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8)]  # halfway, both ways
    found = widen_bf16(number_formats.to_stored(values, "BF16", "x"))
    assert np.array_equal(found, torch.tensor(values).bfloat16().float().numpy())


def test_a_number_too_large_for_fp16_is_refused_and_leaves_no_file(tmp_path):
    name = "unet.mid_block.attentions.0.proj_in"
    huge = Module(name, np.full((1, 8, 1, 1), 1e5, "f4"), np.ones((8, 1, 1, 1), "f4"), 1)
    with pytest.raises(AdapterFileError, match="does not fit F16"):
        write_adapter(Adapter({name: huge}), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []
    write_adapter(Adapter({name: huge}), tmp_path / "a.safetensors", dtype="bf16")


def test_nan_is_never_written(tmp_path):
    name = "unet.mid_block.attentions.0.proj_in"
    for factors in ([np.nan, 1], [1, np.inf]):
        down, up = (np.full((1, 1, 1, 1), one, "f4") for one in factors)
        with pytest.raises(AdapterFileError, match="does not fit"):
            write_adapter(Adapter({name: Module(name, down, up, 1)}), tmp_path / "a.safetensors")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path, make_adapter, monkeypatch
):
    path = tmp_path / "a.safetensors"
    write_adapter(make_adapter(), path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_adapter(make_adapter(seed=1), path, overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_target_is_refused_without_overwrite(tmp_path, make_adapter):
    write_adapter(make_adapter(), tmp_path / "a.safetensors")
    with pytest.raises(OutputError, match="exists"):
        write_adapter(make_adapter(), tmp_path / "a.safetensors")
    write_adapter(make_adapter(), tmp_path / "a", layout="peft")
    with pytest.raises(OutputError, match="not empty"):
        write_adapter(make_adapter(), tmp_path / "a", layout="peft")


def test_a_peft_folder_without_its_configuration_is_refused(tmp_path, make_adapter):
    """The configuration is written last, so this is what a kill in between leaves."""
    write_adapter(make_adapter(), tmp_path / "a", layout="peft")
    for config in (tmp_path / "a").rglob("adapter_config.json"):
        config.unlink()
    with pytest.raises(AdapterFileError, match="without adapter_config"):
        read_adapter(tmp_path / "a")


def test_a_local_path_is_never_written(tmp_path, make_adapter):
    for text in ("/home/ada/pictures", "C:\\Users\\ada\\x", "see file:///srv/x", "~/loras/x"):
        adapter = make_adapter(metadata={"ss_note": text})
        with pytest.raises(AdapterFileError, match="holds a local path"):
            write_adapter(adapter, tmp_path / "a.safetensors")
    harmless = {"a": "https://example.org/home/x", "b": "and/or 1/2", "c": "text: a, b"}
    write_adapter(make_adapter(metadata=harmless), tmp_path / "a.safetensors")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_file_tells_where_it_was_made(tmp_path, make_adapter, full_metadata, layout):
    path = target(tmp_path, layout)
    write_adapter(make_adapter(metadata=full_metadata), path, layout=layout)
    for content in contents(path).values():
        assert str(tmp_path).encode() not in content
        assert str(ROOT).encode() not in content


def test_unknown_layouts_dtypes_and_modules_are_refused_by_name(tmp_path, make_adapter):
    with pytest.raises(RecipeError, match="'sgm' is not known"):
        write_adapter(make_adapter(), tmp_path / "a", layout="sgm")
    with pytest.raises(RecipeError, match="'int8' is not known"):
        write_adapter(make_adapter(), tmp_path / "a", dtype="int8")
    module = Module("unet.foo", np.ones((1, 2), "f4"), np.ones((2, 1), "f4"), 1)
    with pytest.raises(AdapterFileError, match=r"unet\.foo"):
        write_adapter(Adapter({"unet.foo": module}), tmp_path / "a")
    with pytest.raises(AdapterFileError, match="no modules"):
        write_adapter(Adapter({}), tmp_path / "a")


def test_declared_hashes_are_true_even_if_the_metadata_brought_stale_ones(tmp_path, make_adapter):
    path = tmp_path / "a.safetensors"
    stale = {"sshs_model_hash": "0" * 64, "sshs_legacy_hash": "0" * 8, "format": "pt"}
    write_adapter(make_adapter(metadata=stale), path)
    metadata = read_adapter(path).metadata
    assert metadata["sshs_model_hash"] == tensor_sha256(path)
    assert metadata["modelspec.hash_sha256"] == f"0x{tensor_sha256(path)}"
    assert "sshs_legacy_hash" not in metadata


def test_autov2_and_autov3_are_sha256_of_the_file_and_of_its_tensors(tmp_path, make_adapter):
    import hashlib

    path = tmp_path / "a.safetensors"
    write_adapter(make_adapter(), path)
    content = path.read_bytes()
    body = content[8 + int.from_bytes(content[:8], "little") :]
    assert autov2(path) == hashlib.sha256(content).hexdigest()[:10]
    assert autov3(path) == hashlib.sha256(body).hexdigest()[:12]


def test_the_content_id_changes_with_one_number_and_not_with_metadata(make_adapter):
    adapter = make_adapter()
    name = next(iter(adapter.modules))
    moved = dict(adapter.modules)
    up = moved[name].up.copy()
    up.flat[0] = np.nextafter(up.flat[0], np.float32(1))
    moved[name] = Module(name, moved[name].down, up, moved[name].alpha)
    assert content_id(Adapter(moved)) != content_id(adapter)
    assert content_id(Adapter(adapter.modules, {"a": "b"})) == content_id(adapter)


def test_the_content_id_ignores_the_sign_of_zero_and_directions_that_are_zero(make_adapter):
    name = "unet.up_blocks.2.resnets.1.time_emb_proj"
    down, up = np.ones((1, 3), "f4"), np.array([[1.0], [0.0]], "f4")
    plain = Adapter({name: Module(name, down, up, 1)})
    padded = Module(name, np.pad(down, [(0, 1), (0, 0)]), np.pad(up, [(0, 0), (0, 1)]), 2)
    negative = Module(name, down, np.array([[1.0], [-0.0]], "f4"), 1)
    assert content_id(Adapter({name: padded})) == content_id(plain)
    assert content_id(Adapter({name: negative})) == content_id(plain)


def test_every_tensor_is_aligned_to_its_size(tmp_path, make_adapter):
    from spf_lora.adapters.format.container import open_container
    from spf_lora.adapters.number_formats import DTYPES

    write_adapter(make_adapter(), tmp_path / "a.safetensors")
    with open_container(tmp_path / "a.safetensors") as container:
        assert {entry.dtype for entry in container.entries.values()} == {"F32", "F16"}
        for entry in container.entries.values():
            assert entry.start % DTYPES[entry.dtype].itemsize == 0


def test_a_foreign_file_with_many_alphas_is_mended_by_writing_it(tmp_path, make_adapter, delta_of):
    adapter = make_adapter(**MIXED)
    foreign.save(adapter, tmp_path / "a.safetensors", foreign.kohya)
    before = read_adapter(tmp_path / "a.safetensors")
    write_adapter(before, tmp_path / "b.safetensors")
    after = read_adapter(tmp_path / "b.safetensors").modules
    assert len({module.alpha for module in before.modules.values()}) == 3
    assert len({module.alpha for module in after.values()}) == 1
    for name, module in before.modules.items():
        wanted = delta_of(module)
        assert np.allclose(delta_of(after[name]), wanted, atol=2**-10 * np.abs(wanted).max())
