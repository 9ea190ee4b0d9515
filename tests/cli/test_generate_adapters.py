"""`spf-lora generate` with adapters as a user meets it, on a tiny random base."""

from pathlib import Path

import pytest
from PIL import Image
from tiny_base import noisy_adapter

from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.module import Adapter

pytestmark = pytest.mark.usefixtures("in_a_clone")


@pytest.fixture
def trained(tiny, tiny_folder):
    """An adapter of random numbers that says what it adds and on which base."""
    said = file_metadata(Card("hat", "a hat", "a hat", tiny.id), rank=2, alpha=2.0, title="hat")
    path = Path("adapters/hat.safetensors")
    write_adapter(Adapter(noisy_adapter(tiny_folder).modules, said), path)
    return path


def test_generate_draws_a_grid_with_adapters_at_any_strength(cli, tiny_folder, trained):
    words = ("generate", "a person, a hat", "--base", tiny_folder, "--count", "3", "--steps", "2")
    assert cli(*words, "--out", "base.png")[0] == 0
    assert cli(*words, "--out", "zero.png", "--adapter", "hat:0")[0] == 0
    code, said, _ = cli(*words, "--out", "one.png", "--adapter", "hat:2", "--adapter", trained)
    assert (code, said.strip()) == (0, "one.png")
    pictures = [Image.open(f"{name}.png") for name in ("base", "zero", "one")]
    width, height = pictures[0].size  # three pictures of 32 px beside each other, and titles
    assert width >= 3 * 34
    assert height >= 34
    assert pictures[0].tobytes() == pictures[1].tobytes(), "strength 0 is the base, bit for bit"
    assert pictures[0].tobytes() != pictures[2].tobytes()


def test_generate_exact_leaves_a_prompt_that_does_not_ask_alone(cli, tiny_folder, trained):
    words = ("--base", tiny_folder, "--count", "2", "--steps", "2", "--out")
    exact = ("--adapter", "hat:2", "--exact")
    assert cli("generate", "a person", *words, "base.png")[0] == 0
    assert cli("generate", "a person", *words, "still.png", *exact)[0] == 0
    assert cli("generate", "a person, a hat", *words, "asked.png")[0] == 0
    assert cli("generate", "a person, a hat", *words, "moved.png", *exact)[0] == 0
    base, still, asked, moved = (
        Image.open(f"{name}.png").tobytes() for name in ("base", "still", "asked", "moved")
    )
    assert base == still
    assert asked != moved


@pytest.mark.parametrize("exact", [(), ("--exact",)])
def test_generate_lets_an_adapter_begin_late(cli, tiny_folder, trained, exact):
    words = (
        "generate",
        "a person, a hat",
        "--base",
        tiny_folder,
        "--count",
        "1",
        "--steps",
        "2",
        "--adapter",
        "hat:2",
        *exact,
        "--out",
    )
    drawn = []
    for start in ("0", "0.4", "0.6"):  # two steps: at 501 and at 1
        assert cli(*words, f"{start}.png", "--start-percent", start)[0] == 0
        drawn.append(Image.open(f"{start}.png").tobytes())
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_words_without_a_card_are_there_from_the_first_step(cli, tiny_folder, trained):
    bare = read_adapter(trained)
    bare.metadata.clear()
    write_adapter(bare, Path("bare.safetensors"))
    words = ("--base", tiny_folder, "--count", "1", "--steps", "2", "--start-percent", "0.6")
    found, told = {}, {}
    for name in ("hat", "bare.safetensors"):
        for prompt in ("a person, a hat", "a person"):
            code, _, talk = cli(
                "generate", prompt, *words, "--adapter", f"{name}:0", "--out", "x.png", "--force"
            )
            assert code == 0
            found[name, prompt], told[name] = Image.open("x.png").tobytes(), " ".join(talk.split())
    assert "does not say which words ask for it" in told["bare.safetensors"]
    assert "does not say" not in told["hat"]
    assert found["hat", "a person, a hat"] != found["bare.safetensors", "a person, a hat"]
    assert found["hat", "a person"] == found["bare.safetensors", "a person"]


def test_generate_exact_needs_an_adapter_that_says_its_words(cli, tiny_folder, trained):
    bare = read_adapter(trained)
    bare.metadata.clear()
    write_adapter(bare, Path("bare.safetensors"))
    code, _, talk = cli(
        "generate", "x", "--base", tiny_folder, "--adapter", "bare.safetensors", "--exact"
    )
    assert code == 1
    assert "does not say which words ask for it" in " ".join(talk.split())


def test_generate_warns_of_what_a_long_prompt_loses(cli, tiny_folder):
    prompt = ", ".join(["pale skin"] * 30) + ", a beard"
    code, _, talk = cli("generate", prompt, "--base", tiny_folder, "--count", "1", "--steps", "1")
    assert code == 0
    assert "longer than 77 tokens" in talk
    assert "a beard" in talk


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((" ",), "the prompt is empty"),
        (("\udcff",), "is no text in UTF-8"),
        (("x", "--steps", "1000"), "embedded has 1000 time steps"),
        (("x", "--out", "x" * 300), "is longer than 241 bytes"),
        (("x", "--adapter", "nobody"), "no adapter is called nobody"),
        (("x", "--adapter", "hat:much"), "no number from -4 to 4"),
        (("x", "--adapter", "hat:9"), "no number from -4 to 4"),
        (("x", "--adapter", "hat:nan"), "no number from -4 to 4"),
        (("x", "--out", "nowhere/x.png"), "nowhere does not exist"),
    ],
)
def test_generate_refuses_what_it_cannot_draw(cli, words, said):
    code, _, talk = cli("generate", *words)
    assert code == 1
    assert said in " ".join(talk.split())
    assert "hint: " in talk


def test_generate_refuses_an_adapter_of_another_base(cli, trained, tmp_path_factory):
    from tiny_base import make_tiny_base

    other = make_tiny_base(tmp_path_factory.mktemp("other") / "base", seed=1)
    code, _, talk = cli("generate", "x", "--adapter", "hat", "--base", other)
    assert code == 1
    assert "was trained on the base" in " ".join(talk.split())
    assert not Path("out/grid.png").exists()


def test_an_adapter_of_the_embedded_base_is_verified_as_such(cli, tmp_path):
    import numpy as np

    from spf_lora.adapters.module import Adapter, Module

    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    module = Module(name, np.ones((2, 192), np.float32), np.ones((96, 2), np.float32), 2.0)
    write_adapter(Adapter({name: module}, {}), tmp_path / "a.safetensors")
    code, said, talk = cli("verify", "a.safetensors", "--app", "diffusers")
    assert code == 0, said + talk
    assert "fits spf-lora's embedded base, so no SD1.5 app can use it" in " ".join(said.split())
    assert "spf-lora's embedded base" in cli("inspect", "a.safetensors")[1]


def test_generate_takes_no_seed_that_cannot_be_counted_on_from(cli):
    assert cli("generate", "x", "--seed", str(2**64 - 1))[0] == 2
