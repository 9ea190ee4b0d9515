"""A folder of submissions becomes a page; what cannot be trusted is left out by name."""

import re
from dataclasses import replace

import pytest
from root import ROOT

from spf_lora.evaluate.result import Figure
from spf_lora.publish import submission
from spf_lora.publish.submission import Submission


@pytest.fixture
def board(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import leaderboard

    return leaderboard


def made(name, sps, attribute="beard", digit="a"):
    figures = {one: Figure(0.5, 0.4, 0.6, 40) for one in submission.FIGURES}
    figures["sps"] = Figure(sps, sps, sps, 40) if sps is not None else Figure(None, None, None, 40)
    return Submission(
        protocol=1,
        attribute=attribute,
        adapter=name,
        adapter_id=digit * 64,
        base_id=submission.BASE,
        judge=submission.JUDGE,
        prompts=submission.PROMPTS[attribute],
        sampler=dict(submission.SAMPLER),
        strengths=submission.STRENGTHS,
        figures=figures,
        checks={"same picture": name != "odd"},
        versions={},
    )


def put(folder, *submissions):
    for index, one in enumerate(submissions):
        (folder / f"{index}.json").write_text(one.to_json(), "utf-8")


def test_the_least_pollution_comes_first_and_what_is_not_reached_last(board, tmp_path):
    rows = [("never", None, "b"), ("second", 0.4, "c"), ("first", 0.2, "d")]
    put(tmp_path, *(made(name, sps, digit=digit) for name, sps, digit in rows))
    assert board.main([str(tmp_path), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    places = [page.index(name) for name in (">first<", ">second<", ">never<")]
    assert places == sorted(places)
    assert "not reached" in page
    assert "Left out" not in page


def test_each_attribute_has_its_own_table_and_a_failed_check_is_told(board, tmp_path):
    put(tmp_path, made("one", 0.2), made("odd", 0.3, "hat"))
    page = board.page(*board.read_all(tmp_path))
    assert re.findall(r"<h2>([\w-]+)</h2>", page) == ["beard", "hat"]
    assert page.count("check failed: same picture") == 1


def test_a_changed_file_is_named_and_the_others_are_shown(board, tmp_path, capsys):
    put(tmp_path, made("honest", 0.2))
    text = made("better", 0.3, digit="e").to_json().replace('"value":0.3', '"value":0.01')
    (tmp_path / "better.json").write_text(text, "utf-8")
    assert board.main([str(tmp_path), "--out", str(tmp_path / "page.html")]) == 1
    assert "better.json is left out: it was changed after it was written" in capsys.readouterr().err
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "honest" in page
    assert ">better<" not in page
    assert "better.json is left out" in page


def test_one_report_that_came_twice_is_one_row(board, tmp_path):
    put(tmp_path, made("one", 0.2), replace(made("one", 0.2), adapter="two"), made("one", 0.25))
    submissions, _ = board.read_all(tmp_path)
    assert [one.figures["sps"].value for one in submissions] == [0.2, 0.25]


def test_a_strangers_name_is_no_markup(board, tmp_path):
    put(tmp_path, made("<script>alert(1)</script>" + "x" * 999, 0.2))
    page = board.page(*board.read_all(tmp_path))
    assert "<script" not in page
    assert "x" * 100 not in page
