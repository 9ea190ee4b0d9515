"""A long command says at once what it does, goes on saying so, and how long each part took."""

import io
import re
import time
from contextlib import suppress

import pytest
from rich.console import Console

from spf_lora.cli import out, phases
from spf_lora.cli.phases import showing_phases


@pytest.fixture
def impatient(monkeypatch):
    """Say lines ten times as often as users get them."""
    monkeypatch.setattr(phases, "_LINE_EVERY", 0.25)
    monkeypatch.setattr(phases, "_TICK", 0.02)


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that remembers what was written to it."""
    seen = io.StringIO()
    console = Console(file=seen, force_terminal=True, width=120)
    monkeypatch.setattr(out, "_talk", console)
    return seen


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_nobody_waits_three_seconds_for_a_line():
    assert phases._LINE_EVERY + 2 * phases._TICK <= 3


def test_a_phase_is_named_at_once_and_its_seconds_when_it_ends(capsys):
    with showing_phases() as show:
        show("load the base")
        assert lines(capsys) == ["load the base ..."]
        show("learn", 0, 10)
        assert lines(capsys) == ["load the base: done in 0 s", "learn ..."]
    assert lines(capsys) == ["learn: done in 0 s"]
    assert list(show.seconds) == ["load the base", "learn"]


def test_a_phase_that_tells_nothing_is_heard_of_all_the_same(capsys, impatient):
    with showing_phases() as show:
        show("load the base")
        said, began = lines(capsys), time.monotonic()
        while len(said) < 3 and time.monotonic() - began < 20:
            time.sleep(0.05)
            said += lines(capsys)
    assert len(said) >= 3
    assert all(re.fullmatch(r"load the base, \d s", one) for one in said[1:])


def test_a_phase_that_tells_much_is_heard_of_as_often_as_one_that_does_not(capsys, impatient):
    with showing_phases() as show:
        began = time.monotonic()
        while time.monotonic() - began < 0.6:
            show("learn", 30, 100, "loss 0.5000")
            time.sleep(0.001)
        spent, said = time.monotonic() - began, lines(capsys)
    assert 2 <= len(said) <= 2 + spent / 0.25
    assert re.fullmatch(r"learn 30/100, \d s, \d s left, loss 0.5000", said[-1])


def test_the_time_left_follows_from_what_is_done():
    assert phases._line("learn", 25, 100, "", 10.0) == "learn 25/100, 10 s, 30 s left"
    assert phases._line("learn", 0, 100, "", 10.0) == "learn 0/100, 10 s"
    assert phases._line("learn", 100, 100, "", 10.0) == "learn 100/100, 10 s"


def test_a_phase_that_comes_again_adds_to_its_seconds(capsys):
    with showing_phases() as show:
        for name in ("read", "draw", "read"):
            show(name)
            time.sleep(0.02)
    assert show.seconds["read"] >= 0.04
    assert lines(capsys).count("read ...") == 2


def test_what_failed_is_not_said_to_be_done_and_is_not_heard_of_any_more(capsys, impatient):
    with suppress(RuntimeError), showing_phases() as show:
        show("load the base")
        raise RuntimeError
    time.sleep(0.6)
    assert lines(capsys) == ["load the base ..."]
    with showing_phases() as show:
        show("learn")
        show.drop()
        time.sleep(0.6)
        show("read")
    assert lines(capsys) == ["learn ...", "read ...", "read: done in 0 s"]


def test_of_several_processes_the_others_are_silent(capsys):
    with showing_phases(first=False) as show:
        show("learn", 1, 2)
        show("distil")
        show.drop()
    assert lines(capsys) == []


def test_a_terminal_shows_a_row_with_a_bar_for_each_phase(terminal):
    with showing_phases() as show:
        show("load the base")
        show("learn", 1, 4, "loss 0.5000")
        show("learn", 2, 4, "loss 0.4000")
        show("draw [the] preview")
    seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert all(name in seen for name in ("load the base", "learn", "draw [the] preview"))
    assert "2/4" in seen
    assert "━" in seen
    assert "✓" in seen
    assert "..." not in seen


def test_a_terminal_keeps_the_row_of_what_was_stopped_without_calling_it_done(terminal):
    with showing_phases() as show:
        show("learn", 1, 4)
        show.drop()
    seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "1/4" in seen
    assert "✓" not in seen
