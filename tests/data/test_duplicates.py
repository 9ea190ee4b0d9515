"""Copies are found however they were saved; pictures that differ are told apart."""

import io

import numpy as np
import pytest
from PIL import Image

from spf_lora.data.duplicates import groups_of_equals, groups_of_near, perceptual_hash


def photo(seed: int) -> Image.Image:
    """Return smooth random colours, as different from one another as photographs are."""
    values = np.random.default_rng(seed).integers(0, 256, (10, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((120, 150), Image.Resampling.BICUBIC)


def recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def halved(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR)


def brighter(image: Image.Image) -> Image.Image:
    return image.point(lambda value: min(255, round(value * 1.04)))


@pytest.mark.parametrize("change", [recompressed, halved, brighter])
def test_each_copy_joins_its_original_and_no_other(change) -> None:
    originals = [photo(seed) for seed in range(20)]
    copies = [change(picture) for picture in originals]
    assert groups_of_near(originals + copies) == [[place, place + 20] for place in range(20)]


def test_a_chain_of_copies_is_one_group() -> None:
    one = photo(0)
    assert groups_of_near([one, photo(1), halved(one), recompressed(halved(one))]) == [[0, 2, 3]]


def test_the_same_shapes_in_other_colours_are_no_copy() -> None:
    grey = photo(0).convert("L")
    warm, cold = (
        Image.merge("RGB", bands)
        for bands in (
            (grey, grey, Image.new("L", grey.size)),
            (Image.new("L", grey.size), grey, grey),
        )
    )
    assert groups_of_near([warm, cold]) == []


def test_nothing_and_flat_pictures_do_no_harm() -> None:
    assert groups_of_near([]) == []
    flat = [Image.new("RGB", (9, 5), colour) for colour in ("black", "white", "black")]
    assert groups_of_near(flat) == [[0, 2]]


def test_the_hash_does_not_depend_on_size() -> None:
    large = photo(3).resize((960, 1200), Image.Resampling.BICUBIC)
    assert (perceptual_hash(large) ^ perceptual_hash(photo(3))).bit_count() <= 2


def test_equals_are_told_by_their_places() -> None:
    assert groups_of_equals("abcab") == [[0, 3], [1, 4]]
