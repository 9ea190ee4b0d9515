import dataclasses
import importlib.util
import re
from html.parser import HTMLParser

import numpy
import pytest
from made_results import make_result, with_prompts
from PIL import Image
from root import ROOT

from spf_lora.errors import MeasureError, OutputError
from spf_lora.evaluate.comparison import Difference
from spf_lora.evaluate.gallery import picture_path, write_content
from spf_lora.evaluate.report import bars, strips, words
from spf_lora.evaluate.report.page import make_page, plain_verdict, write_page
from spf_lora.evaluate.result import Figure, from_json


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return tmp_path_factory.mktemp("gallery")


@pytest.fixture(scope="module")
def result(gallery):
    return make_result(gallery)


class Outline(HTMLParser):
    """Tags that are opened and closed, attributes that could reach outside, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.faults, self.reaching, self.text, self.tags = [], [], [], "", set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.reaching += [v for k, v in attrs if k in ("src", "href", "srcset", "action")]
        self.faults += [f"{k} in {tag}" for k, _ in attrs if k.startswith("on")]
        if tag not in ("meta", "link", "img", "line", "circle", "polygon", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_reaches_nowhere(result, tmp_path):
    write_page([result], tmp_path)
    seen = Outline((tmp_path / "report.html").read_text("utf-8"))
    assert seen.faults == seen.open == []
    assert "script" not in seen.tags
    assert all(address.startswith(("data:", "#")) for address in seen.reaching)
    assert not re.search(r"url\(|@import", (tmp_path / "report.html").read_text("utf-8"))


@pytest.mark.parametrize(
    "words", ['<script>alert("x")</script>', "\" onload='x", "&amp; é 日本", "a\x00b\x1b[31m"]
)
def test_a_prompt_stays_text(result, words):
    hostile = dataclasses.replace(
        with_prompts(result, words),
        adapter=words,
        attribute=words,
        target_text=words,
        remarks=(words,),
        judge=words,
    )
    seen = Outline(make_page([hostile, hostile], verdict=words))
    assert seen.faults == seen.open == []
    assert "script" not in seen.tags
    shown = "".join(c for c in words if c.isprintable())
    assert seen.text.count(shown) >= 2 + len(hostile.cases)


def test_a_prompt_that_is_no_text_does_not_stop_the_report(result, tmp_path):
    write_page([with_prompts(result, "a beard \udcff")], tmp_path)
    assert "a beard" in (tmp_path / "report.html").read_text("utf-8")


def test_every_number_carries_its_interval_and_n(result):
    text = Outline(make_page([result])).text
    assert "0.40 [0.30, 0.50] n = 8" in text
    assert "not reached (0% of draws) n = 8" in text
    for figure in result.numbers.values():
        assert f"{figure.text(3)}, n = {figure.n}" in text


def test_differences_say_whether_they_are_real(result):
    found = [
        Difference("P@1", "a<b", "other", -0.3, -0.4, -0.2, 8, True),
        Difference("rho@1", "a<b", "other", 0.1, -0.1, 0.3, 8, False),
    ]
    page = make_page([result, result], differences=found)
    assert "<b>P@1: a&lt;b - other = -0.300 [-0.400, -0.200], real, n = 8</b>" in page
    assert "<li>rho@1: a&lt;b - other = +0.100 [-0.100, +0.300], may be chance, n = 8</li>" in page
    assert "Which differences" not in make_page([result])


def test_selftests_remarks_and_what_was_measured_are_told(result):
    text = Outline(make_page([result])).text
    assert "another seed has pollution about 1 (found 0.7; does not hold)" in text
    assert "8 prompts are few" in text
    for fact in (result.adapter_id, result.base_id, "steps: 25", "torch 2.13", "10, 11"):
        assert fact in text


def test_what_went_wrong_comes_first_and_is_counted(result):
    ordered = strips.cases(result)
    wrong = [any(s.faults for s in case.strips) for case in ordered]
    assert wrong == sorted(wrong, reverse=True)
    assert sum(wrong) == 5
    for group in (ordered[:5], ordered[5:]):
        worst = [max(s.pollution for s in case.strips) for case in group]
        assert worst == sorted(worst, reverse=True)
    text = Outline(make_page([result])).text
    assert "4 of 16: the beard is missing" in text
    assert "2 of 16: the beard appears where nobody asked" in text
    assert "4 of 16: hair colour changed" in text
    assert text.index(result.cases[ordered[0].number].prompt) < text.index(
        result.cases[ordered[-1].number].prompt
    )


def test_each_term_leads_to_its_line_in_the_page(result):
    page = make_page([result])
    anchors = set(re.findall(r'<dt id="([\w-]+)"', page))
    links = set(re.findall(r'href="#([\w-]+)"', page))
    assert {"pollution", "response", "base-leakage", "sps", "other-seed-ceiling"} <= anchors
    assert links <= anchors


def test_the_glossary_links_to_what_it_has():
    found = words.glossary()
    for _, meaning in found.values():
        assert set(re.findall(r'href="#([\w-]+)"', meaning)) <= set(found)
        assert "](" not in re.sub(r"\(\w+\.md", "", meaning)


def test_the_chart_holds_the_adapter_against_the_words_alone_and_a_plain_lora(result):
    names = [bar.name for bar in bars.bars([result], "P")]
    assert names == ["beard-ours", "words alone"]
    shipped = bars._shipped()
    known = dataclasses.replace(result, judge="world", base_id=shipped["base_id"])
    plain = bars.bars([known], "P")[-1]
    assert (plain.name, plain.figure.value) == ("a plain LoRA", shipped["attributes"]["beard"]["P"])
    page = make_page([known])
    assert "a plain LoRA" in page
    other = dataclasses.replace(known, attribute="crown")
    assert bars.bars([other], "P")[-1].name == "words alone"


def test_the_shipped_plain_loras_are_those_that_were_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    path = ROOT / "benchmarks" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    shipped = bars._shipped()
    assert reference.reference(shipped["base_id"]) == shipped
    assert len(shipped["attributes"]) == 6


def test_tables_are_folded_and_pictures_are_not(result):
    page = make_page([result])
    assert page.index("Pictures, the worst first") < page.index("Numbers")
    assert page.index("<summary>What was found") < page.index("<table")
    assert page.index('class="headline') < page.index('class="bars"') < page.index("<article")


def test_a_missing_picture_is_said_not_left_out(result, tmp_path):
    own = make_result(tmp_path)
    picture_path(tmp_path, own.at(1.0)[0].pictures["I1"]).unlink()
    page = make_page([own])
    assert page.count("picture missing") >= 1
    assert re.search(r"[1-9]\d* pictures could not be read", page)
    without = make_page([from_json(own.to_json())])
    assert "<img" not in without
    assert "pictures could not be read" in without


def test_the_page_keeps_its_size_and_says_what_it_left_out(result, monkeypatch):
    whole = make_page([result])
    monkeypatch.setattr(strips, "MAX_BYTES", 60_000)
    small = make_page([result])
    assert len(small) < len(whole) - 50_000
    told = re.search(r"(\d) of 8 prompts have no pictures here", small)
    assert small.count('<article class="case">') == 8 - int(told[1])
    assert "went wrong" in small


def test_photographs_shrink_before_any_is_left_out(result, gallery, monkeypatch):
    """Noise is the worst picture there is for WebP."""
    noise = numpy.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=numpy.uint8)
    key = write_content(gallery, Image.fromarray(noise))
    draws = tuple(
        dataclasses.replace(draw, pictures=dict.fromkeys(("I0", "I1"), key))
        for draw in result.at(1.0)
        if draw.seed == 10
    )
    large = dataclasses.replace(result, draws=draws)
    full, _ = strips.draw_strips(large)
    assert 'width="160"' in full
    monkeypatch.setattr(strips, "MAX_BYTES", len(full) // 2)
    small, remarks = strips.draw_strips(large)
    assert 'width="104"' in small
    assert small.count("<article") == 8
    assert not any("left out" in remark or "no pictures" in remark for remark in remarks)
    assert len(small) < len(full) // 2 + 500


def test_difference_and_region_show_what_they_say():
    one = Image.new("RGB", (4, 4), (100, 100, 100))
    other = one.copy()
    other.putpixel((0, 0), (130, 100, 100))
    other.putpixel((1, 0), (255, 255, 255))
    grey = numpy.asarray(strips.difference(one, other))
    assert grey[0, :3].tolist() == [20, 255, 0]
    mask = Image.new("RGB", (4, 4))
    mask.putpixel((2, 2), (255, 255, 255))
    lit = strips.lit(one, mask)
    assert lit.getpixel((2, 2)) == (100, 100, 100)
    assert max(lit.getpixel((0, 0))) < 50


def test_a_run_without_an_adapter_is_a_report_too(gallery):
    own = make_result(gallery)
    alone = dataclasses.replace(
        own,
        adapter="",
        adapter_id="",
        strengths=(0.0,),
        main=0.0,
        draws=tuple(own.at(0.0)),
        numbers={k: f for k, f in own.numbers.items() if k[-2:] == "@0"},
    )
    text = Outline(make_page([alone])).text
    assert "prompt only" in text
    assert " at 0 " not in text


def test_the_verdict_states_response_and_pollution(result):
    assert plain_verdict(result) == (
        "At a response of 0.85 [0.79, 0.91] its pollution is 0.40 [0.34, 0.46]; "
        "the prompt alone moves 0.10 [0.04, 0.16]."
    )
    none = dataclasses.replace(result, numbers={})
    assert "could be measured" in plain_verdict(none)
    assert "could be measured" in make_page([none])


def test_nothing_to_report_is_refused_and_a_page_is_not_overwritten(result, tmp_path):
    with pytest.raises(MeasureError, match="nothing to report"):
        write_page([], tmp_path)
    write_page([result], tmp_path)
    with pytest.raises(OutputError, match="exists"):
        write_page([result], tmp_path)
    write_page([result], tmp_path, overwrite=True)


def test_a_figure_without_an_interval_is_shown_bare(result):
    numbers = dict(result.numbers) | {"P@1": Figure(0.4, None, None, 1)}
    assert "0.40" in make_page([dataclasses.replace(result, numbers=numbers)])
