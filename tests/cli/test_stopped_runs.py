"""Training disturbed from outside: stopped, met by a second one, out of room; nothing is lost."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from root import ROOT

from spf_lora.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("few_draws", "in_a_clone")
HAT = Path("adapters/hat.safetensors")
SMALL = (
    "--steps",
    "4",
    "--set",
    "data.count=4",
    "--set",
    "data.batch_size=2",
    "--set",
    "distil.steps=0",
    "--set",
    "data.vocabulary=none",
)


@pytest.fixture
def train(cli, tiny_folder):
    return lambda *words: cli("train", "-a", "hat", "--base", tiny_folder, *SMALL, *words)


@pytest.fixture
def whole(train):
    """Return the bytes of an undisturbed run."""
    assert train("--out", "whole.safetensors")[0] == 0
    return Path("whole.safetensors").read_bytes()


@pytest.fixture
def at_step(monkeypatch):
    """Return a context: something happens in the midst of a training's step."""

    def patched(number, do):
        check = Trainer._check_norm

        def disturbed(self, norm, index):
            if index == number - 1:
                do()
            check(self, norm, index)

        context = pytest.MonkeyPatch()
        context.setattr(Trainer, "_check_norm", disturbed)
        return context

    made = []
    yield lambda number, do: made.append(patched(number, do))
    for context in made:
        context.undo()


def left_behind():
    return sorted(str(p) for p in Path("adapters").iterdir())


def test_a_run_stopped_by_a_signal_resumes_to_the_same_file(train, whole, at_step):
    at_step(3, lambda: signal.raise_signal(signal.SIGTERM))  # tests/test_signals.py: all are alike
    code, _, talk = train()
    assert code == 128 + signal.SIGTERM
    assert "stopped after step 3" in talk, "the step it was in is finished"
    assert left_behind() == ["adapters/.hat.checkpoint.safetensors"]
    code, _, talk = train("--resume")
    assert (code, "resuming after step 3" in talk) == (0, True)
    assert HAT.read_bytes() == whole


def test_two_who_write_the_same_file_lose_nothing(train, whole, at_step):
    told, other = [], b"made by a command that knows of no training"

    words = ("train", "-a", "hat", "--steps", "4")

    def disturb():
        second = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "spf_lora", *words],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        told.append((second.returncode, " ".join(second.stderr.split())))
        HAT.write_bytes(other)

    at_step(3, disturb)
    code, _, talk = train()
    ((second, said),) = told
    assert second == 1
    assert f"{HAT} is being written by process {os.getpid()} on this machine, since" in said
    assert "| torch " not in said, "it is refused before anything is loaded"
    assert code == 1
    assert f"{HAT} exists and would be overwritten" in " ".join(talk.split())
    assert "with --resume what is trained already is kept" in " ".join(talk.split())
    assert HAT.read_bytes() == other
    code, _, talk = train("--resume", "--force")
    assert (code, "resuming after step 4" in talk) == (0, True)
    assert HAT.read_bytes() == whole
    assert left_behind() == ["adapters/hat.png", "adapters/hat.safetensors"]


def test_a_full_disk_tells_of_resume(train, at_step, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    at_step(3, lambda: monkeypatch.setattr(os, "fsync", full))
    code, _, talk = train()
    assert code == 1
    told = "free some disk space, then run the same command again; with --resume"
    assert told in " ".join(talk.split())
