from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_base import noisy_adapter

from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.module import Adapter
from spf_lora.base.texts import encode
from spf_lora.draw.act import acting, draw_latents
from spf_lora.draw.act import draw as draw_pictures
from spf_lora.draw.late import Late
from spf_lora.draw.local import Asking, sample_locally
from spf_lora.draw.prompts import Prompt, asking
from spf_lora.draw.sample import sample_latents
from spf_lora.draw.weights import attached
from spf_lora.method import control_map
from spf_lora.method.control_map import smooth
from spf_lora.recipe.schema import Attribute

SEEDS = [1, 2]
HOW = {"steps": 2, "guidance": 3.0}


def apiece(base, *texts):
    """Return states of texts that were read one by one: processors round batches otherwise."""
    return torch.cat([encode(base, [text]) for text in texts])


@pytest.fixture(scope="module")
def hat(tiny_folder):
    return noisy_adapter(tiny_folder)


@pytest.fixture
def draw(tiny, hat):
    """Draws two pictures; the second asks for `words`."""

    def run(words="a man, a hat", strength=1.0, **how):
        def acting():
            return attached(tiny.unet, [(hat, strength)])

        states = apiece(tiny, "a man", words)
        within = encode(tiny, ["a man"])
        return sample_locally(tiny, states, SEEDS, within=within, acting=acting, **{**HOW, **how})

    return run


@pytest.fixture
def base_picture(tiny):
    return sample_latents(tiny, apiece(tiny, "a man", "a man"), SEEDS, **HOW)


def region_is(monkeypatch, region):
    monkeypatch.setattr(control_map, "control_map", lambda answers, *, area_cap: region.to(answers))


def test_outside_of_the_map_the_picture_is_the_bases(draw, base_picture, monkeypatch):
    region = torch.zeros(2, 1, 8, 8)
    region[..., :4] = 1
    region_is(monkeypatch, region)
    found = draw()[1]
    assert torch.equal(found[..., 5:], base_picture[1][..., 5:])  # a place wider than the map
    assert (found != base_picture[1])[..., :5].all()


def test_a_map_is_found_and_is_not_everywhere(draw, base_picture):
    moved = (draw()[1] != base_picture[1]).any(dim=0).float().mean()
    assert 0 < moved < 1


def test_a_prompt_that_asks_for_nothing_is_the_bases_picture_bit_for_bit(draw, base_picture):
    assert torch.equal(draw()[0], base_picture[0])
    assert torch.equal(draw("a man"), base_picture)


def test_where_all_answers_the_picture_is_the_adapters(draw, tiny, hat, monkeypatch):
    region_is(monkeypatch, torch.ones(2, 1, 8, 8))
    with attached(tiny.unet, [(hat, 1.0)]):
        drawn = sample_latents(tiny, apiece(tiny, "a man", "a man, a hat"), SEEDS, **HOW)
    assert torch.equal(draw()[1], drawn[1])


def test_where_nothing_answers_the_picture_is_the_bases(draw, base_picture, monkeypatch):
    region_is(monkeypatch, torch.zeros(2, 1, 8, 8))
    assert torch.equal(draw(), base_picture)


@pytest.fixture
def answers(monkeypatch):
    """What maps are made of, (batch, 1, h, w) each."""
    seen = []

    def look(answers, *, area_cap):
        seen.append(answers)
        return torch.zeros_like(answers)

    monkeypatch.setattr(control_map, "control_map", look)
    return seen


def test_the_map_is_where_the_models_pictures_differ_along_both(draw, tiny, hat, answers):
    draw()
    full, base = encode(tiny, ["a man, a hat"]), encode(tiny, ["a man"])
    on = partial(attached, tiny.unet, [(hat, 1.0)])
    found = []
    for own, other, own_states, other_states in (
        (nullcontext, on, base, full),
        (on, nullcontext, full, base),
    ):
        steps = []

        def keep(step, kept=steps):
            kept.append(step)
            return step.latents

        with own():
            sample_latents(tiny, own_states, SEEDS[1:], after=keep, **HOW)
        differ = torch.zeros(1, 1, 8, 8)
        for one in steps:
            a = tiny.scheduler.alphas_cumprod[int(one.t)]
            with torch.no_grad(), other():
                eps = tiny.unet(one.noisy, one.t, other_states, return_dict=False)[0]
            pictures = [(one.noisy - (1 - a).sqrt() * e) / a.sqrt() for e in (eps, one.eps)]
            differ += smooth((pictures[0] - pictures[1]).abs().mean(dim=1, keepdim=True))
        found.append(differ / differ.mean())
    torch.testing.assert_close(answers[0][1:], sum(found), atol=1e-3, rtol=1e-3)


