"""Finds pictures that are the same, or nearly: resized, recompressed, slightly brightened copies.

Two pictures are near when both their perceptual hashes and their colours are: the hash is of the
signs of the lowest frequencies of a discrete cosine transform (Zauner, "Implementation and
benchmarking of perceptual image hash functions", 2010), the colours are those of an 8 x 8 copy.
"""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE, _LOW = 32, 8
_MOST_BITS = 8  # of 64 that may differ
_MOST_MEAN, _MOST_ANYWHERE = 8.0, 40.0  # difference of 8-bit values of the small copies


def groups_of_equals(keys: Iterable[Hashable]) -> list[list[int]]:
    """Return the places of keys that occur more than once, a list for each key."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return [group for group in places.values() if len(group) > 1]


def groups_of_near(images: Sequence[Image.Image]) -> list[list[int]]:
    """Return the places of pictures that are near another, joined into groups."""
    if not images:
        return []
    hashes = np.array([perceptual_hash(image) for image in images], dtype=np.uint64)
    colours = np.stack([_small(image) for image in images])  # (n, 8 * 8 * 3)
    group = list(range(len(images)))
    for first in range(len(images) - 1):
        bits = np.bitwise_count(hashes[first + 1 :] ^ hashes[first])
        for ahead in np.flatnonzero(bits <= _MOST_BITS).tolist():
            other = first + 1 + ahead
            difference = np.abs(colours[first] - colours[other])
            if difference.mean() <= _MOST_MEAN and difference.max() <= _MOST_ANYWHERE:
                joined, left = group[first], group[other]
                group = [joined if own == left else own for own in group]
    return groups_of_equals(group)


def perceptual_hash(image: Image.Image) -> int:
    """Return 64 bits: which of the 8 x 8 lowest frequencies are above their median."""
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    waves = _cosines()[:_LOW]  # (8, 32)
    low = waves @ np.asarray(grey, dtype=np.float64) @ waves.T  # (8, 8)
    bits = low.ravel() > np.median(low.ravel()[1:])  # the first is the mean brightness
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _cosines() -> npt.NDArray[np.float64]:
    """Return the matrix of the discrete cosine transform (type 2), (frequencies, samples)."""
    samples = np.arange(_SIDE)
    waves: npt.NDArray[np.float64] = np.cos(
        np.pi / _SIDE * (samples + 0.5)[None] * samples[:, None]
    )
    return waves


def _small(image: Image.Image) -> npt.NDArray[np.float64]:
    colours = image.convert("RGB").resize((8, 8), Image.Resampling.BOX)
    return np.asarray(colours, dtype=np.float64).ravel()
