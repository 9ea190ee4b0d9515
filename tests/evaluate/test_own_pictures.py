"""A judge learns an attribute from the user's pictures, and says how far it can be trusted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spf_lora.data.worlds.portraits import partial_caption, render, unbiased
from spf_lora.draw.act import acting
from spf_lora.draw.sample import Sampling
from spf_lora.errors import DataError, MeasureError
from spf_lora.evaluate import own_pictures
from spf_lora.evaluate.judges.fitted import FittedJudge, fit_judge, picture_key
from spf_lora.evaluate.judges.judge import flips
from spf_lora.evaluate.judges.logistic import fit, unseen_beliefs
from spf_lora.evaluate.judges.world import beside_judge
from spf_lora.evaluate.own_pictures import (
    caption_cases,
    learn_judge,
    learn_regions,
    read_own_pictures,
    what_rests_on_what,
)
from spf_lora.recipe.schema import Attribute

HAT = Attribute(name="cap", target_text="a hat", aliases=("hat",))
HASTY = Sampling(steps=1)


def silent(done: int, total: int) -> None:
    assert 0 <= done <= total


def portraits(folder: Path, *, hats: int, bare: int) -> Path:
    """Write portraits with captions, the first ones with hats."""
    import random

    rng = random.Random(3)
    folder.mkdir()
    for index in range(hats + bare):
        person, worn = unbiased(rng), ("hat",) if index < hats else ()
        render(person, worn).save(folder / f"{index:02}.png")
        said = partial_caption(person, worn, rng, coverage=0.5)
        (folder / f"{index:02}.txt").write_text(said)
    return folder


def looks(count: int, seed: int, *, red: bool = False) -> torch.Tensor:
    """Return noise, some of it with a red corner."""
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.rand(count, 3, 8, 8, generator=rng) * 2 - 1
    if red:
        pixels[:, 0, :3, :3] = 1
    return pixels


def flat(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.flatten(1)


def test_two_kinds_are_told_apart_and_chance_is_not_taken_for_a_difference() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(60, 20)), np.arange(60) < 30
    assert 0.3 < ((unseen_beliefs(rows, labels) > 0.5) == labels).mean() < 0.7
    rows[:30, 4] += 6
    assert ((unseen_beliefs(rows, labels) > 0.5) == labels).mean() > 0.9
    assert fit(rows, labels).belief(rows[:1])[0] > 0.5


def test_a_judge_that_sees_nothing_is_refused_with_its_accuracy() -> None:
    with pytest.raises(MeasureError, match=r"tells only \d+% of pictures rightly"):
        fit_judge(flat, looks(20, 1), looks(0, 2), looks(20, 3))


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(MeasureError, match="3 pictures with it cannot teach a judge"):
        fit_judge(flat, looks(3, 1, red=True), looks(0, 2), looks(20, 3))


def test_a_judge_believes_what_it_learned_and_tells_how_it_does_on_own_pictures() -> None:
    fitted = fit_judge(flat, looks(30, 1, red=True), looks(10, 2), looks(30, 3))
    assert fitted.accuracy >= 0.9
    assert fitted.own_without is not None
    judge = FittedJudge("own", flat, fitted)
    assert judge.belief(looks(5, 9, red=True)).min() > 0.5 > judge.belief(looks(5, 9)).max()
    assert judge.positives > 0.5


def test_what_moved_is_told_without_words_where_nobody_names_anything() -> None:
    fitted = fit_judge(flat, looks(30, 1, red=True), looks(0, 2), looks(30, 3))
    judge = FittedJudge("own", flat, fitted)
    before = looks(2, 5)
    after, outside = before.clone(), torch.ones(2, 1, 8, 8)
    outside[:, :, :4, :4] = 0  # shapes are seen by gradients, which reach one pixel further
    after[:, 0, :3, :3] = 1
    inside = judge.distances(after, before, outside, asked=True)
    assert set(inside) == {"region", "identity", "layout", "colour"}
    assert all(float(row.max()) < 1e-5 for row in inside.values())
    after[0, :, 6, 6] = 1
    assert float(judge.distances(after, before, outside, asked=True)["region"][0]) > 0
    assert flips(judge, after, before, asked=True).isnan().all()


def test_a_picture_finds_its_region_and_another_has_the_one_for_all() -> None:
    fitted = fit_judge(flat, looks(30, 1, red=True), looks(0, 2), looks(30, 3))
    own, other = (Image.effect_noise((8, 8), n).convert("RGB") for n in (40, 80))
    white, grey = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "grey")
    judge = FittedJudge("own", flat, fitted, {picture_key(own): white}, grey)
    pixels = [
        torch.from_numpy(np.array(p)).permute(2, 0, 1).float() / 127.5 - 1 for p in (own, other)
    ]
    first, second = judge.truths(torch.stack(pixels))
    assert (first.region, second.region) == (white, grey)
    assert first.right is None


def test_captions_tell_which_pictures_have_it(tmp_path: Path) -> None:
    own = read_own_pictures(portraits(tmp_path / "own", hats=12, bare=3), HAT)
    assert (len(own.has_it), len(own.without)) == (12, 3)
    assert all("a hat" in caption for caption in own.captions)


def test_a_folder_with_too_few_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 2 pictures whose captions say 'a hat'"):
        read_own_pictures(portraits(tmp_path / "own", hats=2, bare=0), HAT)


def test_prompts_are_the_captions_without_it(tmp_path: Path, tiny) -> None:
    own = read_own_pictures(portraits(tmp_path / "own", hats=12, bare=0), HAT)
    cases = caption_cases(own, HAT, tiny, prompts=5, seeds=2)
    assert len(cases) == 5
    assert all("hat" not in case.base_prompt for case in cases)
    assert all(case.prompt == f"{case.base_prompt}, a hat" for case in cases)
    assert len(cases[0].seeds) == 2


def test_a_random_autoencoder_hides_what_is_to_be_seen(tmp_path: Path, tiny) -> None:
    own = read_own_pictures(portraits(tmp_path / "own", hats=20, bare=12), HAT)
    embed = beside_judge(HAT.name, HAT.replaces).embed
    with pytest.raises(MeasureError, match="are needed to rely on it"):
        learn_judge(own, HAT, tiny, embed, gallery=tmp_path, sampling=HASTY, tell=silent)


def test_the_probe_learns_hats_from_pictures_and_says_what_rests_on_what(
    tmp_path: Path, embedded, monkeypatch
) -> None:
    monkeypatch.setattr(own_pictures, "OWN", 16)
    own = read_own_pictures(portraits(tmp_path / "own", hats=16, bare=8), HAT)
    world = beside_judge(HAT.name, HAT.replaces)
    fitted = learn_judge(
        own, HAT, embedded, world.embed, gallery=tmp_path, sampling=HASTY, tell=silent
    )
    assert fitted.accuracy >= 0.9
    said = what_rests_on_what(own, HAT, fitted, region="a mask", prompts="a file")
    assert "16 of your pictures with it, 8 without it" in said[0]
    assert said[1:3] == ["where it may act: a mask", "prompts: a file"]


def test_regions_are_kept_and_found_again(tmp_path: Path, tiny, monkeypatch) -> None:
    own = read_own_pictures(portraits(tmp_path / "own", hats=12, bare=0), HAT)
    cases = caption_cases(own, HAT, tiny, prompts=2, seeds=1)
    first = learn_regions(cases, tiny, acting(None), gallery=tmp_path, sampling=HASTY, tell=silent)
    assert len(first) == 2
    assert {picture.size for picture in first.values()} == {(tiny.resolution, tiny.resolution)}
    monkeypatch.setattr(own_pictures, "_maps", lambda *_: pytest.fail("drawn again"))
    again = learn_regions(cases, tiny, acting(None), gallery=tmp_path, sampling=HASTY, tell=silent)
    assert {key: one.tobytes() for key, one in again.items()} == {
        key: one.tobytes() for key, one in first.items()
    }
