"""One bad file among many: it is named, and the others are dealt with as ever."""

import json

import pytest
from adapter_files import CARD, adapter, sound_file, spf_lora
from safetensors.numpy import save_file

from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.adapters.format.card import KEY, to_json

CARDS = {
    "infinite-recipe": ('"steps":10', '"steps":1e999'),
    "infinite-dose": ('"response":0.25', '"dose":1e999'),
    "wild-dose": ('"response":0.25', '"dose":-3.0'),
    "text-metric": ('"response":0.25', '"response":"much"'),
    "half-character": ('"steps":10', r'"steps":"\ud800"'),
    "deep": ('"steps":10', f'"steps":{"[" * 500}{"]" * 500}'),
}


def with_bad_card(folder, name):
    old, new = CARDS[name]
    text = to_json(CARD)
    assert old in text
    path = folder / f"{name}.safetensors"
    write_adapter(adapter(metadata={KEY: text.replace(old, new)}), path)
    return path


def with_wild_weights(folder):
    """An adapter whose weights are finite, but overflow in whatever is made of them."""
    import numpy as np

    body = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    ones = {"lora_down": np.full((4, 768), 1e300), "lora_up": np.full((1280, 4), 1e300)}
    path = folder / "wild.safetensors"
    save_file({f"{body}.{name}.weight": array for name, array in ones.items()}, path)
    return path


@pytest.fixture
def bad(shelf):
    return [*(with_bad_card(shelf, name) for name in CARDS), with_wild_weights(shelf)]


def test_a_bad_card_is_told_by_every_command_that_reads_it(shelf, bad, tmp_path):
    beard = sound_file(shelf, "beard.safetensors")
    for path in bad[:-1]:
        told = "the spf_lora card cannot be used"
        assert told in spf_lora("inspect", path).stderr
        json.loads(spf_lora("inspect", "--json", path).stdout)
        assert told in spf_lora("verify", path, code=3).stdout
        assert told in spf_lora("adapters", "show", path.stem, "--registry", shelf).stderr
        merged = spf_lora("merge", path, beard, "--out", tmp_path / "m.safetensors", code=1)
        assert f"{path}: {told}" in " ".join(merged.stderr.split())
        added = spf_lora("adapters", "add", path, "--registry", tmp_path / "new", code=1)
        assert told in added.stderr
        stacked = spf_lora("stack", "create", "two", path.stem, "--registry", shelf, code=1)
        assert told in stacked.stderr


def test_a_bad_file_stops_no_command_over_many(shelf, bad):
    sound = [sound_file(shelf, f"{name}.safetensors") for name in ("beard", "hat")]
    names = [path.stem for path in (*bad, *sound)]
    done = spf_lora("adapters", "verify", "--registry", shelf, code=3)
    assert f"{len(bad)} of {len(names)} adapters did not pass" in done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == {path.stem for path in bad}
    found = spf_lora("adapters", "verify", "--json", "--registry", shelf, code=3).json
    assert sorted(found) == sorted(names)
    listed = spf_lora("adapters", "list", "--json", "--registry", shelf).json
    assert sorted(row["name"] for row in listed) == sorted(names)
    spf_lora("attributes", "--registry", shelf)


def test_what_is_not_there_stops_neither_inspect_nor_verify(shelf, bad):
    beard = sound_file(shelf, "beard.safetensors")
    none, wild = shelf / "none.safetensors", bad[-1]
    done = spf_lora("inspect", none, wild, beard, code=1)
    assert "2 of 3 files cannot be read" in done.stderr
    assert f"{none} does not exist" in " ".join(done.stderr.split())
    assert "wild.safetensors holds a number above 1e+06" in " ".join(done.stderr.split())
    assert str(beard) in done.stdout
    done = spf_lora("verify", none, beard, code=3)
    assert "does not exist" in done.stdout
    assert str(beard) in done.stdout
