"""What a file is taught: pairs of pictures step by step, kept on disk and found again."""

import shutil
from dataclasses import replace

import pytest
import torch
from tiny_base import noisy_adapter

from spf_lora.adapters.module import Adapter
from spf_lora.base.load import load_base
from spf_lora.base.texts import encode
from spf_lora.data import cache as caching
from spf_lora.data.cache import TensorCache
from spf_lora.draw import trajectories
from spf_lora.draw.trajectories import Drawing, Given, Pair, draw_trajectories, megabytes
from spf_lora.draw.weights import attached
from spf_lora.errors import OutputError
from spf_lora.method import control_map

PAIRS = [Pair("a man", "a man, a hat", 1), Pair("a woman", "a woman, a hat", 2)]
HOW = Drawing(3, 3.0, (8, 8))
ONE = replace(HOW, steps=1)
# half a number has 11 bits: 1 in 2048 of it is lost, and predictions are below 8
HALF = {"atol": 4e-3, "rtol": 1e-3}


@pytest.fixture(scope="module")
def hat(tiny_folder):
    return noisy_adapter(tiny_folder)


@pytest.fixture
def draw(tiny, hat, tmp_path):
    """Draws pairs and tells how often the U-Net was asked."""

    def run(pairs=PAIRS, how=HOW, *, base=tiny, adapter=hat, below="", folder="cache"):
        asked = []
        hook = base.unet.register_forward_pre_hook(lambda *_: asked.append(True))
        try:
            found = draw_trajectories(
                base, adapter, pairs, how, cache=TensorCache(tmp_path / folder), below=below
            )
        finally:
            hook.remove()
        return found, len(asked)

    return run


def left_half(answers, *, area_cap):
    """A control map of the left half; smoothed and doubled it is 1 up to column 3, 0 from 5."""
    places = torch.zeros_like(answers)
    places[..., :4] = 1
    return places


def left_half_of(answers, _):
    """Where given pictures differ: the left half."""
    return (torch.arange(answers.shape[-1]) < 4).float().expand_as(answers[:, :1])


def drawn_into(folder, tiny_folder, hat, how):
    base = load_base(str(tiny_folder), device=torch.device("cpu"))
    return draw_trajectories(base, hat, PAIRS, how, cache=TensorCache(folder))


