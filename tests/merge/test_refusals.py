import os

import numpy as np
import pytest
from merging import NAMES, make

from spf_lora.adapters.format.adapter_file import Adapter, Module, write_adapter
from spf_lora.errors import AdapterFileError, OutputError, RecipeError
from spf_lora.merge import execute as executing
from spf_lora.merge.execute import execute
from spf_lora.merge.plan import Settings, make_plan
from spf_lora.merge.sources import open_sources


@pytest.fixture
def pair(tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for at, path in enumerate(paths):
        write_adapter(make(at, text="ab"[at]), path)
    return paths


def planned(paths, weights=None, block_weights=(), mixed=False, **settings):
    with open_sources(
        paths, weights=weights, block_weights=block_weights, allow_mixed_base=mixed
    ) as sources:
        return make_plan(sources, Settings(**settings))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"method": "linear"}, "no merge method is called 'linear'"),
        ({"rank": 4}, "concat keeps every direction"),
        ({"method": "svd"}, "svd needs a rank or an energy"),
        ({"method": "ties"}, "ties needs a rank or an energy"),
        ({"method": "svd", "rank": 4, "energy": 0.5}, "not both"),
        ({"method": "svd", "rank": 0}, "rank 0 is less than 1"),
        ({"method": "svd", "energy": 1.5}, r"energy 1.5 is not in \(0, 1\]"),
        ({"method": "svd", "energy": float("nan")}, r"energy nan is not in \(0, 1\]"),
        ({"method": "svd", "rank": 4, "density": 0.5}, "svd takes no density"),
        ({"method": "ties", "rank": 4, "density": 0.0}, r"density 0.0 is not in \(0, 1\]"),
        ({"method": "ties", "rank": 4, "seed": 1}, "ties draws nothing"),
        ({"dtype": "int8"}, "'int8' is no number format"),
        ({"method": "svd", "rank": 9}, "rank 9 is above what is there: 8 is the useful maximum"),
        ({"method": "ties", "rank": 33}, "32 is the useful maximum"),
        ({"weights": [1.0]}, "2 adapters were given but 1 weights"),
        ({"weights": [1.0, float("inf")]}, "weight inf is not 0, nor of a size"),
        ({"weights": [1.0, float("nan")]}, "weight nan is not 0, nor of a size"),
        ({"weights": [1.0, -1e38]}, r"weight -1e\+38 is not 0, nor of a size"),
        ({"weights": [1.0, 1e-30]}, "weight 1e-30 is not 0, nor of a size"),
        ({"weights": [0.0, 0.0]}, "every weight is 0"),
        ({"weights": [1.0, -1.0], "method": "average"}, "add up to 0"),
        ({"block_weights": ["1,1"]}, "neither a preset nor 17 or 26 numbers"),
        ({"block_weights": ["OUTDOORS"]}, "neither a preset nor 17 or 26 numbers"),
        ({"block_weights": [",".join(["nan"] * 26)]}, "neither a preset nor"),
        ({"block_weights": [",".join(["-1e30"] * 26)]}, "26 numbers up to 1000"),
        ({"block_weights": ["ALL"] * 3}, "2 adapters were given but 3 lists"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(pair, settings, reason):
    with pytest.raises(RecipeError, match=reason):
        planned(pair, **settings)


@pytest.mark.parametrize("count", [0, 201])
def test_the_number_of_adapters_has_its_limits(pair, count):
    with pytest.raises(RecipeError, match=f"{count} adapters were given"):
        planned([pair[0]] * count)


def test_two_hundred_are_taken(pair):
    plan = planned([pair[0]] * 200, method="svd", rank=8)
    assert len(plan.sources) == 200
    assert plan.notes == [f"{pair[0]} is named more than once; its weights add up"]


def test_a_list_of_17_must_name_every_block_that_is_moved(tmp_path, pair):
    path = tmp_path / "c.safetensors"
    name = "unet.down_blocks.0.downsamplers.0.conv"
    write_adapter(make(0, names=(NAMES[0], name)), path)
    with pytest.raises(RecipeError, match="moves IN03, which a list of 17 does not name"):
        planned([path], block_weights=["ALL"])
    planned([path], block_weights=[",".join("1" * 26)])


def test_different_bases_are_refused_unless_allowed(tmp_path, pair):
    other = tmp_path / "other.safetensors"
    write_adapter(make(2, base_id="embedded:4567"), other)
    with pytest.raises(AdapterFileError, match=r"different bases: .*a\.safetensors for sd15:0123"):
        planned([pair[0], other])
    assert planned([pair[0], other], mixed=True).exact


def test_modules_of_different_shapes_are_refused_even_then(tmp_path, pair):
    path = tmp_path / "wide.safetensors"
    down, up = np.ones((2, 50), np.float32), np.ones((20, 2), np.float32)
    write_adapter(Adapter({NAMES[0]: Module(NAMES[0], down, up, 1.0)}), path)
    with pytest.raises(AdapterFileError, match=r"do not fit: unet\.down_blocks\.1"):
        planned([pair[0], path], mixed=True)


@pytest.mark.parametrize("name", ["a.safetensors", "b.safetensors"])
def test_an_output_that_is_also_an_input_is_refused_even_with_force(tmp_path, pair, name):
    before = pair[0].read_bytes(), pair[1].read_bytes()
    os.link(tmp_path / name, tmp_path / "link.safetensors")
    with open_sources(pair) as sources:
        plan = make_plan(sources, Settings())
        for target in (tmp_path / name, tmp_path / "link.safetensors"):
            with pytest.raises(OutputError, match="is one of the adapters to be merged"):
                execute(plan, target, overwrite=True)
    assert (pair[0].read_bytes(), pair[1].read_bytes()) == before


def test_an_existing_output_is_refused_before_anything_is_read(tmp_path, pair, monkeypatch):
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"precious")
    monkeypatch.setattr(executing.hashes, "content_id_of", None)
    with open_sources(pair) as sources, pytest.raises(OutputError, match="would be overwritten"):
        execute(make_plan(sources, Settings()), target)
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("settings", [{}, {"method": "svd", "rank": 4}, {"method": "orthogonal"}])
def test_nan_is_refused_and_leaves_nothing(tmp_path, pair, settings):
    data = bytearray(pair[1].read_bytes())
    data[-2:] = b"\x00\x7e"
    pair[1].write_bytes(data)
    with open_sources(pair) as sources, pytest.raises(AdapterFileError, match="NaN or inf"):
        execute(make_plan(sources, Settings(**settings)), tmp_path / "out.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_unknown_kinds_are_refused_by_name(tmp_path, pair):
    from safetensors.numpy import save_file

    path = tmp_path / "loha.safetensors"
    save_file({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": np.ones((2, 2))}, path)
    with pytest.raises(AdapterFileError, match="LoHa"):
        planned([pair[0], path])


def test_a_damaged_card_is_refused_with_the_name_of_its_file(tmp_path, pair):
    path = tmp_path / "c.safetensors"
    write_adapter(Adapter(make(0).modules, {"spf_lora": "{}"}), path)
    with pytest.raises(AdapterFileError, match=r"c\.safetensors: the spf_lora card"):
        planned([pair[0], path])


def test_a_number_too_large_for_the_format_is_refused(tmp_path, pair, monkeypatch):
    monkeypatch.setattr("spf_lora.merge.sources._STRONGEST", 1e9)
    with open_sources(pair, weights=[1.0, 1e9]) as sources:
        plan = make_plan(sources, Settings(method="svd", rank=4))
        with pytest.raises(AdapterFileError, match="does not fit F16"):
            execute(plan, tmp_path / "out.safetensors")


def test_the_plan_touches_no_tensor(pair):
    with open_sources(pair) as sources:
        for source in sources:
            object.__setattr__(source.opened, "load", None)
        plan = make_plan(sources, Settings(method="svd", rank=5))
        assert plan.shared == len(NAMES)
        assert {one.rank for one in plan.modules.values()} == {5}
        assert plan.nbytes > 0
        assert not plan.exact
