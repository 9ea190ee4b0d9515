"""Any LoRA cleaned: what comes out, what it is made from, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from made_evaluations import random_adapter
from tiny_base import noisy_adapter, text_adapter

from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.adapters.format.card import Card, file_metadata, from_metadata
from spf_lora.adapters.format.hashes import content_id
from spf_lora.adapters.module import Adapter, Module
from spf_lora.draw import trajectories
from spf_lora.training import pairs

pytestmark = pytest.mark.usefixtures("few_draws", "in_a_clone")
CLEANED = Path("out/any-cleaned.safetensors")


def no_drawing(*_):
    raise AssertionError("it draws pairs")


@pytest.fixture
def clean(cli, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SPF_LORA_CACHE", str(tmp_path / "cache"))
    write_adapter(noisy_adapter(tiny_folder), "any.safetensors")

    def run(*words):
        how = ("--base", tiny_folder, "--steps", "2", "--set", "data.batch_size=2")
        code, said, talk = cli("clean", *words, *how)
        return code, said, " ".join(talk.split())

    return run


def test_a_file_without_a_card_becomes_a_plain_lora_that_names_it(clean) -> None:
    code, said, talk = clean("any.safetensors", "--target", "a hat")
    assert code == 0, talk
    assert said.strip() == str(CLEANED)
    assert "cleaning any.safetensors: 'a hat' stays" in talk
    assert "draw pairs to learn from: done" in talk
    assert "learn: done" not in talk, "no picture is learned from"
    teacher, made = read_adapter(Path("any.safetensors")), read_adapter(CLEANED)
    card = from_metadata(made.metadata)
    assert (card.target_text, card.attribute) == ("a hat", "any")
    assert card.parents == (content_id(teacher),)
    assert content_id(teacher)[:12] in made.metadata["modelspec.description"]
    assert all(".attn" in name for name in made.modules), "no convolutions, though it had some"
    assert {module.rank for module in made.modules.values()} == {2}
    assert CLEANED.with_suffix(".png").exists()
    assert [path.name for path in Path("out").glob(".*")] == [], "no checkpoint is left"


def test_the_same_settings_and_seed_give_the_same_file_and_its_pairs_are_found_again(
    clean, monkeypatch
) -> None:
    assert clean("any.safetensors", "--target", "a hat")[0] == 0
    first = CLEANED.read_bytes()
    code, _, talk = clean("any.safetensors", "--target", "a hat")
    assert (code, "exists" in talk) == (1, True)
    monkeypatch.setattr(trajectories, "_packed", no_drawing)
    assert clean("any.safetensors", "--target", "a hat", "--force")[0] == 0
    assert CLEANED.read_bytes() == first


def test_a_part_for_the_text_encoder_teaches_and_is_not_in_the_file(clean, tiny_folder) -> None:
    whole = {**noisy_adapter(tiny_folder).modules, **text_adapter(tiny_folder).modules}
    write_adapter(Adapter(whole, {}), "both.safetensors")
    code, _, talk = clean("both.safetensors", "-a", "hat", "--rank", "3")
    assert code == 0, talk
    made = read_adapter(Path("out/both-cleaned.safetensors"))
    assert all(name.startswith("unet.") for name in made.modules)
    assert {module.rank for module in made.modules.values()} == {3}
    attribute = from_metadata(made.metadata).recipe["attribute"]
    assert "short hair" in attribute["replaces"], "as the recipe says"


def test_prompts_of_ones_own_are_drawn_without_the_target(clean, monkeypatch) -> None:
    asked = []
    real = pairs.teaching_prompts

    def seen(recipe, prompts, under, count):
        asked.append(list(prompts))
        return real(recipe, prompts, under, 2)

    from spf_lora.training import stages

    monkeypatch.setattr(stages, "teaching_prompts", seen)
    Path("mine.txt").write_text("a man, a hat, in a street\n# no\na woman\n")
    words = ("any.safetensors", "--target", "a hat", "--prompts", "mine.txt")
    assert clean(*words)[0] == 0
    assert asked[0] == ["a man, in a street", "a woman"]


def test_the_card_says_what_asks_for_it_and_a_stopped_run_goes_on(clean, tiny, monkeypatch) -> None:
    card = Card(attribute="hat", target_text="a hat", trigger="a hat", base_id=tiny.id)
    metadata = file_metadata(
        card, rank=4, alpha=4.0, title="hat", description="noise", usage_hint="none"
    )
    write_adapter(random_adapter(tiny.unet, seed=0, metadata=metadata), "told.safetensors")
    code, _, talk = clean("told.safetensors", "-o", "whole.safetensors")
    assert code == 0, talk
    from spf_lora.training.trainer import Trainer

    run = Trainer.run

    def stopped(self):
        for step in run(self):
            yield step
            if step.index == 1:
                self.save()
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run", stopped)
        assert clean("told.safetensors", "-o", "again.safetensors")[0] == 130
    code, _, talk = clean("told.safetensors", "-o", "again.safetensors", "--resume")
    assert (code, "resuming after step 1" in talk) == (0, True)
    assert Path("again.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()


def test_a_stopped_run_does_not_go_on_with_other_words(clean, monkeypatch) -> None:
    from spf_lora.training.trainer import Trainer

    def words(group):
        text = f'template = "a person, {{}}"\n[groups]\nplace = {group}\n'
        Path("words.toml").write_text(text)

    def stopped(self):
        self.save()
        raise KeyboardInterrupt
        yield

    how = ("any.safetensors", "--target", "a hat", "--set", "distil.vocabulary=words.toml")
    words('["indoors", "in a street"]')
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run", stopped)
        assert clean(*how)[0] == 130
    words('["indoors", "at sea"]')
    code, _, talk = clean(*how, "--resume")
    assert (code, "belongs to a run with another recipe, data or base" in talk) == (1, True)


def test_what_cannot_be_cleaned_is_refused_before_anything_is_drawn(
    clean, tiny, tiny_folder, monkeypatch
) -> None:
    monkeypatch.setattr(trajectories, "_packed", no_drawing)
    code, _, talk = clean("any.safetensors")
    assert (code, "no card that says what asks for it" in talk) == (1, True)
    code, _, talk = clean(
        "any.safetensors", "--target", "a hat", "-o", "any.safetensors", "--force"
    )
    assert (code, "is the adapter itself" in talk) == (1, True)
    code, _, talk = clean("any.safetensors", "--target", "a hat, red")
    assert (code, "one phrase" in talk) == (1, True)
    Path("bad.txt").write_text("a hat\n")
    code, _, talk = clean("any.safetensors", "--target", "a hat", "--prompts", "bad.txt")
    assert (code, "is nothing but the target" in talk) == (1, True)
    code, _, talk = clean("nowhere.safetensors", "--target", "a hat")
    assert (code, "hint: " in talk) == (1, True)
    zero = {
        name: Module(name, module.down, np.zeros_like(module.up), module.alpha)
        for name, module in noisy_adapter(tiny_folder).modules.items()
    }
    write_adapter(Adapter(zero, {}), "zero.safetensors")
    code, _, talk = clean("zero.safetensors", "--target", "a hat")
    assert (code, "changes nothing: all its factors are zero" in talk) == (1, True)
    card = Card(attribute="hat", target_text="a hat", trigger="a hat", base_id="0" * 16)
    metadata = file_metadata(card, rank=2, alpha=2.0, title="h", description="n", usage_hint="n")
    write_adapter(Adapter(noisy_adapter(tiny_folder).modules, metadata), "far.safetensors")
    code, _, talk = clean("far.safetensors")
    assert (code, "was trained on the base 0000000000000000" in talk) == (1, True)
    assert not Path("out").exists() or not list(Path("out").glob("*.safetensors"))


def test_words_that_it_does_not_answer_are_told(clean, monkeypatch) -> None:
    monkeypatch.setattr(pairs, "_LEAST_CHANGE", 1e6)
    code, _, talk = clean("any.safetensors", "--target", "a crown")
    assert (code, "nothing to distil" in talk) == (1, True)
    assert "does any.safetensors answer to 'a crown'?" in talk
    assert not CLEANED.exists()
