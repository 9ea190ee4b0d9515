"""An audit: what it ranks, what it says of several files, what it refuses."""

import json
from pathlib import Path

import pytest
from made_evaluations import random_adapter
from tiny_base import make_tiny_clip

from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.evaluate import audit, reactions

pytestmark = pytest.mark.usefixtures("in_a_clone")


@pytest.fixture
def look(cli, tiny, tiny_folder, monkeypatch):
    for module in (audit, reactions):
        monkeypatch.setattr(module, "COMMON_WORDS", ("crown", "dog", "beard"))
    for seed in (0, 1):
        write_adapter(random_adapter(tiny.unet, seed=seed), f"any-{seed}.safetensors")

    def run(*words):
        code, said, talk = cli("audit", *words, "--base", tiny_folder, "--prompts", "2")
        return code, said, " ".join(talk.split())

    return run


def test_an_audit_ranks_what_moves_words_and_blocks(look, tmp_path) -> None:
    clip = make_tiny_clip(tmp_path / "clip")
    how = ("any-0.safetensors", "--target", "a hat", "--clip", clip, "--json")
    code, said, talk = look(*how)
    assert code == 0, talk
    (found,) = json.loads(said)["adapters"]
    assert (found["name"], found["target"], found["measured"]) == ("any-0", "a hat", None)
    effects = [one["effect"] for one in found["words"]]
    assert effects == sorted(effects, reverse=True)
    assert {one["word"] for one in found["words"]} == {"crown", "dog", "beard"}
    assert min(found["still"], *effects) > 0
    assert sum(found["blocks"].values()) == pytest.approx(1)
    assert set(found["blocks"]) <= {f"unet.{one}" for one in BLOCKS}
    gains = [one["after"] - one["before"] for one in found["moves"]]
    assert gains == sorted(gains, reverse=True)
    assert set(found["changed"]) == {one["group"] for one in found["moves"]}
    page = Path("out/audits/any-0/audit.html").read_text()
    assert "a hat" in page
    assert "http" not in page.replace("http-equiv", ""), "it reaches nowhere else"
    code, _, talk = look(*how)
    assert (code, "audit.html" in talk) == (1, True), "a page is not overwritten unasked"


BLOCKS = ("mid_block", *(f"{side}_blocks.{n}" for side in ("down", "up") for n in range(4)))


def test_several_adapters_meet_in_weights_and_words(look) -> None:
    code, said, talk = look("any-0.safetensors", "any-1.safetensors", "--force")
    assert code == 0, talk
    assert "nobody sees what moves: name a CLIP with --clip" in talk
    assert "Asked for by no words that are known" in said
    assert "How they meet" in said
    row = next(line for line in said.splitlines() if line.startswith("any-0, any-1"))
    assert any(word in row for word in ("crown", "dog", "beard", "none"))
    Path("b").mkdir()
    Path("any-0.safetensors").rename("b/any-1.safetensors")
    code, _, talk = look("any-1.safetensors", "b/any-1.safetensors", "--force")
    assert (code, "two of the files have one name" in talk) == (1, True)


@pytest.mark.slow
def test_an_audit_finds_the_bias_that_was_planted_in_a_plain_loras_pictures(
    cli, tmp_path, record_property
) -> None:
    from spf_lora.data.worlds.portraits import ATTRIBUTES, FACTORS

    plain = (
        *("training.method=plain", "data.vocabulary=none", "learn.steps=400"),
        *("adapter.preset=attention", "optimizer.learning_rate=2e-3"),
    )
    changes = [part for one in plain for part in ("--set", one)]
    file = tmp_path / "plain.safetensors"
    code, _, talk = cli("train", "-a", "beard", *changes, "-o", file)
    assert code == 0, talk
    code, said, talk = cli("audit", file, "--json", "-o", tmp_path / "audit")
    assert code == 0, talk
    (found,) = json.loads(said)["adapters"]
    first = [(one["group"], one["phrase"]) for one in found["moves"][:8]]
    planted = {(name, FACTORS[name][v][0]) for name, v in ATTRIBUTES["beard"].company.items()}
    record_property("told", f"planted {len(planted & set(first))} of {len(planted)}: {first}")
    assert len(planted & set(first)) >= 4
