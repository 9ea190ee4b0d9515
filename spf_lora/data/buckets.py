"""Aspect-ratio buckets: pictures of one shape are trained together, and none is dropped.

A bucket's sides are multiples of what the base's autoencoder and U-Net halve (64 px for SD1.5) and
its area is at most `resolution` squared. Every picture goes into the bucket of the nearest ratio,
scaled to cover it and cropped around its centre. A bucket with few pictures still fills its
batches: its pictures come again, so every picture is seen as often as any other.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from spf_lora.errors import DataError

LONGEST_RATIO = 2.5  # longer pictures are cropped: a strip teaches no layout


class Bucket(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def make_buckets(resolution: int, *, step: int = 64) -> list[Bucket]:
    """Return the shapes there are, from tall to wide.

    Args:
        resolution: the square root of the largest area, in pixels.
        step: all sides are multiples of it.

    Raises:
        DataError: the resolution is smaller than one step.
    """
    if resolution < step:
        raise DataError(
            f"a resolution of {resolution} px is too small: sides are multiples of {step} px",
            hint=f"give at least {step}; the base's own is best",
        )
    square = resolution // step * step
    buckets = {Bucket(square, square)}
    for width in range(step, resolution**2 // step + 1, step):
        height = resolution**2 // width // step * step
        if height and max(width, height) <= LONGEST_RATIO * min(width, height):
            buckets |= {Bucket(width, height), Bucket(height, width)}
    return sorted(buckets, key=lambda b: (b.width / b.height, b))


def nearest_bucket(size: tuple[int, int], buckets: Sequence[Bucket]) -> Bucket:
    """Return the bucket that keeps most of a picture; of equals the one with more pixels."""
    return min(
        buckets, key=lambda b: (round(cropped_share(size, b), 4), -b.width * b.height, b.width)
    )


def cropped_share(size: tuple[int, int], bucket: Bucket) -> float:
    """Return the share of a picture that a bucket cuts off, in [0, 1)."""
    ratio, wanted = size[0] / size[1], bucket.width / bucket.height
    return 1 - min(ratio, wanted) / max(ratio, wanted)


def enlargement(size: tuple[int, int], bucket: Bucket) -> float:
    """Return by what factor a picture is scaled to cover a bucket; above 1 it is blurred."""
    return max(bucket.width / size[0], bucket.height / size[1])


def fit(image: Image.Image, bucket: Bucket) -> Image.Image:
    """Return the picture scaled to cover the bucket and cropped around its centre."""
    scale = enlargement(image.size, bucket)
    width, height = bucket.width / scale, bucket.height / scale
    left, top = (image.width - width) / 2, (image.height - height) / 2
    if scale == 1:
        return image.crop((int(left), int(top), int(left) + bucket.width, int(top) + bucket.height))
    # rounding may leave the picture by a hair's breadth
    right, bottom = min(left + width, image.width), min(top + height, image.height)
    box = (max(left, 0.0), max(top, 0.0), right, bottom)
    return image.resize(bucket, Image.Resampling.LANCZOS, box=box)


def schedule(counts: Sequence[int], steps: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Say which bucket each step takes its batch from.

    Buckets take turns in proportion to their pictures: after any number of steps no bucket is
    more than one batch off its share.

    Args:
        counts: pictures in each bucket, each >= 1.
        steps: of the whole run.

    Returns:
        The bucket of each step, and how many batches it gave before, both (steps,).
    """
    share = np.asarray(counts, dtype=np.float64) / sum(counts)
    given = np.zeros(len(counts), dtype=np.int64)
    buckets, turns = np.zeros(steps, dtype=np.int64), np.zeros(steps, dtype=np.int64)
    for step in range(steps):
        due = int(np.argmax(share * (step + 1) - given))
        buckets[step], turns[step] = due, given[due]
        given[due] += 1
    return buckets, turns


def draw(members: Sequence[int], *, turn: int, batch_size: int, seed: int) -> list[int]:
    """Return the pictures of a bucket's batch number `turn`; all come once before any twice.

    It follows from its arguments alone, so a resumed run draws what an undisturbed one does.
    """
    first, count = turn * batch_size, len(members)
    epochs = range(first // count, math.ceil((first + batch_size) / count))
    order = {e: np.random.default_rng((seed, e)).permutation(count) for e in epochs}
    places = range(first, first + batch_size)
    return [members[int(order[at // count][at % count])] for at in places]
