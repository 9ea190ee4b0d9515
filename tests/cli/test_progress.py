"""Whoever waits for pictures is told at once how many there are, and soon how long it takes."""

import pytest

from spf_lora.cli import out, progress


@pytest.fixture
def told(monkeypatch):
    """Return what is said, and a clock to be moved on."""
    said, now = [], [0.0]
    monkeypatch.setattr(out, "say", said.append)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return said, now


def test_the_start_and_the_first_pictures_are_told_at_once_with_the_time_left(told):
    said, now = told
    with progress.drawing("beard") as tell:
        tell(0, 208)
        now[0] = 4.0
        tell(32, 208)
        now[0] = 8.0
        tell(64, 208)
        now[0] = 26.0
        tell(200, 208)
        now[0] = 27.0
        tell(208, 208)
    assert said == [
        "beard: 0/208 pictures",
        "beard: 32/208 pictures, 22 s left",
        "beard: 200/208 pictures, 1 s left",
        "beard: 208/208 pictures",
    ]


def test_a_long_time_is_told_in_minutes(told):
    said, now = told
    with progress.drawing("beard") as tell:
        tell(0, 100)
        now[0] = 10.0
        tell(10, 100)
    assert said[-1] == "beard: 10/100 pictures, 1 min 30 s left"


def test_the_time_that_went_before_the_first_picture_does_not_count(told):
    said, now = told
    with progress.drawing("beard") as tell:
        now[0] = 100.0
        tell(0, 20)
        now[0] = 110.0
        tell(10, 20)
    assert said[-1] == "beard: 10/20 pictures, 10 s left"
