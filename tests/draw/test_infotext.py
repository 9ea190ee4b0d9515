"""What a PNG says about how it was drawn comes back as it was, and A1111's text is read too."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from spf_lora.draw.infotext import ENTRY, Infotext, parse, read_infotext
from spf_lora.errors import PictureError

A1111 = """masterpiece, (a man:1.2) <lora:beard_v2:0.8> <lora:hat:1:0.5>
second line
Negative prompt: bad hands,
blurry
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 42, Size: 512x768, Model hash: 6ce0161689,\
 Model: v1-5-pruned, Lora hashes: "beard_v2: 1d2e, hat: 3f4a", Version: v1.6.0"""

words = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_characters="<>")).map(
    lambda text: " ".join(text.split())
)
settings = st.dictionaries(
    st.text("abcXYZ ", min_size=1).map(str.strip).filter(bool), words, min_size=3, max_size=6
)
strengths = st.integers(-400, 400).map(lambda whole: whole / 100)
adapters = st.lists(st.tuples(st.text("abc-_19", min_size=1), strengths), max_size=3).map(tuple)


def test_what_a1111_wrote_is_read():
    found = parse(A1111)
    assert found.prompt == "masterpiece, (a man:1.2)\nsecond line"
    assert found.negative == "bad hands,\nblurry"
    assert found.adapters == (("beard_v2", 0.8), ("hat", 1.0))
    assert found.settings["Sampler"] == "DPM++ 2M Karras"
    assert found.settings["Lora hashes"] == "beard_v2: 1d2e, hat: 3f4a"
    assert found.settings["Size"] == "512x768"


@given(words, words, adapters, settings)
def test_what_is_written_is_read_back(prompt, negative, loras, said):
    wrote = Infotext(prompt, negative, loras, said)
    found = parse(wrote.text())
    assert found.prompt == prompt
    assert (found.negative, found.adapters) == (negative, loras)
    assert dict(found.settings) == said


def test_a_value_with_commas_or_colons_stands_in_quotes():
    said = {"Size": "64x64", "Lora hashes": "a: 1, b: 2", "Seed": "1"}
    text = Infotext("x", settings=said).text()
    assert text == 'x\nSize: 64x64, Lora hashes: "a: 1, b: 2", Seed: 1'


@pytest.mark.parametrize("text", ["", "a man", "Steps: 1", "a: b, c: d", "<lora:x:much> a"])
def test_a_text_without_settings_is_all_prompt(text):
    found = parse(text)
    assert not found.settings
    assert found.adapters == ()


def test_a_picture_without_a_text_says_nothing(tmp_path: Path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert read_infotext(tmp_path / "a.png") is None
    info = PngInfo()
    info.add_text(ENTRY, "a man\nSteps: 1, Seed: 2, Size: 4x4")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png", pnginfo=info)
    assert read_infotext(tmp_path / "b.png").prompt == "a man"


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04"])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(PictureError, match="cannot be read as a picture"):
        read_infotext(tmp_path / "a.png")