def test_steps_before_an_adapters_start_do_not_count(draw, tiny, answers):
    read = []
    hook = tiny.unet.register_forward_pre_hook(lambda _, a: read.append(int(a[1])))
    for start in (0.0, 0.5, 0.9):  # three steps: at 667, 334 and 1
        draw(steps=3, late=[Late(["a man", "a man"], start)])
    hook.remove()
    # three pictures, and along two of them the other model
    assert [read.count(t) for t in (667, 334, 1)] == [9 + 2, 9 + 4, 9 + 6]
    assert not torch.equal(answers[0], answers[1])


def test_of_several_attributes_each_has_its_own_map(tiny, hat, base_picture, monkeypatch):
    """The maps are the left column and the right one; both are drawn, the middle is not."""
    maps = [torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)]
    maps[0][..., 0] = maps[1][..., 7] = 1
    turn = iter(maps)
    monkeypatch.setattr(control_map, "control_map", lambda answers, *, area_cap: next(turn))
    acted = []

    def acting(words):
        acted.append(words)
        return attached(tiny.unet, [(hat, 1.0)])

    full, one, two = (
        encode(tiny, [f"a man, {words}"] * 2) for words in ("a hat, red", "a hat", "red")
    )
    each = [Asking(one, partial(acting, "one")), Asking(two, partial(acting, "two"))]
    within = apiece(tiny, "a man", "a man")
    found = sample_locally(
        tiny, full, SEEDS, within=within, acting=partial(acting, "both"), each=each, **HOW
    )
    moved = (found != base_picture).any(dim=0).any(dim=0).any(dim=0)
    assert moved.tolist() == [True, True, False, False, False, False, True, True]
    assert acted == ["one", "two", "both"]


def test_the_map_of_a_late_adapter_is_looked_for_from_its_start_on(tiny, hat, answers):
    """Beside an adapter that is at strength 0, the map is that of the adapter by itself."""
    alone = Prompt("a man, a hat", (("a man", 0.5),), "a man")
    beside = Prompt(
        "a man, a hat, red",
        (("a man, red", 0.5),),
        "a man",
        (("a man, a hat", 0.5), ("a man, red", 0.0)),
    )
    for prompt, rows in ((alone, [(hat, 1.0)]), (beside, [(hat, 1.0), (hat, 0.0)])):
        starts = [0.5, 0.0][: len(rows)]
        draw_latents(tiny, [prompt], [1], acting(rows, start_percent=starts, local=True), **HOW)
    torch.testing.assert_close(answers[1], answers[0])


def test_prompts_that_ask_for_other_adapters_are_drawn_in_one_go(tiny, hat):
    attributes = [Attribute(name=name, target_text=name) for name in ("a hat", "red")]
    texts = ["a man, a hat, red", "a man, red", "a man", "a man, a hat"]
    prompts = [asking(text, attributes, (0.5, 0.0), local=True) for text in texts]
    acts = acting([(hat, 1.0), (hat, 0.5)], start_percent=(0.5, 0.0), local=True)
    together = [one.tobytes() for one in draw_pictures(tiny, prompts, [1, 1, 2, 2], acts, **HOW)]
    apart = [
        draw_pictures(tiny, [prompt], [seed], acts, **HOW)[0].tobytes()
        for prompt, seed in zip(prompts, [1, 1, 2, 2], strict=True)
    ]
    assert together == apart


def test_adapters_act_while_they_draw_and_no_longer(tiny, hat, base_picture):
    entered = []

    def acting():
        entered.append(True)
        return nullcontext()

    states = apiece(tiny, "a man", "a man, a hat")
    within = apiece(tiny, "a man", "a man")
    sample_locally(tiny, states, SEEDS, within=within, acting=acting, **HOW)
    assert len(entered) == 2
    plain = sample_latents(tiny, apiece(tiny, "a man", "a man"), SEEDS, **HOW)
    assert torch.equal(plain, base_picture)


