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
from spf_lora.evaluate import reactions
from spf_lora.training import pairs

pytestmark = pytest.mark.usefixtures("few_draws", "in_a_clone")
CLEANED = Path("out/any-cleaned.safetensors")


def no_drawing(*_):
    raise AssertionError("it draws pairs")


@pytest.fixture
def clean(cli, tiny_folder, tmp_path, monkeypatch):
    """Cleans, with a cache that is this test's own."""
    monkeypatch.setenv("SPF_LORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reactions, "COMMON_WORDS", ("crown", "dog"))
    monkeypatch.setattr(reactions, "_ANSWERS", 0.0)  # noise answers to anything
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
    for name in ("moved", "leaked"):  # two steps hardly teach anything
        assert card.metrics[f"before_{name}"] > card.metrics[name] >= 0
    assert f"before: moves {card.metrics['before_moved']:.2f} of what another seed" in talk
    assert f"cleaned: moves {card.metrics['moved']:.2f} of what another seed" in talk
    assert "verdict: it moves less; nobody judged" in talk
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
    assert (code, "belongs to a run with another recipe, data, base or CLIP" in talk) == (1, True)


def test_an_adapter_that_says_no_words_is_cleaned_on_every_prompt(clean) -> None:
    code, _, talk = clean("any.safetensors")
    assert code == 0, talk
    assert "cleaning any.safetensors: what it changes most stays" in talk
    assert "look for the target" not in talk
    card = from_metadata(read_adapter(CLEANED).metadata)
    assert (card.target_text, card.trigger) == ("", "")
    assert card.recipe["attribute"]["control"] == "strength"
    assert "leaked" not in card.metrics, "there is no prompt that does not ask"


@pytest.mark.parametrize(
    "metadata",
    [
        {"modelspec.trigger_phrase": "a crown, gold"},
        {"ss_tag_frequency": '{"10_x": {"gold": 3, "a crown": 12}, "y": {"gold": 4}}'},
    ],
)
def test_what_its_trainer_wrote_says_what_asks_for_it(tiny_folder, metadata) -> None:
    write_adapter(Adapter(noisy_adapter(tiny_folder).modules, metadata), "told.safetensors")
    attribute = clean_recipe(Path("told.safetensors")).attribute
    assert (attribute.target_text, attribute.control) == ("a crown", "words")


def clean_recipe(path, keep=None):
    from spf_lora.cli.any_lora import recipe_of, source_of

    return recipe_of(source_of(path), [], target=None, attribute=None, base="x", keep=keep)[0]


def test_a_dry_run_tells_time_memory_and_disk_and_cleans_nothing(clean, monkeypatch) -> None:
    monkeypatch.setattr(trajectories, "_packed", no_drawing)
    code, said, talk = clean("any.safetensors", "--target", "a hat", "--dry-run")
    assert code == 0, talk
    for words in ("MB on disk)", "peak of a step", "draw pairs to learn from", "in all"):
        assert words in said
    assert not Path("out").exists()


def test_a_dry_run_refuses_a_base_that_does_not_exist(cli, tiny_folder) -> None:
    write_adapter(noisy_adapter(tiny_folder), "any.safetensors")
    words = ("any.safetensors", "--target", "a hat", "--dry-run", "--base", "nowhere")
    code, said, talk = cli("clean", *words)
    assert (code, said) == (1, "")
    assert "the base nowhere does not exist" in " ".join(talk.split())


def test_a_style_is_known_by_its_map_and_what_is_to_stay_stays(clean, monkeypatch) -> None:
    from spf_lora.draw import places

    monkeypatch.setattr(pairs, "_COVERED", 0.0)
    kept, real = [], places.places_of

    def seen(*of):
        kept.append(real(*of))
        return kept[-1]

    monkeypatch.setattr(trajectories, "places_of", seen)
    code, _, talk = clean("any.safetensors", "--target", "a hat", "--set", 'distil.keep=["face"]')
    assert code == 0, talk
    assert "any.safetensors changes the whole picture" in talk
    assert "the base's layout stays, and its face; what it does to faces" in talk
    assert 0 < kept[0].mean() < 1
    recipe = from_metadata(read_adapter(CLEANED).metadata).recipe
    assert recipe["attribute"]["scope"] == "global"


def test_what_is_to_stay_makes_it_a_style(tiny_folder) -> None:
    write_adapter(noisy_adapter(tiny_folder), "any.safetensors")
    recipe = clean_recipe(Path("any.safetensors"), keep="face, background")
    assert recipe.attribute.scope == "global"
    assert recipe.distil.keep == ("face", "background")


def test_a_loha_teaches_what_it_is_multiplied_out_to(clean, tiny_folder) -> None:
    from safetensors.numpy import save_file

    name, module = next(iter(noisy_adapter(tiny_folder).modules.items()))
    body = "lora_unet_" + name.removeprefix("unet.").replace(".", "_")
    rng = np.random.default_rng(0)
    sizes = {"a": (len(module.up), 2), "b": (2, module.down[0].size)}
    parts = {f"{body}.hada_w{i}_{e}": rng.normal(size=s) for i in "12" for e, s in sizes.items()}
    save_file({key: part.astype(np.float32) for key, part in parts.items()}, "any.safetensors")
    code, _, talk = clean("any.safetensors", "--target", "a hat", "--rank", "2")
    assert code == 0, talk
    assert from_metadata(read_adapter(CLEANED).metadata).parents
    for key in parts:
        parts[key] = parts[key] * 0
    save_file({key: part.astype(np.float32) for key, part in parts.items()}, "none.safetensors")
    code, _, talk = clean("none.safetensors", "--target", "a hat")
    assert (code, "changes nothing" in talk) == (1, True)


def test_a_target_that_it_does_not_draw_is_refused_with_the_best_guess(clean, monkeypatch) -> None:
    monkeypatch.setattr(reactions, "_ANSWERS", 1e6)
    monkeypatch.setattr(trajectories, "_packed", no_drawing)
    code, _, talk = clean("any.safetensors", "--target", "a hat")
    assert (code, "does not react to 'a hat' more than to any other words" in talk) == (1, True)
    assert "it reacts most to crown, dog" in talk or "it reacts most to dog, crown" in talk


def damaged(path, change):
    """Write any.safetensors with its first tensor changed."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file("any.safetensors")
    change(tensors)
    save_file(tensors, path)


def test_a_file_that_is_no_sound_lora_is_refused_by_what_it_is(clean, tiny, monkeypatch) -> None:
    monkeypatch.setattr(trajectories, "_packed", no_drawing)

    def refused(path, words):
        code, _, talk = clean(path, "--target", "a hat")
        assert (code, words in talk) == (1, True), talk

    def broken(tensors):
        first = next(key for key in tensors if key.endswith("down.weight"))
        tensors[first].flat[0] = np.nan

    damaged("nan.safetensors", broken)
    refused("nan.safetensors", "holds NaN or inf")

    def whole(tensors):
        tensors["model.diffusion_model.out.0.weight"] = np.ones(4, np.float32)

    damaged("whole.safetensors", whole)
    refused("whole.safetensors", "this is a checkpoint and no LoRA")

    def still(tensors):
        tensors.update({k: np.zeros_like(t) for k, t in tensors.items() if "alpha" in k})

    damaged("still.safetensors", still)
    refused("still.safetensors", "its strength or all its factors are zero")

    def larger(tensors):
        tensors["lora_te2_text_model.alpha"] = np.ones((), np.float32)

    damaged("xl.safetensors", larger)
    refused("xl.safetensors", "is for Stable Diffusion XL")
    card = Card(attribute="hat", target_text="a hat", trigger="a hat", base_id=tiny.id, seed=1)
    metadata = file_metadata(card, rank=2, alpha=2.0, title="h", description="n", usage_hint="n")
    metadata["spf_lora"] = metadata["spf_lora"].replace(card.recipe_hash, "0" * 64)
    write_adapter(
        Adapter(read_adapter(Path("any.safetensors")).modules, metadata), "lies.safetensors"
    )
    refused("lies.safetensors", "does not match the recipe's own hash")


def test_what_cannot_be_cleaned_is_refused_before_anything_is_drawn(
    clean, tiny, tiny_folder, monkeypatch
) -> None:
    monkeypatch.setattr(trajectories, "_packed", no_drawing)
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
    assert (code, "changes nothing" in talk) == (1, True)
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
