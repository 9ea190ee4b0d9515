"""Pictures of any shape find a bucket; none is dropped, none is seen more often than another."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spf_lora.data.buckets import (
    Bucket,
    cropped_share,
    draw,
    enlargement,
    fit,
    make_buckets,
    nearest_bucket,
    schedule,
)
from spf_lora.errors import DataError

side = st.integers(1, 8000)


@pytest.mark.parametrize("resolution", [256, 512, 640, 768, 1000])
def test_buckets_are_multiples_of_64_within_the_area_and_come_in_both_directions(
    resolution: int,
) -> None:
    buckets = make_buckets(resolution)
    assert all(b.width % 64 == b.height % 64 == 0 for b in buckets)
    assert all(b.width * b.height <= resolution**2 for b in buckets)
    assert {Bucket(b.height, b.width) for b in buckets} == set(buckets)
    assert any(b.width == b.height for b in buckets)


def test_sd15_has_the_square_and_the_usual_portrait_shapes() -> None:
    assert {(512, 512), (448, 576), (384, 640)} <= set(make_buckets(512))


def test_a_base_too_small_for_shapes_has_the_square_alone() -> None:
    assert make_buckets(64, step=32) == [(64, 64)]


def test_a_resolution_below_one_step_is_refused() -> None:
    with pytest.raises(DataError, match=r"resolution of 32 px is too small: .* multiples of 64"):
        make_buckets(32)


@given(side, side)
def test_every_picture_has_a_bucket_and_none_keeps_more_of_it(width: int, height: int) -> None:
    buckets = make_buckets(512)
    chosen = nearest_bucket((width, height), buckets)
    best = min(cropped_share((width, height), b) for b in buckets)
    assert cropped_share((width, height), chosen) == pytest.approx(best, abs=1e-4)
    assert 0 <= best < 1


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_picture_is_scaled_to_cover_its_bucket_without_being_stretched(w: int, h: int) -> None:
    bucket = nearest_bucket((w, h), make_buckets(32, step=8))
    assert fit(Image.new("RGB", (w, h)), bucket).size == bucket
    assert enlargement((w, h), bucket) * min(w, h) >= min(bucket) * (1 - 1e-9)


def test_what_is_kept_is_the_middle() -> None:
    stripes = np.zeros((64, 192, 3), np.uint8)
    stripes[:, 64:128] = 255
    kept = fit(Image.fromarray(stripes), Bucket(64, 64))
    assert kept.getextrema() == ((255, 255),) * 3


def test_a_picture_that_fits_keeps_every_pixel() -> None:
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    assert fit(noise, Bucket(64, 64)).tobytes() == noise.tobytes()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 300))
def test_after_any_step_each_bucket_has_had_its_share(counts: list[int], steps: int) -> None:
    buckets, turns = schedule(counts, steps)
    given_before: Counter[int] = Counter()
    for step, (bucket, turn) in enumerate(zip(buckets.tolist(), turns.tolist(), strict=True)):
        assert turn == given_before[bucket]
        given_before[bucket] += 1
        for other, count in enumerate(counts):
            due = count / sum(counts) * (step + 1)
            assert abs(given_before[other] - due) < len(counts)


def test_a_longer_run_begins_as_a_shorter_one_does() -> None:
    short, long = schedule([3, 5, 1], 20), schedule([3, 5, 1], 90)
    assert all((a == b[:20]).all() for a, b in zip(short, long, strict=True))


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 5))
def test_every_picture_of_a_bucket_comes_once_before_any_comes_twice(
    count: int, size: int, seed: int
) -> None:
    members = list(range(100, 100 + count))
    seen = [
        row
        for turn in range(2 * count)
        for row in draw(members, turn=turn, batch_size=size, seed=seed)
    ]
    assert set(Counter(seen).values()) == {2 * size}
    assert all(set(seen[at : at + count]) == set(members) for at in range(0, len(seen), count))


def test_batches_follow_from_the_seed() -> None:
    members = list(range(20))
    one, same, other = (draw(members, turn=3, batch_size=8, seed=s) for s in (0, 0, 1))
    assert one == same != other
