"""The report as a person sees it, in Debian's Chromium."""

import dataclasses

import numpy
import pytest
from browser import CHROMIUM, measure, run, screenshot
from made_results import make_result, with_prompts

from spf_lora.evaluate.report.page import write_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt install chromium)")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    main = make_result(folder / "pictures")
    other = make_result(folder / "pictures", name="plain-lora-" + "very-long-name-" * 6, slope=0.8)
    hostile = with_prompts(main, "<b id=evil>bold</b> & \u202eright to left " + "w" * 300)
    cases = (hostile.cases[0], *main.cases[1:])
    return write_page([dataclasses.replace(main, cases=cases), other], folder)


def test_no_picture_is_broken_and_nothing_is_cut_off_at_any_width(page, tmp_path):
    phone, tablet, desk = measure(page, tmp_path, [390, 768, 1200])
    for found in (phone, tablet, desk):
        assert found["scroll"] <= found["width"], found["wide"][:5]
        assert found["images"] >= 8 * 2 * 4
        assert found["broken"] == found["rejected"] == found["noAlt"] == 0
        assert found["bold"] == 0  # a prompt stays text
        assert found["text"] > 3000


def test_light_and_dark_follow_the_system_without_a_word_on_the_console(page, tmp_path):
    light, said = screenshot(page, tmp_path, width=1100, height=1200)
    assert said == []
    dark, said = screenshot(page, tmp_path, width=390, height=1200, dark=True)
    assert said == []
    for picture, paper in ((light, slice(240, 256)), (dark, slice(15, 40))):
        grey = numpy.asarray(picture.convert("L"))
        shares = numpy.bincount(grey.ravel(), minlength=256) / grey.size
        assert shares[paper].sum() > 0.7  # paper
        ink = shares[:60] if paper.start > 100 else shares[200:]
        assert ink.sum() > 0.01  # something is written on it


def test_a_page_that_does_complain_is_heard(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<script>console.error('broken')</script>")
    _, said = run(bad, tmp_path / "profile", "--dump-dom")
    assert any("broken" in line for line in said)
