"""`spf-lora merge --check`: the table, the JSON, the gate, and what cannot be checked."""

import pytest
from adapter_files import spf_lora
from test_stack_report import put

from spf_lora.evaluate import kept


@pytest.fixture
def pair(shelf, monkeypatch):
    monkeypatch.setenv("SPF_LORA_CACHE", str(shelf.parent / "cache"))
    monkeypatch.setattr(kept, "PROMPTS", 2)
    monkeypatch.setattr(kept, "STEPS", 1)
    for seed, attribute in enumerate(("beard", "hat")):
        put(shelf, attribute, seed, scale=2.0)
    return "merge", "beard", "hat", "--registry", shelf


def test_the_check_is_a_table_beside_the_merge_and_the_gate_exits_3(pair, shelf):
    told = spf_lora(*pair, "--check", "--json").json
    assert [one["attribute"] for one in told["check"]] == ["beard", "hat"]
    assert told["check"][0]["pollution_alone"]["value"] > 0
    words = (*pair, "--weights", "0.01,4", "--force")
    done = spf_lora(*words, "--gate", code=3)
    assert "merging cost too much for beard" in done.stderr
    assert "response" in done.stdout
    assert (shelf.parent / "merged.safetensors").exists()


def test_what_cannot_be_checked_is_refused_before_anything_is_written(pair, shelf):
    put(shelf, "plain", 2, card=False)
    put(shelf, "tattoo", 3)
    assert "plain has no card" in spf_lora(*pair, "plain", "--check", code=1).stderr
    assert "cannot judge 'tattoo'" in spf_lora(*pair, "tattoo", "--gate", code=1).stderr
    assert "leave --plan or --check out" in spf_lora(*pair, "--plan", "--check", code=1).stderr
    assert not (shelf.parent / "merged.safetensors").exists()
