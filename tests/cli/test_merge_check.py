"""`spf-lora merge --check`: the table, the JSON, the gate, and what cannot be checked."""

import numpy as np
import pytest
from adapter_files import spf_lora
from test_stack_report import put

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.evaluate import merge_retention
from spf_lora.evaluate.result import Figure


@pytest.fixture
def pair(shelf, monkeypatch):
    monkeypatch.setenv("SPF_LORA_CACHE", str(shelf.parent / "cache"))
    monkeypatch.setattr(merge_retention, "PROMPTS", 2)
    monkeypatch.setattr(merge_retention, "STEPS", 1)
    for seed, attribute in enumerate(("beard", "hat")):
        put(shelf, attribute, seed, scale=2.0)
    return "merge", "beard", "hat", "--registry", shelf


def test_the_check_is_a_table_beside_the_merge_and_the_gate_exits_3(pair, shelf, monkeypatch):
    seen = []

    def measure(base, parts, merged, **how):
        seen.extend((one.name, one.attribute, delta(one.adapter)) for one in parts)
        good, bad = (Figure(value, value, value, 2) for value in (0.8, 0.5))
        return [
            merge_retention.Kept(one.name, one.attribute, (good, after), (bad, bad), (bad, bad))
            for one, after in zip(parts, (good, bad), strict=True)
        ]

    monkeypatch.setattr(merge_retention, "measure_kept", measure)
    told = spf_lora(*pair, "--weights", "1,0.5", "--check", "--json").json
    assert [(one["attribute"], one["passed"]) for one in told["check"]] == [
        ("beard", True),
        ("hat", False),
    ]
    assert told["check"][1]["response_merged"]["value"] == 0.5
    source = delta(read_adapter(shelf / "hat.safetensors"))
    np.testing.assert_allclose(seen[1][2], 0.5 * source, rtol=1e-6)
    done = spf_lora(*pair, "--force", "--gate", code=3)
    assert "merging cost too much for hat" in done.stderr
    assert "0.80 [0.80, 0.80]" in done.stdout
    assert (shelf.parent / "out/merged.safetensors").exists()


def delta(adapter):
    (module,) = adapter.modules.values()
    return module.scale * module.up @ module.down


@pytest.mark.slow
def test_a_real_check_is_a_table_beside_the_merge_and_the_gate_exits_3(pair, shelf):
    told = spf_lora(*pair, "--check", "--json").json
    assert [one["attribute"] for one in told["check"]] == ["beard", "hat"]
    assert told["check"][0]["pollution_alone"]["value"] > 0
    words = (*pair, "--weights", "0.01,4", "--force")
    done = spf_lora(*words, "--gate", code=3)
    assert "merging cost too much for beard" in done.stderr
    assert "response" in done.stdout
    assert (shelf.parent / "out/merged.safetensors").exists()


def test_what_cannot_be_checked_is_refused_before_anything_is_written(pair, shelf):
    put(shelf, "plain", 2, card=False)
    put(shelf, "tattoo", 3)
    assert "plain has no card" in spf_lora(*pair, "plain", "--check", code=1).stderr
    assert "cannot judge 'tattoo'" in spf_lora(*pair, "tattoo", "--gate", code=1).stderr
    assert "leave --plan or --check out" in spf_lora(*pair, "--plan", "--check", code=1).stderr
    assert "nowhere does not exist" in spf_lora(*pair, "--gate", "--base", "nowhere", code=1).stderr
    assert not (shelf.parent / "out/merged.safetensors").exists()
