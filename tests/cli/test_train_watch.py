"""Adapters and pictures of a training's way, which leave its end as it would have been."""

from pathlib import Path

import pytest
from PIL import Image

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.card import from_metadata

pytestmark = pytest.mark.usefixtures("few_draws", "in_a_clone")
SMALL = ("--steps", "4", "--set", "data.count=4", "--set", "data.batch_size=2")


@pytest.fixture
def train(cli, tiny_folder):
    def run(*words, code=0):
        done = cli("train", "-a", "hat", "--base", tiny_folder, *SMALL, *words)
        assert done[0] == code, done
        return done

    return run


def test_what_is_kept_and_drawn_on_the_way_changes_nothing_at_the_end(train):
    train()
    plain = Path("adapters/hat.safetensors").read_bytes()
    Path("p.txt").write_text("a man, a hat\na woman, a hat\n")
    words = "--force --keep-every 1 --sample-every 2 --sample-prompts p.txt --log-dir logs"
    train(*words.split())
    assert Path("adapters/hat.safetensors").read_bytes() == plain
    kept = sorted(Path("adapters/hat-steps").iterdir())
    assert [path.name for path in kept] == [f"hat-00000{n}.safetensors" for n in (1, 2, 3)]
    cards = [from_metadata(read_adapter(path).metadata) for path in kept]
    assert {card.attribute for card in cards} == {"hat"}
    assert len({path.read_bytes() for path in kept}) == 3
    drawn = sorted(Path("adapters/hat-samples").iterdir())
    assert [path.name for path in drawn] == ["000002.png", "000004.png"]
    assert Image.open(drawn[0]).height > Image.open(drawn[0]).width
    assert any(Path("logs").iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sample-every", "2"), "belong together"),
        (("--sample-prompts", "p.txt"), "belong together"),
        (("--sample-every", "2", "--sample-prompts", "none.txt"), "none.txt cannot be read"),
        (("--sample-every", "2", "--sample-prompts", "p.txt"), "holds 17 prompts"),
    ],
)
def test_what_cannot_be_drawn_on_the_way_is_refused_before_training(train, words, said):
    Path("p.txt").write_text("".join(f"a man, {n}\n" for n in range(17)))
    _, _, talk = train(*words, code=1)
    assert said in " ".join(talk.split())
    assert not list(Path("adapters").iterdir())
