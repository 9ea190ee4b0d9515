"""Captions from metadata files, masks, and everything that could go unseen."""

import json
from pathlib import Path

import pytest
from PIL import Image

from spf_lora.data.folder import dataset_digest, read_folder, scan_folder, usable
from spf_lora.errors import DataError
from spf_lora.recipe.schema import Attribute

BEARD = Attribute(name="beard", target_text="a beard")


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (8, 4)) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def faults(folder: Path) -> list[str]:
    return sorted(map(str, scan_folder(folder, BEARD).faults))


def write_rows(folder: Path, kind: str, rows: dict[str, str], column: str = "text") -> None:
    if kind == "jsonl":
        lines = [json.dumps({"file_name": name, column: text}) for name, text in rows.items()]
    else:
        lines = [f"file_name,{column}", *(f'{name},"{text}"' for name, text in rows.items())]
    (folder / f"metadata.{kind}").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("column", ["text", "caption"])
def test_captions_may_stand_in_one_file(tmp_path: Path, kind: str, column: str) -> None:
    picture(tmp_path / "b.png")
    picture(tmp_path / "train" / "a.jpg")
    write_rows(tmp_path, kind, {"train/a.jpg": "a man, a beard", "b.png": "x, a beard"}, column)
    read = read_folder(tmp_path, BEARD)
    assert [(e.source, e.caption) for e in read] == [
        ("b.png", "x, a beard"),
        ("train/a.jpg", "a man, a beard"),
    ]


def test_a_csv_whose_quote_is_never_closed_is_a_fault(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text('file_name,text\na.png,"a beard\n' + "x\n" * 99_999)
    found = faults(tmp_path)
    assert found[0] == "a.png: has no caption"
    assert found[1].endswith("cannot be read; look for a quote that is never closed")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (r'"a \ud800 man, a beard"', "text is no text in UTF-8"),
        ("[" * 100_000, "it nests too deep"),
        ("1e999", "text is not a finite number"),
    ],
)
def test_a_line_that_no_tool_would_write_is_told_with_its_reason(
    tmp_path: Path, text: str, why: str
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "text": {text}}}')
    assert f"({why}" in faults(tmp_path)[1]


def test_a_csv_made_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = '\ufefffile_name,text\r\na.png,"a man,\r\na beard"\r\n'
    (tmp_path / "metadata.csv").write_bytes(rows.encode())
    assert read_folder(tmp_path, BEARD)[0].caption == "a man, a beard"


def test_some_captions_may_be_files_and_some_lines(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "a.txt").write_text("a beard")
    write_rows(tmp_path, "jsonl", {"b.png": "a beard"})
    assert len(read_folder(tmp_path, BEARD)) == 2


def test_everything_wrong_with_metadata_is_told_with_its_line(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        picture(tmp_path / name)
    (tmp_path / "a.txt").write_text("a beard")
    lines = [
        '{"file_name": "a.png", "text": "a beard"}',
        "no json",
        "[1]",
        "",
        '{"text": "a beard"}',
        '{"file_name": "b.png"}',
        '{"file_name": "b.png", "text": 3}',
        '{"file_name": "../x.png", "text": "a beard"}',
        '{"file_name": "/x.png", "text": "x"}',
        '{"file_name": "gone.png", "text": "a beard"}',
        '{"file_name": "c.png", "text": "a man"}',
        '{"file_name": "c.png", "text": "a beard"}',
        '{"file_name": "d.png", "text": " , "}',
        '{"file_name": "\\u0000", "text": "a beard"}',
        json.dumps({"file_name": "x" * 300, "text": "a beard"}),
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    no_object = 'is no JSON object such as {"file_name": ..., "text": ...}'
    assert faults(tmp_path) == sorted(
        [
            "a.txt: metadata.jsonl line 1 holds a second caption of a.png",
            f"metadata.jsonl line 2: {no_object} (it is no valid JSON: Expecting value: "
            "line 1 column 1 (char 0))",
            f"metadata.jsonl line 3: {no_object}",
            "metadata.jsonl line 5: has no file_name",
            "metadata.jsonl line 6: has no text",
            "metadata.jsonl line 7: has no text",
            "metadata.jsonl line 8: file_name ../x.png is not inside the folder",
            "metadata.jsonl line 9: file_name /x.png is not inside the folder",
            "metadata.jsonl line 10: there is no picture gone.png",
            "metadata.jsonl line 11: does not say 'a beard'",
            "metadata.jsonl line 12: c.png has a second caption here",
            "metadata.jsonl line 13: is empty",
            "metadata.jsonl line 14: file_name is no name of a file",
            "metadata.jsonl line 15: file_name is no name of a file",
            "b.png: has no caption",
        ]
    )


def test_a_picture_named_by_metadata_of_a_kind_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.heic").write_bytes(b"x")
    write_rows(tmp_path, "jsonl", {"a.png": "a beard", "b.heic": "a beard"})
    assert faults(tmp_path) == [
        "b.heic: is a kind of picture that cannot be read; save it as PNG or JPEG"
    ]


def test_a_mask_comes_with_its_picture_at_its_size(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.png")
    for stem in "ab":
        (tmp_path / f"{stem}.txt").write_text("a beard")
    picture(tmp_path / "masks" / "a.png", "white", size=(4, 2))
    one, two = read_folder(tmp_path, BEARD)
    assert one.mask is not None
    assert (one.mask.mode, one.mask.size) == ("L", one.image.size)
    assert two.mask is None
    unmasked = dataset_digest([two])
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "b.png")
    assert dataset_digest(read_folder(tmp_path, BEARD)[1:]) != unmasked


def test_a_mask_that_fits_nothing_is_a_fault(tmp_path: Path) -> None:
    for stem in "abc":
        picture(tmp_path / f"{stem}.png")
        (tmp_path / f"{stem}.txt").write_text("a beard")
    picture(tmp_path / "masks" / "a.png", "white", size=(4, 4))
    picture(tmp_path / "masks" / "b.png", "black")
    (tmp_path / "masks" / "c.png").write_bytes(b"x")
    picture(tmp_path / "masks" / "d.png")
    picture(tmp_path / "masks" / "a.jpg")
    found = faults(tmp_path)
    assert "masks/a.png: is 4x4, but its picture is 8x4" in found
    assert "masks/b.png: is all black, so nothing of its picture would be learned" in found
    assert "masks/a.jpg: is the mask of no picture (STEM.png is)" in found
    assert "masks/d.png: is the mask of no picture (STEM.png is)" in found
    assert any(fault.startswith("masks/c.png: cannot be read as a mask (") for fault in found)
    assert len(found) == 5


def test_the_good_ones_are_trained_on_only_when_asked_for(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a beard")
    picture(tmp_path / "b.png")
    scan = scan_folder(tmp_path, BEARD)
    with pytest.raises(DataError, match=r"has 1 fault:\n  b.png: has no caption"):
        usable(scan, BEARD)
    assert [e.source for e in usable(scan, BEARD, skip_faulty=True)] == ["a.png"]


def test_with_nothing_good_left_even_that_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png: has no caption"):
        usable(scan_folder(tmp_path, BEARD), BEARD, skip_faulty=True)