@pytest.fixture(scope="module")
def in_half(tiny_folder, hat, tmp_path_factory):
    """Pairs whose local pictures differ in the left half; every step of both."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(control_map, "control_map", left_half)
        found = drawn_into(tmp_path_factory.mktemp("half"), tiny_folder, hat, HOW)
    return found, [found.lessons([0, 1], [step] * 2) for step in range(HOW.steps)]


def eps(base, noisy, t, texts):
    with torch.no_grad():
        return base.unet(noisy, t, encode(base, texts), return_dict=False)[0]


def guided(without, asking):
    return without + HOW.guidance * (asking - without)


def test_the_guided_prediction_comes_to_the_local_pictures_next_step(tiny, in_half):
    found, steps = in_half
    tiny.scheduler.set_timesteps(HOW.steps)
    for lesson, after, t in zip(steps, steps[1:], found.times, strict=False):
        step = tiny.scheduler.step(lesson.guided, t, lesson.noisy).prev_sample
        # a third of all steps at once multiplies what half numbers lose by up to 5
        for where in (slice(0, 4), slice(5, 8)):
            torch.testing.assert_close(
                step[..., where], after.noisy[..., where], atol=5 * HALF["atol"], rtol=5e-3
            )


def test_inside_the_map_it_is_the_adapters_prediction_and_outside_the_bases_own(tiny, hat, in_half):
    found, steps = in_half
    own, asking = (
        [getattr(pair, name) for pair in PAIRS] for name in ("base_prompt", "full_prompt")
    )
    for lesson, t in zip(steps, found.times, strict=True):
        with attached(tiny.unet, [(hat, 1.0)]):
            asked = eps(tiny, lesson.noisy, t, asking)
        local_eps = guided(eps(tiny, lesson.noisy, t, ["", ""]), asked)
        base_eps = guided(
            eps(tiny, lesson.base_noisy, t, ["", ""]), eps(tiny, lesson.base_noisy, t, own)
        )
        for where, theirs in ((slice(0, 4), local_eps), (slice(5, 8), base_eps)):
            torch.testing.assert_close(
                lesson.guided[..., where], theirs[..., where], atol=HOW.guidance * 2e-2, rtol=1e-2
            )


def test_of_given_pictures_the_noise_is_taught_where_they_differ_and_the_base_elsewhere(
    tiny, draw, monkeypatch
):
    own = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    local = own + 3 * (torch.arange(8) < 4)  # the left half differs
    monkeypatch.setattr(trajectories, "region", left_half_of)
    found, _ = draw([Pair("a man", "a man, a hat", 1)], adapter=Given(own, local, 1))
    read, t = found.lessons([0], [1]), found.times[1]
    a = tiny.scheduler.alphas_cumprod[t]
    with torch.no_grad():
        asked = tiny.unet(read.noisy, t, encode(tiny, ["a man"]), return_dict=False)[0]
    taught = read.empty + (read.guided - read.empty) / found.guidance
    noise = (read.noisy - a.sqrt() * local) / (1 - a).sqrt()
    torch.testing.assert_close(taught[..., :4], noise[..., :4], **HALF)
    torch.testing.assert_close(taught[..., 4:], asked[..., 4:], **HALF)


def test_what_the_frozen_base_predicts_beside_is_kept_too(tiny, in_half):
    found, steps = in_half
    for lesson, t in zip(steps, found.times, strict=True):
        empty, base_empty = (
            eps(tiny, noisy, t, ["", ""]) for noisy in (lesson.noisy, lesson.base_noisy)
        )
        # the latents were rounded to half numbers too, and the model makes more of it
        torch.testing.assert_close(lesson.empty, empty, atol=2e-2, rtol=1e-2)
        torch.testing.assert_close(lesson.base_empty, base_empty, atol=2e-2, rtol=1e-2)


def test_both_pictures_of_a_pair_begin_with_one_noise_and_part_inside_the_map_alone(in_half):
    found, steps = in_half
    assert torch.equal(steps[0].noisy, steps[0].base_noisy)
    for lesson in steps[1:]:
        assert torch.equal(lesson.noisy[..., 5:], lesson.base_noisy[..., 5:])
        assert not torch.equal(lesson.noisy[..., :4], lesson.base_noisy[..., :4])
    for one in found.maps:
        assert one[0, 0].tolist() == pytest.approx([1, 1, 1, 1, 2 / 3, 0, 0, 0], abs=1e-3)
    assert found.times.tolist() == [667, 334, 1]
    own, made = found.pictures([1, 0])
    assert torch.equal(own[..., 5:], made[..., 5:])
    assert not torch.equal(own[..., :4], made[..., :4])
    last = found.lessons([1, 0], [HOW.steps - 1] * 2)
    # the last step is at t = 1, where a picture is all but done
    torch.testing.assert_close(made, last.noisy, atol=0.7, rtol=0)
    torch.testing.assert_close(own, last.base_noisy, atol=0.3, rtol=0)
    assert (found.changes() > 0).all()


def test_a_pair_whose_prompts_are_the_same_has_no_map_and_no_change(draw):
    found, _ = draw([Pair("a man", "a man", 1), *PAIRS])
    assert not found.maps[0].any()
    assert found.changes()[0] == 0
    assert (found.changes()[1:] > 0).all()


def test_an_attribute_of_the_whole_picture_keeps_the_layout_and_has_a_map_of_everything(draw):
    found, _ = draw(how=replace(HOW, late=0.5))
    lessons = [found.lessons([0, 1], [step] * 2) for step in range(HOW.steps)]
    assert all(bool((one == 1).all()) for one in found.maps)
    assert torch.equal(lessons[1].noisy, lessons[1].base_noisy), "before half of the time steps"
    assert not torch.equal(lessons[2].noisy, lessons[2].base_noisy)
    torch.testing.assert_close(lessons[1].empty, lessons[1].base_empty, **HALF)


def test_pairs_come_in_chunks_and_in_order(draw, monkeypatch):
    three = [*PAIRS, Pair("a child", "a child, a hat", 3)]
    order, steps = [2, 0, 1, 0], [0, 0, 1, 1]
    how = replace(HOW, steps=2)
    whole = draw(three, how, folder="whole")[0].lessons(order, steps)
    monkeypatch.setattr(trajectories, "CHUNK", 2)
    found, _ = draw(three, how, folder="parts")
    assert len({file for file, _ in found.places}) == 2
    for one, other in zip(whole, found.lessons(order, steps), strict=True):
        torch.testing.assert_close(one, other, **HALF)


def test_pairs_are_chosen_and_put_together_in_any_order(draw):
    found, _ = draw()
    stronger, _ = draw(how=replace(HOW, strength=2.0))
    both = stronger.among([1]).with_(found.among([1, 0]))
    assert both.pairs == (PAIRS[1], PAIRS[1], PAIRS[0])
    assert both.places == (stronger.places[1], found.places[1], found.places[0])
    assert torch.equal(both.maps[2], found.maps[0])
    mine, theirs = both.lessons([2, 0], [1, 2]).noisy, found.lessons([0, 1], [1, 2]).noisy
    assert torch.equal(mine[0], theirs[0])
    assert not torch.equal(mine[1], theirs[1]), "another strength"


def test_the_same_pairs_are_found_again_and_the_unet_is_not_asked(draw):
    first, asked = draw()
    again, none = draw()
    assert (asked > 0, none) == (True, 0)
    both = (known.lessons([1, 0], [0, 2]) for known in (first, again))
    assert all(torch.equal(one, other) for one, other in zip(*both, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first.maps, again.maps, strict=True))


def weaker(adapter):
    """Return an adapter with other numbers under the same names."""
    modules = {name: replace(one, up=0.5 * one.up) for name, one in adapter.modules.items()}
    return Adapter(modules, {})


@pytest.fixture(scope="module")
def one_step(tiny_folder, hat, tmp_path_factory):
    """A cache that holds the pairs of one step."""
    folder = tmp_path_factory.mktemp("one")
    drawn_into(folder, tiny_folder, hat, ONE)
    return folder


@pytest.mark.parametrize(
    "other",
    [
        lambda tiny, hat: {"base": replace(tiny, id="another")},
        lambda tiny, hat: {"adapter": weaker(hat)},
        lambda tiny, hat: {"pairs": [PAIRS[0], PAIRS[1]._replace(full_prompt="a woman, hats")]},
        lambda tiny, hat: {"pairs": [PAIRS[0], PAIRS[1]._replace(base_prompt="a person")]},
        lambda tiny, hat: {"pairs": [PAIRS[0], PAIRS[1]._replace(seed=3)]},
        lambda tiny, hat: {"how": replace(ONE, steps=2)},
        lambda tiny, hat: {"how": replace(ONE, guidance=2.0)},
        lambda tiny, hat: {"how": replace(ONE, size=(8, 16))},
        lambda tiny, hat: {"how": replace(ONE, late=0.5)},
        lambda tiny, hat: {"how": replace(ONE, strength=2.0)},
        lambda tiny, hat: {"below": "an adapter that is on"},
    ],
    ids=[
        "base",
        "adapter",
        "full prompt",
        "base prompt",
        "seed",
        "steps",
        "guidance",
        "size",
        "whole picture",
        "strength",
        "below",
    ],
)
def test_other_pairs_are_drawn_anew(draw, one_step, tiny, hat, tmp_path, other):
    shutil.copytree(one_step, tmp_path / "cache")
    assert draw(**{"how": ONE} | other(tiny, hat))[1] > 0
    assert draw(how=ONE)[1] == 0, "what was there is still there"


def test_what_the_adapters_metadata_says_draws_nothing_anew(draw, hat):
    draw()
    assert draw(adapter=Adapter(hat.modules, {"title": "x"}))[1] == 0


class Spied:
    """A safetensors file that tells what is read of it."""

    def __init__(self, file, seen):
        self.file, self.seen = file, seen

    def get_slice(self, name):
        whole, seen = self.file.get_slice(name), self.seen

        class Slice:
            get_shape = staticmethod(whole.get_shape)

            def __getitem__(self, where):
                seen.append(whole[where])
                return seen[-1]

        return Slice()


def test_only_the_steps_that_are_asked_for_are_read(draw):
    found, _ = draw()
    seen = []
    spied = replace(found, places=tuple((Spied(file, seen), row) for file, row in found.places))
    spied.lessons([1, 0, 1], [2, 0, 1])
    assert [tuple(one.shape) for one in seen] == [(1, 5 * 4, 8, 8)] * 3
    assert {one.dtype for one in seen} == {torch.float16}


def test_a_disk_that_fills_while_pairs_are_written_is_told_with_what_they_take(draw, monkeypatch):
    def full(path, data, **_):
        raise OutputError(f"{path} could not be written: No space left on device", hint="free some")

    monkeypatch.setattr(caching, "write_bytes", full)
    with pytest.raises(OutputError, match=r"cannot be kept: .*No space left on device") as caught:
        draw([Pair("a man", "a man, a hat", seed) for seed in range(100)], ONE)
    assert "they take 1 MB" in caught.value.hint
    assert "SPF_LORA_CACHE" in caught.value.hint


def test_what_pairs_take_is_told_before_they_are_drawn(draw, tmp_path):
    draw()
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    assert file.stat().st_size == pytest.approx(1e6 * megabytes(2, HOW), abs=300)  # the header
