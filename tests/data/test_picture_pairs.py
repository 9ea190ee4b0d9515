"""Pictures before and after are read as people have them, and what is no pair is told."""

import random

import pytest
from PIL import Image, ImageChops

from spf_lora.data.folder import dataset_digest, usable
from spf_lora.data.picture_pairs import scan_pairs, share_that_differs, shift_between
from spf_lora.data.worlds.portraits import render, unbiased
from spf_lora.errors import DataError
from spf_lora.recipe.schema import Attribute

BEARD = Attribute(name="beard", target_text="a beard", aliases=("bearded",))
SUBJECT = "a portrait of a person"


@pytest.fixture(scope="module")
def people():
    """Four people of 128 px, each without a beard and with it."""
    rng = random.Random(3)
    faces = [unbiased(rng) for _ in range(4)]
    return [(render(face, size=128), render(face, ("beard",), size=128)) for face in faces]


@pytest.fixture
def folder(tmp_path, people):
    """Four pairs in the folders a and b; only the first has a caption."""
    for inner in ("a", "b"):
        (tmp_path / inner).mkdir()
    for i, (before, after) in enumerate(people):
        before.save(tmp_path / "a" / f"{i}.png")
        after.save(tmp_path / "b" / f"{i}.png")
    (tmp_path / "b" / "0.txt").write_text("a portrait of a person, tan skin, a beard")
    return tmp_path


def scan(folder, attribute=BEARD):
    return scan_pairs(folder, attribute, subject=SUBJECT)


def faults(folder, attribute=BEARD):
    return {str(fault) for fault in scan(folder, attribute).faults}


def test_two_folders_and_two_endings_give_the_same_pairs(folder, tmp_path, people):
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, both in enumerate(people):
        for picture, ending in zip(both, ("before", "after"), strict=True):
            picture.save(flat / f"{i}_{ending}.png")
    (flat / "0_before.txt").write_text("a portrait of a person, tan skin")
    one, other = (usable(scan(place), BEARD) for place in (folder, flat))
    assert [e.caption for e in one] == [e.caption for e in other]
    assert dataset_digest(one) == dataset_digest(other)
    assert [e.before.tobytes() for e in one] == [before.tobytes() for before, _ in people]
    assert [e.image.tobytes() for e in one] == [after.tobytes() for _, after in people]


def test_a_caption_gets_the_target_and_is_the_subjects_where_nobody_wrote_one(folder):
    captions = [e.caption for e in scan(folder).examples]
    assert captions == [
        "a portrait of a person, tan skin, a beard",
        *["a portrait of a person, a beard"] * 3,
    ]


def test_the_picture_before_decides_the_digest(folder, people):
    known = dataset_digest(scan(folder).examples)
    people[0][0].point(lambda value: min(255, value + 1)).save(folder / "a" / "0.png")
    assert dataset_digest(scan(folder).examples) != known


def test_all_that_is_no_pair_is_told_at_once(folder, people):
    before, after = people[0]
    after.resize((64, 64)).save(folder / "b" / "0.png")
    (folder / "b" / "1.png").write_bytes(b"no picture")
    (folder / "a" / "2.png").unlink()
    before.save(folder / "b" / "3.png")
    before.save(folder / "a" / "3.png")
    for name in ("a", "b"):
        people[1][0].save(folder / name / "4.png")
    people[2][1].save(folder / "b" / "4.png")
    after.save(folder / "b" / "4.jpg")
    for name, picture in zip(("a", "b"), people[3], strict=True):
        picture.save(folder / name / "5.png")
    told = faults(folder)
    assert "b/0.png: is 64x64 px, but the picture before is 128x128" in told
    assert any(one.startswith("b/1.png: cannot be read as a picture") for one in told)
    assert "b/2.png: has no picture of 2 before" in told
    assert "b/3.png: is the same as the picture before" in told
    assert "b/4.png: b/4.jpg is the same picture of 4" in told
    with pytest.raises(DataError, match="faults") as refused:
        usable(scan(folder), BEARD)
    assert "nothing but the attribute differs" in refused.value.hint
    assert [e.source for e in usable(scan(folder), BEARD, skip_faulty=True)] == ["b/5.png"]


def test_another_person_and_a_moved_picture_are_no_pair(folder, people):
    people[3][1].save(folder / "b" / "0.png")
    ImageChops.offset(people[1][1], 2, -1).save(folder / "b" / "1.png")
    told = "\n".join(sorted(faults(folder)))
    assert "b/0.png: differs from the picture before in" in told
    assert "another person" in told
    assert "b/1.png: is moved against the picture before, +1.6% across and -0.8% down" in told
    assert len(scan(folder).examples) == 2


def test_a_style_may_change_the_whole_picture(folder, people):
    people[3][1].save(folder / "b" / "0.png")
    whole = Attribute(name="old", target_text="an old photograph", scope="global")
    assert len(scan(folder, whole).examples) == 4


def test_no_attribute_of_the_world_counts_as_moved_or_as_another_person():
    rng = random.Random(5)
    for _ in range(6):
        face = unbiased(rng)
        for name in ("beard", "moustache", "glasses", "sunglasses", "hat", "blonde-hair"):
            before, after = render(face, size=128), render(face, (name,), size=128)
            assert shift_between(before, after) == (0, 0), name
            assert 0.002 < share_that_differs(before, after) < 0.7, name


@pytest.mark.parametrize("move", [(1, 0), (0, -3), (5, 5)])
def test_a_shift_is_found_whatever_the_attribute_changes(people, move):
    before, after = people[0]
    assert shift_between(before, ImageChops.offset(after, *move)) == move


def test_a_folder_without_pairs_says_how_to_name_them(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="holds no pairs of pictures") as refused:
        scan(tmp_path)
    assert "NAME_before.png" in refused.value.hint
