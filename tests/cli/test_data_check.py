"""`spf-lora data check` as a user meets it, on folders with every fault and none."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spf_lora.base.outline import picture_step, read_outline, words_cut_off
from spf_lora.data.buckets import make_buckets
from spf_lora.data.check import check
from spf_lora.data.folder import scan_folder, usable
from spf_lora.errors import DataError
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.recipe.schema import Attribute

BEARD = load_recipe(find_recipe("beard")).attribute
GOOD = "a portrait of a man, brown hair, pale skin, a blue shirt, a grey background, a beard"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()


def add(name: str, caption: str | None = GOOD, size: tuple[int, int] = (512, 512)) -> None:
    seed = sum(map(ord, name))
    values = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    path = Path("photos") / name
    Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).save(path, compress_level=1)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def report(attribute: Attribute = BEARD):
    scan = scan_folder(Path("photos"), attribute)
    return check(scan, attribute, buckets=make_buckets(512), cut_off=words_cut_off)


def test_a_good_folder_has_neither_faults_nor_notes() -> None:
    for number in range(15):
        add(f"{number}.png")
    found = report()
    assert (found.pictures, found.usable, found.faults, found.notes) == (15, 15, [], [])
    assert found.buckets == {"512x512": 15}
    assert (found.phrases_mean, found.phrases_fewest) == (5, 5)
    assert found.topics["hair"] == 1
    assert found.topics["light"] == 0


def test_few_pictures_are_a_loud_warning() -> None:
    for number in range(14):
        add(f"{number}.png")
    assert report().notes[0].startswith("ONLY 14 PICTURES: with fewer than 15 an adapter learns")


def test_three_captions_are_shown_as_training_will_use_them() -> None:
    for number in range(4):
        add(f"{number}.png", "A man who is wearing a beard, and overalls.")
    found = report()
    assert found.sentences == 4
    assert found.pairs == [
        (f"{n}.png", "A man who is wearing overalls", "A man who is wearing a beard, and overalls")
        for n in range(3)
    ]


def test_a_caption_that_cannot_lose_the_target_is_a_fault_with_its_sentence() -> None:
    add("a.png", "The man strokes his beard slowly. He smiles.")
    (fault,) = report().faults
    assert fault.file == "a.txt"
    assert "cannot lose 'a beard' and stay a sentence: 'The man strokes his beard" in fault.text


def test_shapes_are_counted_and_every_picture_has_one() -> None:
    for name, size in {"a": (512, 512), "b": (800, 1000), "c": (600, 900), "d": (900, 600)}.items():
        add(f"{name}.png", size=size)
    assert report().buckets == {"512x512": 1, "448x576": 1, "384x640": 1, "640x384": 1}


def test_small_pictures_are_noted_and_tiny_ones_are_faults() -> None:
    add("small.png", size=(256, 256))
    add("tiny.png", size=(128, 130))
    found = report()
    assert found.enlarged == {"small.png": 2.0}
    assert list(map(str, found.faults)) == [
        "tiny.png: is 128x130 px, too small for 512x512: enlarged 4.0 times"
    ]
    scan = scan_folder(Path("photos"), BEARD)
    with pytest.raises(DataError, match=r"tiny\.png: is 128x130 px"):
        usable(scan, BEARD, more=found.faults)
    left = usable(scan, BEARD, more=found.faults, skip_faulty=True)
    assert [e.source for e in left] == ["small.png"]


def test_a_strip_loses_its_ends_and_that_is_told() -> None:
    add("strip.png", size=(2048, 512))
    found = report()
    assert found.cropped == {"strip.png": 0.4}
    assert "strip.png is longer than any shape: over a quarter is cut off" in found.notes


def test_copies_are_told_exact_and_near() -> None:
    add("a.png")
    add("b.png")
    Image.open("photos/a.png").save("photos/c.webp", lossless=True)
    Path("photos/c.txt").write_text(GOOD)
    Image.open("photos/b.png").save("photos/d.jpg", quality=60)
    Path("photos/d.txt").write_text(GOOD)
    found = report()
    assert found.equal == [["a.png", "c.webp"]]
    assert found.near == [["b.png", "d.jpg"]]
    assert any("the same picture" in note and "c.webp" in note for note in found.notes)


def test_a_long_caption_is_told_with_what_is_lost() -> None:
    add("a.png", ", ".join(["pale skin"] * 30) + ", a hat, a beard")
    assert report().cut_off["a.png"].endswith("a hat, a beard")


def test_the_end_of_a_prompt_is_counted_as_it_will_be_read() -> None:
    add("a.png", "a beard, " + ", ".join(["x"] * 35) + ", end")
    assert report().cut_off == {}, "74 tokens fit"
    add("b.png", "a beard, " + ", ".join(["x"] * 36) + ", end")
    found = report()
    assert found.cut_off == {"b.png": "beard"}, "the target is put last, and lost first"
    assert list(map(str, found.faults)) == [
        "b.png: its prompt is over 77 tokens, so the text encoder would not read its end: 'beard'"
    ]


def test_short_captions_and_favourites_are_told() -> None:
    for number in range(10):
        add(f"{number}.png", f"{'black' if number < 9 else 'red'} hair, a man, pale skin, a beard")
    found = report()
    assert any("captions name 3.0 things" in note for note in found.notes)
    assert found.companions[0].words == "black hair"
    one_in_ten = found.companions[0].lift
    assert one_in_ten == pytest.approx(1.8)


def test_the_command_prints_a_report_and_returns_3_for_faults(cli) -> None:
    add("a.png", "a man, a beard", size=(64, 64))
    code, said, talk = cli("data", "check", "photos", "-a", "beard")
    assert code == 0, talk
    assert "64x64 x1" in said
    assert "captions name 1.0 things" in talk
    add("b.png", None, size=(64, 64))
    code, said, talk = cli("data", "check", "photos", "-a", "beard")
    assert code == 3
    assert "fault: b.png: has no caption" in said
    assert "--skip-faulty" in talk


def test_json_holds_every_count(cli) -> None:
    for number in range(4):
        add(f"{number}.png", size=(64, 64))
    code, said, _ = cli("data", "check", "photos", "-a", "beard", "--json")
    found = json.loads(said)
    assert code == 0
    assert found["buckets"] == {"64x64": 4}
    assert found["companions"][0].keys() >= {"words", "count", "share", "expected", "lift"}
    assert found["counts_tokens"] is True
    assert found["faults"] == []


def test_another_base_asks_for_other_shapes(cli, tiny_folder) -> None:
    add("a.png", size=(512, 640))
    shapes = {}
    for base in (tiny_folder, "elsewhere/sd15.safetensors"):
        words = ("data", "check", "photos", "-a", "beard", "--json", "--base", base)
        shapes[base] = json.loads(cli(*words)[1])["buckets"]
    assert shapes == {tiny_folder: {"32x32": 1}, "elsewhere/sd15.safetensors": {"448x576": 1}}
    words = ("data", "check", "photos", "-a", "beard", "--resolution", "256", "--json")
    assert json.loads(cli(*words)[1])["buckets"] == {"224x288": 1}


def test_captions_without_the_attribute_can_be_compared_with(cli) -> None:
    add("a.png", size=(64, 64))
    add("b.png", size=(64, 64))
    assert cli("portraits", "export", "plain", "-a", "hat", "--count", "3")[0] == 0
    words = ("data", "check", "photos", "-a", "beard", "--against", "plain", "--json")
    found = json.loads(cli(*words)[1])
    assert found["against"] == "other captions"
    lifts = {row["words"]: row["lift"] for row in found["companions"]}
    assert lifts["a portrait of a man"] == pytest.approx(1 / (0.5 / 4))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("photos",), "nothing says what is taught"),
        (("photos", "-a", "beerd"), "did you mean beard?"),
        (("photos", "-a", "beard"), "holds no pictures"),
        (("none", "-a", "beard"), "none cannot be read"),
    ],
)
def test_what_cannot_be_checked_is_told(cli, words: tuple[str, ...], said: str) -> None:
    code, out, talk = cli("data", "check", *words)
    assert (code, out) == (1, "")
    assert said in talk
    assert "hint: " in talk


def test_the_cache_is_shown_and_cleared(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from spf_lora.data.cache import TensorCache, cache_folder, content_key

    monkeypatch.setenv("SPF_LORA_CACHE", "kept")
    TensorCache(cache_folder()).get(content_key("a"), lambda: torch.ones(2))
    found = json.loads(cli("data", "cache", "--json")[1])
    assert (found["folder"], found["entries"]) == ("kept", 1)
    assert cli("data", "cache", "--clear")[1] == "kept: 0 entries, 0.0 MB\n"


def test_sides_are_multiples_of_what_the_base_halves(tiny_folder) -> None:
    assert picture_step(vae_blocks=4, unet_blocks=4) == 64, "SD1.5"
    outline = read_outline(tiny_folder)
    assert (outline.resolution, outline.step, outline.counts_tokens) == (32, 8, True)
    unknown = read_outline(Path("owner/name"))
    assert (unknown.resolution, unknown.step, unknown.counts_tokens) == (512, 64, False)


@pytest.mark.parametrize(
    "unet",
    ["[]", "[" * 99_999, '{"block_out_channels": [1], "sample_size": 1e999}', '{"sample_size": 0}'],
)
def test_a_base_whose_configs_say_nothing_is_measured_as_sd15(tmp_path: Path, unet: str) -> None:
    for part, text in (("unet", unet), ("vae", '{"block_out_channels": []}')):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(text)
    outline = read_outline(tmp_path)
    assert (outline.resolution, outline.step) == (512, 64)
