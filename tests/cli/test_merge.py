import json
import re

import numpy as np
import pytest
from adapter_files import adapter, heavy_imports, spf_lora
from root import ROOT

from spf_lora.adapters.format.adapter_file import Adapter, Module, read_adapter, write_adapter
from spf_lora.adapters.format.card import from_metadata
from spf_lora.adapters.format.hashes import content_id
from spf_lora.adapters.format.privacy import leaks
from spf_lora.merge.methods import METHODS


def change(module):
    up, down = (np.asarray(one, np.float64) for one in (module.up, module.down))
    return module.scale * up @ down


def distance(found, reference):
    error = sum(np.sum((change(found.modules[name]) - one) ** 2) for name, one in reference.items())
    return (error / sum(np.sum(one**2) for one in reference.values())) ** 0.5


def flipped():
    """A second adapter: the first with its factors in another order of directions."""
    first = adapter()
    modules = {
        name: Module(name, one.down[::-1].copy(), one.up, 1.0)
        for name, one in first.modules.items()
    }
    return Adapter(modules, first.metadata)


@pytest.fixture
def pair(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapters").mkdir()
    write_adapter(adapter(), tmp_path / "adapters" / "beard.safetensors")
    write_adapter(flipped(), tmp_path / "hat.safetensors")
    return "beard", "hat.safetensors"


def test_names_and_files_are_merged_into_the_exact_sum(pair, tmp_path):
    done = spf_lora("merge", *pair, "--weights", "-1,0.8")
    assert "exact      yes, but for rounding to fp16" in done.stdout
    whole = {
        name: -change(one) + 0.8 * change(flipped().modules[name])
        for name, one in adapter().modules.items()
    }
    result = read_adapter(tmp_path / "out/merged.safetensors")
    assert distance(result, whole) < 2**-10
    assert spf_lora("verify", "out/merged.safetensors").returncode == 0


def test_the_card_names_parents_weights_and_method_and_no_path(pair, tmp_path):
    spf_lora(
        "merge", *pair, "-o", "m.safetensors", "--weights", "1,0.8", "--method", "svd", "--rank", 4
    )
    metadata = read_adapter(tmp_path / "m.safetensors").metadata
    card = from_metadata(metadata)
    parents = [content_id(read_adapter(path)) for path in ("adapters/beard.safetensors", pair[1])]
    assert card.parents == tuple(parents)
    assert card.recipe == {
        "merge": {"method": "svd", "weights": [1.0, 0.8], "rank": 4, "dtype": "fp16"}
    }
    assert card.base_id == "sd15:0123"
    assert card.target_text == "a beard"
    assert metadata["modelspec.merged_from"] == ", ".join(parents)
    assert metadata["modelspec.title"] == "m"
    assert not any(leaks(text) for text in metadata.values())
    assert "hat" not in json.dumps(metadata)


def test_the_same_merge_gives_the_same_bytes(pair, tmp_path):
    for method in (("concat",), ("svd", "--rank", "4")):
        spf_lora("merge", *pair, "--method", *method, "--force")
        first = (tmp_path / "out/merged.safetensors").read_bytes()
        spf_lora("merge", *pair, "--method", *method, "--force")
        assert (tmp_path / "out/merged.safetensors").read_bytes() == first


def test_the_plan_predicts_what_the_merge_does_and_writes_nothing(pair, tmp_path):
    words = ("merge", *pair, "--method", "svd", "--rank", 3, "--json")
    plan = spf_lora(*words, "--plan").json
    assert not (tmp_path / "out/merged.safetensors").exists()
    done = spf_lora(*words).json
    same = ("modules", "shared_modules", "ranks", "blocks", "relative_error", "dtype", "exact")
    assert {key: plan[key] for key in same} == {key: done[key] for key in same}
    assert plan["ranks"] == {"3": len(adapter().modules)}
    assert 0 < plan["relative_error"] < 1
    assert (tmp_path / "out/merged.safetensors").stat().st_size > done["bytes_at_most"]


def test_the_plan_says_how_much_orthogonal_takes(pair):
    plan = spf_lora("merge", *pair, "--method", "orthogonal", "--plan", "--json").json
    assert plan["adapters"][0]["share_lost"] == 0
    # both read the same directions, in another order
    assert plan["adapters"][1]["share_lost"] == pytest.approx(1, abs=1e-6)
    shown = spf_lora("merge", *pair, "--method", "orthogonal", "--plan").stdout
    assert "loses 100.00% of its norm" in shown


def test_ties_cannot_be_predicted_and_says_so(pair):
    shown = spf_lora("merge", *pair, "--method", "ties", "--rank", 4, "--plan").stdout
    assert "the error is known when it is done" in shown


def test_blocks_have_weights_of_their_own(pair, tmp_path):
    spf_lora("merge", *pair, "--block-weights", "ALL", "--block-weights", "NONE")
    merged = read_adapter(tmp_path / "out/merged.safetensors")
    assert content_id(merged) == content_id(read_adapter(tmp_path / "adapters/beard.safetensors"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--weights", "1"), "2 adapters were given but 1 weights"),
        (("--weights", "1,a"), "are not numbers with commas"),
        (("--registry", "nowhere"), "registry nowhere is no folder"),
        (("--method", "svd", "--rank", "9"), "8 is the useful maximum"),
        (("-o", "hat.safetensors", "--force"), "is one of the adapters"),
        (("missing",), "no adapter is called missing"),
        (("./missing.safetensors",), "does not exist"),
        (("../etc/passwd",), "does not exist"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_hint(pair, tmp_path, words, reason):
    done = spf_lora("merge", *pair, *words, code=1)
    assert reason in done.stderr
    assert "hint: " in done.stderr
    assert not (tmp_path / "out/merged.safetensors").exists()


def test_two_adapters_for_the_same_text_deserve_a_warning(pair):
    assert "2 adapters answer to 'a beard'" in spf_lora("merge", *pair, "--plan").stderr


def test_the_page_and_the_help_name_every_method():
    page = (ROOT / "docs" / "merging.md").read_text("utf-8")
    shown = spf_lora("merge", "--help").stdout
    for name, row in METHODS.items():
        assert f"| `{name}` |" in page
        assert name in shown
        found = re.search(r"arXiv:[\d.]+", row.reference)
        assert found is None or found[0] in page


def test_merge_imports_no_torch(pair, tmp_path):
    assert heavy_imports(["merge", *pair, "--method", "svd", "--rank", 4]) == []
