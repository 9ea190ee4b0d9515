"""What merges is what the reader says, whatever layout it was stored in."""

import json

import pytest
from merging import NAMES, distance, make, truth

from spf_lora.adapters.format.adapter_file import Adapter, read_adapter, write_adapter
from spf_lora.merge.execute import execute
from spf_lora.merge.plan import Settings, make_plan
from spf_lora.merge.sources import open_sources


def plain(seed, names=NAMES):
    return Adapter(make(seed, names=names).modules)


def test_any_mix_of_layouts_merges_to_the_same_sum(tmp_path):
    layouts = ("kohya", "diffusers", "peft")
    for seed, layout in enumerate(layouts):
        write_adapter(plain(seed), tmp_path / layout, layout=layout, dtype="fp32")
    with open_sources([tmp_path / one for one in layouts], weights=[1.0, -0.5, 0.3]) as sources:
        execute(make_plan(sources, Settings()), tmp_path / "out.safetensors")
    found = read_adapter(tmp_path / "out.safetensors").modules
    assert distance(found, truth([plain(seed) for seed in range(3)], [1.0, -0.5, 0.3])) < 1e-6


def test_rank_stabilised_adapters_merge_at_their_own_strength(tmp_path):
    adapter = plain(0, names=NAMES[:1])
    write_adapter(adapter, tmp_path / "peft", layout="peft", dtype="fp32")
    config = tmp_path / "peft" / "adapter_config.json"
    table = json.loads(config.read_text())
    config.write_text(json.dumps({**table, "use_rslora": True}))
    with open_sources([tmp_path / "peft"]) as sources:
        execute(make_plan(sources, Settings(method="svd", rank=4)), tmp_path / "out.safetensors")
    (module,) = read_adapter(tmp_path / "out.safetensors").modules.values()
    # alpha / sqrt(rank) instead of alpha / rank: twice as strong at rank 4
    assert distance({module.name: module}, truth([adapter], [2.0])) < 1e-6


@pytest.mark.parametrize("settings", [{}, {"method": "svd", "rank": 5}])
def test_an_adapter_that_does_nothing_changes_nothing(tmp_path, settings):
    silent = {
        name: type(one)(name, one.down, one.up * 0, one.alpha)
        for name, one in plain(1).modules.items()
    }
    for name, adapter in (("a", plain(0)), ("b", Adapter(silent))):
        write_adapter(adapter, tmp_path / name, dtype="fp32")
    with open_sources([tmp_path / "a", tmp_path / "b"]) as sources:
        execute(make_plan(sources, Settings(**settings)), tmp_path / "out.safetensors")
    found = read_adapter(tmp_path / "out.safetensors").modules
    assert distance(found, truth([plain(0)], [1.0])) < 1e-5
