"""Adapters that begin at different time steps, each with its words."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_base import noisy_adapter

from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.module import Adapter, Module
from spf_lora.base.texts import encode
from spf_lora.draw import act
from spf_lora.draw import sample as sampling
from spf_lora.draw.act import acting, draw
from spf_lora.draw.late import stages
from spf_lora.draw.prompts import Prompt
from spf_lora.draw.sample import Sampling
from spf_lora.draw.weights import attached
from spf_lora.errors import PromptError
from spf_lora.evaluate import incremental
from spf_lora.evaluate.draw_missing import Wanted, painter
from spf_lora.evaluate.gallery import read_picture
from spf_lora.evaluate.incremental import Learned, StackProtocol
from spf_lora.evaluate.run import sampler_of
from spf_lora.registry import stack_edit

KEYS = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
VALUES = KEYS.replace("to_k", "to_v")


def fits(seed, *names, card=None):
    """Random factors for some layers of the tiny base."""
    rng = np.random.default_rng(seed)
    modules = {
        name: Module(
            name, rng.normal(size=(2, 24)).astype("f4"), rng.normal(size=(16, 2)).astype("f4"), 2.0
        )
        for name in names
    }
    return Adapter(modules, file_metadata(card, rank=2, alpha=2.0, title="x") if card else {})


def eps(unet, t):
    torch.manual_seed(1)
    noisy, states = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 24)
    with torch.no_grad():
        return unet(noisy, t, states).sample


def test_until_each_start_nothing_is_asked_that_has_not_begun():
    def without(places):
        return f"without {places}"

    assert stages([0.3, 0.0, 0.1, 0.3], without) == (
        ("without [0, 2, 3]", 0.1),
        ("without [0, 3]", 0.3),
    )
    assert stages([0.0, 0.0], without) == ()


def test_each_adapter_begins_at_its_own_start_bit_for_bit(tiny):
    one, two = fits(0, KEYS), fits(1, KEYS, VALUES)
    moments = (700, 600, 300)
    plain = [eps(tiny.unet, t) for t in moments]
    with attached(tiny.unet, [(one, 1.0)]):
        first = eps(tiny.unet, 600)
    with attached(tiny.unet, [(one, 1.0), (two, 0.5)]):
        both = eps(tiny.unet, 300)
    rows, starts = [(two, 0.5), (one, 1.0)], (0.6, 0.35)
    with attached(tiny.unet, rows, start_percent=starts):
        for _ in range(2):  # a sampler begins anew with each batch
            found = [eps(tiny.unet, t) for t in moments]
            for seen, wanted in zip(found, (plain[0], first, both), strict=True):
                assert torch.equal(seen, wanted)
    assert not torch.equal(first, plain[1])
    assert all(torch.equal(eps(tiny.unet, t), p) for t, p in zip(moments, plain, strict=True))


def test_each_adapter_needs_its_start(tiny):
    with (
        pytest.raises(ValueError, match="shorter"),
        attached(tiny.unet, [(fits(0, KEYS), 1.0), (fits(1, KEYS), 1.0)], start_percent=(0.1,)),
    ):
        pass


def test_prompts_follow_each_other(tiny, monkeypatch):
    read = []
    states = {length: torch.full((1, 77, 24), float(length)) for length in range(5)}
    monkeypatch.setattr(sampling, "encode", lambda base, texts: states[len(texts[0])])
    hook = tiny.unet.register_forward_pre_hook(lambda _, a: read.append(a[2][1, 0, 0].item()))
    prompt = Prompt("xxxx", (("x", 0.2), ("xx", 0.5)))
    monkeypatch.setattr(act, "encode", sampling.encode)
    draw(tiny, [prompt], [1], steps=5)
    hook.remove()
    assert read == [1, 2, 4, 4, 4]  # at 801, 601, 401, 201 and 1: 0.2 is over at 800, 0.5 at 500


def test_a_painter_keeps_starts_apart(tiny, tmp_path):
    parts = [(fits(0, KEYS), 1.0), (fits(1, VALUES), 1.0)]
    brushes = {
        starts: painter(
            tiny,
            acting(parts, start_percent=starts),
            folder=tmp_path,
            sampling=Sampling(steps=2),
        )
        for starts in (0.0, (0.0, 0.6), (0.6, 0.0))
    }
    asked = Wanted("x, y", 1, 1.0, (("x", 0.6),))
    found = set()
    for brush in brushes.values():
        assert brush.draw([asked]) == 1
        assert brush.draw([asked]) == 0
        found.add(read_picture(tmp_path, brush.key(asked)).tobytes())
    assert len(found) == 3


def cells_of(base, parts, folder):
    protocol = StackProtocol(prompts=2, seeds=1)
    return incremental._Cells(base, parts, protocol, folder, Sampling(steps=2), str)


def test_a_stack_is_measured_with_each_adapter_as_late_as_it_is(tiny, tmp_path, monkeypatch):
    parts = [
        Learned("beard", "beard", fits(0, KEYS), 0.5, 0.1),
        Learned("hat", "hat", fits(1, KEYS)),
    ]
    cells = cells_of(tiny, parts, tmp_path)
    asked = []
    monkeypatch.setattr(incremental, "evaluate", lambda _, *words, **how: asked.append(words))
    cells.get(frozenset([0, 1]), 1)
    cells.get(frozenset([0]), 0)
    cells.get(frozenset([1]), 1)
    (both, first), (late, second), (alone, third) = asked
    assert (len(both.adapters), both.starts, first.words_percent) == (2, (0.1, 0.0), 0.0)
    assert (late.starts, second.words_percent) == ((0.1,), 0.1)
    assert (len(alone.adapters), alone.starts, third.words_percent) == (1, (0.0,), 0.0)
    assert sampler_of(cells.sampling, both)["start_percent"] == "0.1 0"


def test_asked_together_words_come_one_after_another(tiny, tmp_path, monkeypatch):
    parts = [
        Learned("beard", "beard", fits(0, KEYS), 1.0, 0.1),
        Learned("glasses", "glasses", fits(1, KEYS), 1.0, 0.3),
    ]
    cells = cells_of(tiny, parts, tmp_path)
    drawn = []
    monkeypatch.setattr(incremental.Painter, "draw", lambda self, wanted: drawn.extend(wanted))
    monkeypatch.setattr(incremental, "_mean", lambda draws, number: 0.0)
    monkeypatch.setattr(incremental, "_beliefs", lambda cells, keys, asked: 0.0)

    class Nothing:
        def at(self, strength):
            return []

    incremental._together(cells, [Nothing(), Nothing()], (0, 1))
    for one, case in zip(drawn, cells.cases[0], strict=True):
        assert one.before == ((case.base_prompt, 0.1), (f"{case.base_prompt}, a beard", 0.3))
        assert one.prompt == f"{case.base_prompt}, a beard, glasses"


@pytest.fixture
def shelf(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("shelf")
    folder.mkdir()
    monkeypatch.setenv("SPF_LORA_ADAPTERS", str(folder))
    for seed, name in enumerate(("beard", "hat")):
        card = Card(name, f"a {name}", f"a {name}", tiny.id, metrics={"start_percent": 0.6})
        write_adapter(fits(seed, KEYS, card=card), folder / f"{name}.safetensors")
    stack_edit.create("portrait", [("beard", 1.0), ("hat", 1.0)], folder)


def test_generate_begins_when_it_is_told_whatever_a_card_says(cli, tiny_folder, shelf):
    words = (
        "generate",
        "a person, a beard, a hat",
        "--base",
        tiny_folder,
        "--count",
        "1",
        "--steps",
        "2",
        "--out",
    )
    each, late = ("--adapter", "beard", "--adapter", "hat"), ("--start-percent", "0.6")
    found = {}
    for name, more in (
        ("now", each),
        ("stack", ("--stack", "portrait")),
        ("late", (*each, *late)),
        ("stack late", ("--stack", "portrait", *late)),
    ):
        assert cli(*words, f"{name}.png", *more)[0] == 0
        found[name] = Image.open(f"{name}.png").tobytes()
    assert found["now"] == found["stack"] != found["late"] == found["stack late"]


def test_each_adapter_of_a_picture_may_have_a_start_of_its_own(cli, shelf, tiny_folder):
    words = ("generate", "a man, a beard, a hat", "--base", tiny_folder, "--count", "1")
    words += ("--steps", "4", "--adapter", "beard", "--adapter", "hat", "--out")
    found = {}
    for start in ("0,0", "0", "0,0.6", "0.6,0", "0.6"):
        assert cli(*words, f"{start}.png", "--start-percent", start)[0] == 0
        found[start] = Image.open(f"{start}.png").tobytes()
    assert found["0,0"] == found["0"]
    assert len(set(found.values())) == 4
    nowhere = ("generate", "x", "--base", "nowhere")
    for command in (
        (*nowhere, "--adapter", "beard", "--adapter", "hat"),
        ("stack", "report", "portrait", "--base", "nowhere"),
    ):
        code, _, talk = cli(*command, "--start-percent", "0,0.1,0.2")
        assert code == 1
        assert "is for 3 adapters, and 2 are named" in " ".join(talk.split())
    code, _, talk = cli(*nowhere, "--grid", "adapter=beard,hat", "--start-percent", "soon")
    assert code == 1
    assert "--start-percent soon is no share" in " ".join(talk.split())


@pytest.mark.parametrize("wrong", ["1", "-0.1", "nan", "soon", "card"])
def test_what_is_no_share_of_the_steps_is_refused_before_a_base_is_loaded(cli, shelf, wrong):
    late = ("--start-percent", wrong, "--base", "nowhere")
    for command in (
        ("generate", "x", "--adapter", "hat"),
        ("evaluate", "hat"),
        ("stack", "report", "portrait"),
    ):
        code, _, talk = cli(*command, *late)
        assert code == 1
        assert f"--start-percent {wrong} is no share of the steps" in " ".join(talk.split())
        assert "hint: write a number from 0 to 0.99" in talk


def test_adapters_that_act_on_their_words_alone_begin_together():
    parts = [(fits(0, KEYS), 1.0), (fits(1, KEYS), 1.0)]
    with pytest.raises(PromptError, match="begin at different steps"):
        acting(parts, start_percent=(0.0, 0.6), words=("a beard", "a hat"))


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_the_frozen_model_answers_while_an_adapter_is_on(tiny, tiny_folder, start):
    latents, states = torch.randn(1, 4, 8, 8), encode(tiny, ["a man"])

    def eps(t):
        with torch.no_grad():
            return tiny.unet(latents, torch.tensor(t), states, return_dict=False)[0]

    before = {t: eps(t) for t in (800, 200)}
    on = attached(tiny.unet, [(noisy_adapter(tiny_folder), 1.0)], start_percent=start)
    with on as frozen:
        moved = {t: eps(t) for t in before}
        assert torch.equal(moved[800], before[800]) == (start > 0)
        assert not torch.equal(moved[200], before[200])
        with frozen():
            assert all(torch.equal(eps(t), own) for t, own in before.items())
        assert all(torch.equal(eps(t), other) for t, other in moved.items())
    assert all(torch.equal(eps(t), own) for t, own in before.items())
