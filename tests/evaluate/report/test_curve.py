import dataclasses
import re
from xml.etree import ElementTree

import pytest
from made_results import make_result

from spf_lora.evaluate.report.curve import HEIGHT, WIDTH, draw_curve, draw_key, points
from spf_lora.evaluate.result import Figure


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("g")
    names = (("ours", 0.3), ("plain", 0.8))
    return [make_result(folder, name=n, prompts=2, seeds=1, slope=s) for n, s in names]


def lines(svg):
    return {
        line.get("class").split()[1]: [
            tuple(map(float, pair.split(","))) for pair in line.get("points").split()
        ]
        for line in ElementTree.fromstring(svg).iter("polyline")
    }


def test_every_strength_is_a_mark_and_all_lines_leave_the_control(results):
    svg = draw_curve(results)
    drawn = lines(svg)
    assert [len(line) for line in drawn.values()] == [3, 3]
    assert drawn["s0"][0] == drawn["s1"][0]
    tree = ElementTree.fromstring(svg)
    assert sum(e.get("class") == "mark control" for e in tree.iter("polygon")) == 1
    assert sum(e.get("class") == "mark s0" for e in tree.iter("circle")) == 2


def test_more_response_is_right_and_more_pollution_is_up(results):
    drawn = lines(draw_curve(results))
    for line in drawn.values():
        assert [x for x, _ in line] == sorted(x for x, _ in line)
    assert drawn["s1"][2][1] < drawn["s0"][2][1]  # y grows downwards


def test_the_scale_is_linear_and_holds_every_interval(results):
    svg = draw_curve(results)
    labels = re.findall(r'x="44" y="([\d.]+)" text-anchor="end">([\d.]+)<', svg)
    heights = {float(value): float(y) - 4 for y, value in labels}
    per_unit = heights[0.0] - heights[1.0]
    for name, slope in (("s0", 0.3), ("s1", 0.8)):
        for (_, y), strength in zip(lines(svg)[name], (0, 0.5, 1), strict=True):
            assert y == pytest.approx(heights[0.0] - per_unit * (0.1 + slope * strength), abs=0.1)
    for element in ElementTree.fromstring(svg).iter():
        for key, limit in (("x1", WIDTH), ("x2", WIDTH), ("y1", HEIGHT), ("y2", HEIGHT)):
            assert 0 <= float(element.get(key, 0)) <= limit


def test_a_strength_that_could_not_be_measured_is_no_mark(results):
    numbers = dict(results[0].numbers) | {"P@0.5": Figure(None, None, None, 2, 0.0)}
    broken = dataclasses.replace(results[0], numbers=numbers)
    assert [p.strength for p in points(broken)] == [0.0, 1.0]
    assert len(lines(draw_curve([broken]))["s0"]) == 2


def test_whoever_cannot_see_it_is_told_the_numbers(results):
    svg = draw_curve(results)
    text = ElementTree.fromstring(svg).find("desc").text
    assert "plain: control: response 0.25" in text
    assert "strength 1: response 0.85 [0.79, 0.91], pollution 0.90" in text


def test_series_differ_in_shape_as_well_as_colour():
    shapes = {re.sub(r"\bs\d\b", "", draw_key(number)) for number in range(6)}
    assert len(shapes) == 6