@pytest.fixture
def worn(hat, tiny, in_a_clone):
    """Writes hat.safetensors, which says its words, and bare.safetensors, which does not."""
    write_adapter(hat, Path("bare.safetensors"))
    card = Card("hat", "hat", "a hat", tiny.id)
    said = file_metadata(card, rank=2, alpha=2.0, title="hat")
    write_adapter(Adapter(hat.modules, said), Path("adapters/hat.safetensors"))


def test_generate_leaves_the_base_picture_but_where_the_adapter_answers(cli, tiny_folder, worn):
    def picture(prompt, *words):
        code, _, talk = cli(
            "generate",
            prompt,
            "--base",
            tiny_folder,
            "--count",
            "1",
            "--steps",
            "2",
            "--out",
            "x.png",
            "--force",
            *words,
        )
        assert code == 0, talk
        said.append(talk)
        return torch.from_numpy(np.array(Image.open("x.png")))

    on, said = ("--adapter", "hat:2"), []
    base, added = picture("a man"), picture("a man, a hat", *on)
    found = picture("a man, a hat", *on, "--local")
    assert "asks for no adapter" not in said[-1]
    assert torch.equal(picture("a man", *on, "--local"), base)
    assert "asks for no adapter" in said[-1]
    lines = "a man\nin  the rain"
    assert torch.equal(picture(lines, *on, "--local"), picture(lines))
    assert not torch.equal(found, base)
    assert not torch.equal(found, added)
    distance = (found.float() - base.float()).abs().mean()
    assert distance < (added.float() - base.float()).abs().mean()
    exact = picture("a man, a hat", *on, "--local", "--exact")
    assert len({one.numpy().tobytes() for one in (base, found, exact)}) == 3
    late = picture("a man, a hat", *on, "--local", "--start-percent", "0.5")
    assert not torch.equal(late, found)

    def above(prompt, *words):
        sheet = picture(prompt, *on, "--compare", *words)
        return sheet[: len(sheet) // 2]

    assert torch.equal(above("a man, a hat", "--local"), above("a man", "--local"))
    assert not torch.equal(above("a man, a hat"), above("a man"))


def test_generate_looks_for_each_attribute_by_itself(cli, tiny_folder, worn, hat, tiny, answers):
    said = file_metadata(Card("beard", "beard", "a beard", tiny.id), rank=2, alpha=2.0, title="x")
    write_adapter(Adapter(hat.modules, said), Path("adapters/beard.safetensors"))
    words = (
        "--base",
        tiny_folder,
        "--count",
        "1",
        "--steps",
        "1",
        "--adapter",
        "hat",
        "--adapter",
        "beard",
        "--local",
        "--force",
    )
    found = []
    for prompt in ("x, a hat, a beard", "x, a hat", "x"):
        assert cli("generate", prompt, *words)[0] == 0
        found.append(len(answers))
    assert found == [2, 3, 4]
    torch.testing.assert_close(answers[0], answers[2])  # of "x, a hat", where both asked and alone


def test_an_adapter_must_say_its_words(cli, tiny_folder, worn):
    code, _, talk = cli(
        "generate", "x", "--base", tiny_folder, "--adapter", "bare.safetensors", "--local"
    )
    assert code == 1
    assert "does not say which words ask for it" in " ".join(talk.split())
    assert not Path("out/grid.png").exists()


def test_what_changes_the_whole_picture_has_no_place(cli, tiny, tiny_folder, hat, in_a_clone):
    card = Card("old", "an old person", "old", tiny.id, {"attribute": {"scope": "global"}})
    said = file_metadata(card, rank=2, alpha=2.0, title="old")
    write_adapter(Adapter(hat.modules, said), Path("adapters/old.safetensors"))
    words = (
        "generate",
        "x, an old person",
        "--base",
        tiny_folder,
        "--count",
        "1",
        "--steps",
        "1",
        "--adapter",
        "old",
    )
    code, _, talk = cli(*words, "--local")
    assert code == 1
    assert "old changes the whole picture" in " ".join(talk.split())
    assert not Path("out/grid.png").exists()
    assert cli(*words)[0] == 0
