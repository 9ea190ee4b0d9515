"""No picture takes the machine down: what is too large, too long or no file is refused by name."""

import os
import struct
import time
import zlib
from pathlib import Path

import pytest
from peak_memory import STATUS, peaks
from PIL import Image

from spf_lora.data.decoding import LIMITS, _holds_coefficients
from spf_lora.data.folder import scan_folder
from spf_lora.data.pictures import LONGEST_RATIO, open_picture
from spf_lora.recipe.schema import Attribute

BEARD = Attribute(name="beard", target_text="a beard")
MEASURE = (
    "from spf_lora.data.pictures import open_picture; import PIL.ImageCms, pathlib",
    "open_picture(pathlib.Path(word))",
)


def png_that_claims(path: Path, wide: int, high: int) -> Path:
    """Write the head of a PNG: enough to be opened, nothing to decode."""
    body = b"IHDR" + struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 0) + b"IDAT")
    return path


def test_a_picture_of_more_megapixels_than_its_kind_may_have_is_refused_unread(
    tmp_path: Path,
) -> None:
    path = png_that_claims(tmp_path / "a.png", 10_000, 10_000)
    with pytest.raises(ValueError, match="10000x10000 px are 100 megapixels; the limit of a PNG"):
        open_picture(path)


def test_a_picture_longer_than_any_shape_is_refused_unread(tmp_path: Path) -> None:
    path = png_that_claims(tmp_path / "a.png", 200, 400_000)
    with pytest.raises(ValueError, match=f"200x400000 px are longer than {LONGEST_RATIO} to 1"):
        open_picture(path)


@pytest.mark.parametrize(("kind", "magic"), [("webp", b"RIFF\0\0\0\0WEBP"), ("avif", b"0000ftyp")])
def test_a_file_that_would_be_read_whole_has_a_limit(
    tmp_path: Path, kind: str, magic: bytes
) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(magic)
    os.truncate(path, LIMITS[kind.upper()].most_bytes + (1 << 20))
    with pytest.raises(ValueError, match=f"65 MiB; the limit of a {kind.upper()} is 64"):
        open_picture(path)


def test_no_program_is_started_for_a_picture_whatever_its_name_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # Pillow would say that Ghostscript is missing
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(ValueError, match="none of JPEG, PNG"):
        open_picture(tmp_path / "a.png")


@pytest.mark.skipif(not STATUS.exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("mode", "held"), [("RGBA", 4), ("I;16", 2), ("LA", 4), ("P", 1)])
def test_a_large_picture_is_held_once(tmp_path: Path, mode: str, held: int) -> None:
    megapixels = 16
    path = tmp_path / "a.png"
    Image.new(mode, (4096, 4096)).save(path, compress_level=1)
    (added,) = peaks(*MEASURE, [path])
    # RGB of half its sides, the bands, and what is shrunk at the end come on top
    assert added < megapixels * (held + 1) + 60


def test_a_photographs_pixels_do_not_depend_on_the_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.effect_noise((300, 250), 90).convert("RGB").save(tmp_path / "a.png")
    whole = open_picture(tmp_path / "a.png", shorter_side_px=50).image.tobytes()
    monkeypatch.setattr("spf_lora.data.pictures._BAND", 300)
    assert open_picture(tmp_path / "a.png", shorter_side_px=50).image.tobytes() == whole


def many_framed_gif(frames: int) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 8, 8, 0) + b"\x02\x05\x84\x8f\xa9\xcb\xed\0"
    return screen + frames * frame + b"\x3b"


def test_frames_that_are_not_used_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(many_framed_gif(100_000))
    begun = time.process_time()
    try:
        open_picture(tmp_path / "a.gif")
    except ValueError as error:
        pytest.fail(f"the GIF is sound: {error}")
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("how", "holds"),
    [({}, False), ({"subsampling": 0, "quality": 95}, False), ({"progressive": True}, True)],
)
def test_jpegs_that_hold_all_coefficients_are_told_from_those_that_stream(
    tmp_path: Path, how: dict[str, object], holds: bool
) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.jpg", **how)  # type: ignore[arg-type]
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    with (tmp_path / "a.jpg").open("rb") as file:
        assert _holds_coefficients(file) is holds
    scan = data.index(b"\xff\xda")
    data[scan + 4] = 1  # its first scan is of one component
    (tmp_path / "b.jpg").write_bytes(data)
    with (tmp_path / "b.jpg").open("rb") as file:
        assert _holds_coefficients(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "photos"
    for stem in "ab":
        (inner / "masks").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(inner / f"{stem}.png")
        (inner / f"{stem}.txt").write_text("a beard")
    Image.new("RGB", (8, 8), "white").save(tmp_path / "outside.png")
    (tmp_path / "outside.txt").write_text("a secret, a beard")
    return inner


@pytest.mark.parametrize("name", ["a.png", "a.txt", "masks/a.png"])
def test_a_fifo_is_told_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    scan = scan_folder(folder, BEARD)
    assert [e.source for e in scan.examples] == ["b.png"]
    assert any(f.file == name and "it is no regular file" in f.text for f in scan.faults)


@pytest.mark.parametrize("name", ["a.png", "a.txt", "masks/a.png", "masks", "metadata.jsonl"])
def test_a_link_that_leaves_the_folder_is_told_and_not_followed(folder: Path, name: str) -> None:
    path = folder / name
    outside = folder.parent / ("outside.png" if path.suffix == ".png" else "outside.txt")
    if name == "masks":
        path.rmdir()
        outside = folder.parent / "others"
        outside.mkdir()
        Image.new("RGB", (8, 8), "white").save(outside / "a.png")
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    scan = scan_folder(folder, BEARD)
    assert "secret" not in str(scan)
    told = [f.file for f in scan.faults if "is a link to a file outside" in f.text]
    assert told == ["masks/a.png" if name == "masks" else name]


def test_a_link_within_the_folder_is_followed_and_the_folder_may_be_one(folder: Path) -> None:
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to("b.txt")
    link = folder.parent / "link"
    link.symlink_to(folder)
    scan = scan_folder(link, BEARD)
    assert (scan.faults, len(scan.examples)) == ([], 2)


def test_a_caption_as_long_as_a_book_is_refused_at_once(folder: Path) -> None:
    (folder / "a.txt").write_text("a bearded man " * 300_000)
    begun = time.process_time()
    scan = scan_folder(folder, BEARD)
    assert "a.txt: cannot be read as a caption (it is larger than 4 KiB)" in map(str, scan.faults)
    (folder / "a.txt").unlink()
    text = "a bearded man " * 1000
    (folder / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "text": "{text}"}}')
    found = [str(fault) for fault in scan_folder(folder, BEARD).faults]
    assert "metadata.jsonl line 1: text is longer than 4096 bytes" in found
    assert time.process_time() - begun < 2
