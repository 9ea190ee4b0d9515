"""A dry run says how long each phase takes: it follows from what the phase does."""

import pytest

from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.training import duration
from spf_lora.training.duration import estimate_seconds

SMALL = ("learn.steps=10", "distil.steps=20", "distil.pairs=8", "distil.sampler_steps=10")


@pytest.fixture
def seconds(tiny_folder, monkeypatch):
    """Estimates for a tiny base, on a machine whose speed is known."""
    monkeypatch.setattr(duration, "_seconds_a_flop", lambda *how: 1e-9)

    def estimate(*changes, pictures=4):
        base = f"training.base={tiny_folder}"
        return estimate_seconds(load_recipe(find_recipe("hat"), [base, *SMALL, *changes]), pictures)

    return estimate


def test_every_phase_of_a_training_has_its_time(seconds):
    phases = [
        *("load the base", "read pictures", "draw the base's own pictures", "complete captions"),
        *("read the words", "encode pictures", "learn", "draw pairs to learn from"),
        *("show the pictures to CLIP", "choose pairs that show it", "distil"),
        *("draw the preview", "write"),
    ]
    found = seconds()
    assert list(found) == phases
    assert min(found.values()) > 0
    assert list(seconds("training.method=dop", "data.vocabulary=none"))[2:5] == [
        "read the words",
        "encode pictures",
        "dop",
    ]
    assert "read the words" not in seconds("adapter.text_encoder=true")
    none = "data.vocabulary=none"
    assert "draw the base's own pictures" not in seconds(none)
    assert "draw the base's own pictures" in seconds(none, "training.method=prior-preservation")
    assert "distil" not in seconds("distil.steps=0")


@pytest.mark.parametrize(
    ("change", "phase", "times"),
    [
        ("learn.steps=20", "learn", 2),
        ("data.batch_size=16", "distil", 2),
        ("distil.pairs=24", "draw pairs to learn from", 3),
        ("distil.sampler_steps=20", "draw pairs to learn from", 2),
        ("attribute.scope=global", "draw pairs to learn from", 4 / 9),
        ("training.gradient_checkpointing=true", "learn", 1.4),
    ],
)
def test_what_a_setting_doubles_takes_twice_as_long(seconds, change, phase, times):
    before, after = seconds(), seconds(change)
    assert after[phase] == pytest.approx(times * before[phase])


def test_more_pictures_take_longer_to_prepare_and_not_to_learn(seconds):
    few, many = seconds(), seconds(pictures=40)
    assert many["encode pictures"] == pytest.approx(10 * few["encode pictures"])
    assert many["learn"] == few["learn"]


def test_the_machine_is_timed_by_a_block_of_the_real_model(tiny_folder):
    unet, _ = duration.base_configs(str(tiny_folder))
    assert 1e-13 < duration._seconds_a_flop(unet, 8, "fp32") < 1e-5
