"""`spf-lora stack report`: what it prints, writes and refuses; the numbers are tested elsewhere."""

import json

import numpy as np
import pytest
from adapter_files import spf_lora
from made_up import made_up

from spf_lora.adapters.format.adapter_file import Adapter, Module, write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.evaluate import incremental

NAME = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"
WORDS = ("stack", "report", "pair", "--prompts", 2, "--seeds", 1, "--steps", 1)


def put(shelf, attribute, seed, *, base_id="", card=True, scale=0.1):
    rng = np.random.default_rng(seed)
    down, up = rng.normal(size=(2, 192)), scale * rng.normal(size=(96, 2))
    told = Card(attribute, f"a {attribute}", f"a {attribute}", base_id)
    entries = file_metadata(told, rank=2, alpha=2.0, title=attribute) if card else {}
    module = Module(NAME, down.astype("f4"), up.astype("f4"), 2.0)
    write_adapter(Adapter({NAME: module}, entries), shelf / f"{attribute}.safetensors")


@pytest.fixture
def pair(shelf, monkeypatch):
    monkeypatch.setenv("SPF_LORA_CACHE", str(shelf.parent / "cache"))
    for seed, attribute in enumerate(("beard", "hat")):
        put(shelf, attribute, seed)
    spf_lora("stack", "create", "pair", "beard", "hat", "--registry", shelf)
    return shelf


def test_a_report_is_a_table_and_two_files_and_the_gate_exits_3(pair, monkeypatch):
    asked = {}

    def measure(base, parts, protocol, **how):
        asked.update(vars(protocol), steps=how["sampling"].steps)
        asked["parts"] = [(one.name, one.strength) for one in parts]
        return made_up([[0.9, 0.5], [None, 0.8]], [[0.2, 0.24], [None, 0.22]])

    monkeypatch.setattr(incremental, "measure_incremental", measure)
    words = (*WORDS, "--orders", 3, "--registry", pair, "-o", "report")
    done = spf_lora(*words, "--gate", code=3)
    assert asked["parts"] == [("beard", 1.0), ("hat", 1.0)]
    assert (asked["prompts"], asked["seeds"], asked["steps"], asked["orders"]) == (2, 1, 1, 3)
    lines = done.stdout.splitlines()
    assert lines[1].split() == ["a", "0.10", "0.90", "0.90", "0.50", "0.20", "0.24"]
    assert "fails: each response at the end" in done.stdout
    assert "the stack pair fails: kept" in done.stderr
    folder = pair.parent / "report"
    assert sorted(one.name for one in folder.iterdir()) == ["pair.json", "pair.svg"]
    written = json.loads((folder / "pair.json").read_text())
    assert "exists" in spf_lora(*words, code=1).stderr
    told = spf_lora(*WORDS, "--registry", pair, "--json").json
    assert told == written
    assert (asked["exact"], asked["local"]) == (False, False)
    spf_lora("stack", "report", "pair", "--quick", "--exact", "--registry", pair)
    assert (asked["exact"], asked["local"]) == (True, False)
    spf_lora("stack", "report", "pair", "--quick", "--local", "--registry", pair)
    assert (asked["exact"], asked["local"]) == (False, True)
    assert (asked["prompts"], asked["seeds"]) == (6, 1)


@pytest.mark.slow
def test_a_real_report_is_a_table_and_two_files_and_the_gate_exits_3(pair):
    words = (*WORDS, "--registry", pair, "-o", "report")
    done = spf_lora(*words, "--gate", code=3)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["adapter", "beard", "hat"]
    assert "asked for together:" in lines
    assert "fails: each response at the end" in done.stdout or "fails: of any two" in done.stdout
    assert "measuring beard with beard, hat on" in done.stderr
    folder = pair.parent / "report"
    assert sorted(one.name for one in folder.iterdir()) == ["pair.json", "pair.svg"]
    written = json.loads((folder / "pair.json").read_text())
    assert written["adapters"] == ["beard", "hat"]
    assert "exists" in spf_lora(*words, code=1).stderr


def test_what_no_report_can_be_made_of_is_refused(pair):
    put(pair, "tattoo", 5)
    put(pair, "plain", 6, card=False)
    put(pair, "glasses", 7, base_id="base:other")
    reasons = {
        "tattoo": "cannot judge 'tattoo'",
        "plain": "plain has no card",
        "glasses": "trained on the base base:other",
    }
    for at, (name, reason) in enumerate(reasons.items()):
        spf_lora("stack", "create", f"s{at}", name, "--registry", pair)
        done = spf_lora("stack", "report", f"s{at}", "--registry", pair, code=1)
        assert reason in done.stderr
    (pair / "hat.safetensors").unlink()
    assert "needs hat" in spf_lora(*WORDS, "--registry", pair, code=1).stderr
