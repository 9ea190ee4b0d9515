"""kohya's folders are read as kohya reads them, and what it would pass over is told."""

from pathlib import Path

import pytest
from PIL import Image

from spf_lora.data.folder import dataset_digest, scan_folder
from spf_lora.errors import DataError
from spf_lora.recipe.schema import Attribute

CROWN = Attribute(name="crown", target_text="a crown", aliases=("crown",))


def add(folder: Path, name: str, caption: str | None = "a man, a crown") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((8, 8), 50).convert("RGB").save(folder / name)
    if caption is not None:
        (folder / name).with_suffix(".txt").write_text(caption)


def test_sub_folders_are_read_with_their_repeats(tmp_path: Path) -> None:
    add(tmp_path / "10_crown", "a.png")
    add(tmp_path / "10_crown", "b.png")
    add(tmp_path / "5_crown woman", "a.png", "a woman, a crown")
    scan = scan_folder(tmp_path, CROWN)
    assert {e.source: e.repeats for e in scan.examples} == {
        "10_crown/a.png": 2,
        "10_crown/b.png": 2,
        "5_crown woman/a.png": 1,
    }
    assert scan.examples[2].caption == "a woman, a crown"
    assert not scan.faults


def test_one_folder_alone_counts_once_and_is_no_other_data_set(tmp_path: Path) -> None:
    add(tmp_path / "10_crown", "a.png")
    whole, inner = scan_folder(tmp_path, CROWN), scan_folder(tmp_path / "10_crown", CROWN)
    assert [e.repeats for e in whole.examples] == [1]
    assert dataset_digest(whole.examples) == dataset_digest(inner.examples)


def test_repeats_make_another_data_set(tmp_path: Path) -> None:
    add(tmp_path / "2_a", "a.png")
    add(tmp_path / "1_b", "b.png")
    before = dataset_digest(scan_folder(tmp_path, CROWN).examples)
    (tmp_path / "2_a").rename(tmp_path / "3_a")
    assert dataset_digest(scan_folder(tmp_path, CROWN).examples) != before


def test_a_picture_without_a_caption_has_its_folders_name_for_one(tmp_path: Path) -> None:
    add(tmp_path / "10_crown woman", "a.png", caption=None)
    scan = scan_folder(tmp_path, CROWN)
    assert [e.caption for e in scan.examples] == ["crown woman"]
    assert scan.spared == ["10_crown woman/a.png"]


def test_a_folders_name_that_does_not_say_the_target_is_a_fault(tmp_path: Path) -> None:
    add(tmp_path / "10_photos", "a.png", caption=None)
    (fault,) = scan_folder(tmp_path, CROWN).faults
    assert str(fault) == "10_photos/a.png (its folder's name): does not say 'a crown'"


def test_what_lies_deeper_or_has_no_repeats_is_not_read_but_told(tmp_path: Path) -> None:
    add(tmp_path / "10_crown", "a.png")
    add(tmp_path / "10_crown" / "more", "b.png")
    add(tmp_path / "extra", "c.png")
    add(tmp_path / "0_none", "d.png")
    scan = scan_folder(tmp_path, CROWN)
    assert [e.source for e in scan.examples] == ["10_crown/a.png"]
    assert scan.unread == ["0_none", "10_crown/more", "extra"]


def test_pictures_beside_the_folders_are_faults(tmp_path: Path) -> None:
    add(tmp_path / "10_crown", "a.png")
    add(tmp_path, "b.png")
    (fault,) = scan_folder(tmp_path, CROWN).faults
    assert fault.file == "b.png"
    assert "lies beside kohya's folders" in fault.text


def test_faults_and_masks_are_named_with_their_folder(tmp_path: Path) -> None:
    add(tmp_path / "3_crown", "a.png", "a man")
    add(tmp_path / "3_crown", "b.png")
    (tmp_path / "3_crown" / "masks").mkdir()
    Image.new("L", (8, 8), 255).save(tmp_path / "3_crown" / "masks" / "b.png")
    scan = scan_folder(tmp_path, CROWN)
    assert [str(fault) for fault in scan.faults] == ["3_crown/a.txt: does not say 'a crown'"]
    assert scan.examples[0].mask is not None


def test_a_plain_folder_tells_of_folders_inside_that_are_not_read(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    add(tmp_path / "more", "b.png")
    scan = scan_folder(tmp_path, CROWN)
    assert len(scan.examples) == 1
    assert scan.unread == ["more"]


def test_metadata_names_the_pictures_whatever_the_folders_are_called(tmp_path: Path) -> None:
    add(tmp_path / "10_crown", "a.png", caption=None)
    row = '{"file_name": "10_crown/a.png", "text": "a man, a crown"}'
    (tmp_path / "metadata.jsonl").write_text(row)
    (example,) = scan_folder(tmp_path, CROWN).examples
    assert example.caption == "a man, a crown"
    assert not scan_folder(tmp_path, CROWN).unread


def test_a_folder_with_pictures_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "10_crown").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        scan_folder(tmp_path, CROWN)
