"""A training folder is read whole or refused whole, with everything that is wrong in one list."""

from pathlib import Path

import pytest
from PIL import Image

from spf_lora.data.folder import Example, dataset_digest, read_folder
from spf_lora.errors import DataError
from spf_lora.recipe.schema import Attribute

BEARD = Attribute(name="beard", target_text="a beard", aliases=("bearded",))
RED, WHITE = (255, 0, 0), (255, 255, 255)


def picture(colour: tuple[int, int, int] = RED, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, colour)


def add(folder: Path, name: str, caption: str | None = "a man, a beard") -> None:
    picture().save(folder / name)
    if caption is not None:
        (folder / name).with_suffix(".txt").write_text(caption, encoding="utf-8")


def test_pictures_come_with_their_captions_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "c.WEBP"):
        add(tmp_path, name, f"{name}, a beard")
    examples = read_folder(tmp_path, BEARD)
    assert [example.source for example in examples] == ["a.jpg", "b.png", "c.WEBP"]
    assert examples[0].caption == "a.jpg, a beard"
    assert all(example.image.mode == "RGB" for example in examples)


def test_a_caption_file_and_an_alias_do_as_well(tmp_path: Path) -> None:
    add(tmp_path, "a.png", caption=None)
    (tmp_path / "a.caption").write_text("\ufeffa Bearded man\n", encoding="utf-8")
    assert read_folder(tmp_path, BEARD)[0].caption == "a Bearded man"


def test_hidden_files_other_files_and_folders_are_not_looked_at(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    (tmp_path / "._a.png").write_bytes(b"left by another system")
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "more.png").mkdir()
    assert len(read_folder(tmp_path, BEARD)) == 1


def test_everything_wrong_is_listed_at_once(tmp_path: Path) -> None:
    add(tmp_path, "good.png")
    add(tmp_path, "alone.png", caption=None)
    add(tmp_path, "off.png", "a man")
    add(tmp_path, "empty.png", " \n")
    add(tmp_path, "latin.png")
    (tmp_path / "latin.txt").write_bytes(b"a beard \xe9")
    add(tmp_path, "damaged.png")
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    add(tmp_path, "twice.png")
    picture().save(tmp_path / "twice.jpg")
    add(tmp_path, "two.png")
    (tmp_path / "two.caption").write_text("a beard")
    (tmp_path / "phone.heic").write_bytes(b"")
    (tmp_path / "phone.txt").write_text("a beard")
    with pytest.raises(DataError, match="has 8 faults:") as caught:
        read_folder(tmp_path, BEARD)
    lines = caught.value.message.splitlines()[1:]
    assert lines[0] == "  alone.png: has no caption"
    assert lines[1].startswith("  damaged.png: cannot be read as a picture (")
    assert lines[2:] == [
        "  empty.txt: is empty",
        "  latin.txt: cannot be read as a caption (it is not UTF-8)",
        "  off.txt: does not say 'a beard'",
        "  phone.heic: is a kind of picture that cannot be read; save it as PNG or JPEG",
        "  twice.jpg: shares its caption with twice.png",
        "  two.caption: two.txt is a second caption",
    ]
    assert "a beard" in caught.value.hint


def test_a_truncated_picture_is_a_fault_and_not_half_read(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"has 1 fault:\n  a.png: cannot be read as a picture"):
        read_folder(tmp_path, BEARD)


def test_a_picture_of_absurd_size_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path, "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"a.png: cannot be read as a picture \(Image size"):
        read_folder(tmp_path, BEARD)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds no pictures \(avif, bmp, gif, jpeg, jpg, png"
    ) as caught:
        read_folder(tmp_path, BEARD)
    assert ".txt captions" in caught.value.hint


def test_pictures_one_folder_deeper_are_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "beards").mkdir()
    add(tmp_path / "beards", "a.png")
    with pytest.raises(DataError, match=r"holds no pictures .*beards does"):
        read_folder(tmp_path, BEARD)


@pytest.mark.parametrize("name", ["missing", "file.txt"])
def test_what_is_no_folder_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(DataError, match="cannot be read: N") as caught:
        read_folder(tmp_path / name, BEARD)
    assert "portraits export" in caught.value.hint


def test_a_picture_turned_by_its_camera_is_turned_upright(tmp_path: Path) -> None:
    add(tmp_path, "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(size=(10, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_folder(tmp_path, BEARD)[0].image.size == (20, 10)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(tmp_path: Path, mode: str) -> None:
    add(tmp_path, "a.png")
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)
    clear.save(
        tmp_path / "a.png", **({"transparency": clear.getpixel((0, 0))} if mode == "P" else {})
    )
    assert read_folder(tmp_path, BEARD)[0].image.getpixel((0, 0)) == WHITE


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    Image.new("I;16", (8, 8), 128 * 257).save(tmp_path / "a.png")
    assert read_folder(tmp_path, BEARD)[0].image.getpixel((0, 0)) == (128, 128, 128)


def test_large_pictures_are_shrunk_and_small_ones_left(tmp_path: Path) -> None:
    for name, size in (("a", (40, 80)), ("b", (8, 8))):
        add(tmp_path, f"{name}.png")
        picture(size=size).save(tmp_path / f"{name}.png")
    sizes = [e.image.size for e in read_folder(tmp_path, BEARD, shorter_side_px=20)]
    assert sizes == [(20, 40), (8, 8)]


def test_the_digest_is_of_pixels_and_captions_alone() -> None:
    one = Example(picture(), "a man, a beard", "one.png")
    two = Example(picture(WHITE), "a woman, a beard", "two.png")
    digest = dataset_digest([one, two])
    assert dataset_digest([two, Example(one.image, one.caption, "other.webp")]) == digest
    changed = [
        Example(one.image, two.caption, ""),
        Example(two.image, one.caption, ""),
        Example(picture(size=(4, 16)), one.caption, ""),
    ]
    assert len({dataset_digest([example, two]) for example in changed} | {digest}) == 4
    assert dataset_digest([one, one]) != dataset_digest([one])


def test_the_file_format_does_not_matter_to_the_digest(tmp_path: Path) -> None:
    for name in ("png", "bmp"):
        (tmp_path / name).mkdir()
        add(tmp_path / name, f"a.{name}")
    digests = {dataset_digest(read_folder(tmp_path / name, BEARD)) for name in ("png", "bmp")}
    assert len(digests) == 1
