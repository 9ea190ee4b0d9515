"""Training killed at any moment: nothing half-written, nothing lost, the same file in the end."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.cli.app import main
from spf_lora.training.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("few_draws", "in_a_clone")
TINY = (
    "--steps",
    "4",
    "--set",
    "data.count=4",
    "--set",
    "data.batch_size=2",
    "--set",
    "training.checkpoint_every_steps=1",
)
HAT, CHECKPOINT = Path("adapters/hat.safetensors"), Path("adapters/.hat.checkpoint.safetensors")


@pytest.fixture
def train(cli, tiny_folder):
    return lambda *words: cli("train", "-a", "hat", "--base", tiny_folder, *TINY, *words)


def written(path):
    """Return what changes when a file is written again, and not when it is read."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def check_files(folder):
    """Read every file that a reader could meet; one being written has a hidden name and .tmp."""
    for path in folder.rglob("*.safetensors"):
        if path.name.endswith(".checkpoint.safetensors"):
            load_checkpoint(path)
        else:
            assert read_adapter(path).modules


def die_before(event):
    """Kill this process right before the `event`-th time that it moves, removes or syncs a file."""
    seen = []

    def watched(function):
        def run(*words, **settings):
            seen.append(function)
            if len(seen) == event:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*words, **settings)

        return run

    os.fsync = watched(os.fsync)
    Path.replace = watched(Path.replace)
    Path.unlink = watched(Path.unlink)


def killed(words, event):
    """Run the command line in a child; tell whether it came to the event that kills it."""
    child = os.fork()
    if child == 0:
        try:
            sys.argv = ["spf-lora", *map(str, words)]
            die_before(event)
            main()
        except SystemExit as done:
            os._exit(int(done.code or 0))
        finally:
            os._exit(99)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


@pytest.mark.slow  # a fork of a process whose torch has several threads can hang
@pytest.mark.skipif(sys.platform != "linux", reason="forks a process with torch in it")
def test_one_command_killed_around_every_write_ends_in_the_undisturbed_file(train, tiny_folder):
    assert train("--out", "whole.safetensors")[0] == 0
    words = ("train", "-a", "hat", "--base", tiny_folder, *TINY, "--resume")
    seen, event = set(), 1
    while killed(words, event):
        check_files(Path("adapters"))
        assert HAT.exists() or not any(done for done, _, _ in seen), "a finished adapter is lost"
        seen.add((HAT.exists(), HAT.with_suffix(".png").exists(), CHECKPOINT.exists()))
        event += 1
    assert seen == {
        (False, False, False),
        (False, False, True),
        (False, True, True),
        (True, True, True),
    }
    assert HAT.read_bytes() == Path("whole.safetensors").read_bytes()
    assert HAT.with_suffix(".png").read_bytes() == Path("whole.png").read_bytes()
    left = sorted(path.name for path in Path("adapters").iterdir())
    assert left == ["hat.png", "hat.safetensors"], "what killed writers left is cleared"


def test_resuming_before_the_first_checkpoint_starts_and_says_so(train):
    code, said, talk = train("--resume")
    assert (code, said.strip()) == (0, str(HAT))
    assert "there is no checkpoint yet" in talk


def test_resuming_what_is_finished_changes_nothing(train):
    assert train()[0] == 0
    before = written(HAT)
    code, said, talk = train("--resume")
    assert (code, said.strip()) == (0, str(HAT))
    assert "hat is finished already" in talk
    assert written(HAT) == before
    code, _, talk = train("--resume", "--seed", "1")
    assert code == 1
    assert "hat.safetensors exists and would be overwritten" in " ".join(talk.split())
    assert written(HAT) == before
    assert train("--resume", "--seed", "1", "--force")[0] == 0
    assert written(HAT) != before


def test_resuming_another_run_or_a_damaged_checkpoint_is_refused_until_started_again(train):
    # as runs left it that had a control map to remember, of stages that are gone
    groups = {"adapter": {"x": torch.zeros(2)}, "align": {"total": torch.zeros(4, 1, 8, 8)}}
    save_checkpoint(CHECKPOINT, groups, {"run_id": "another", "step": 1, "scalars": {}, "stuck": 0})
    code, _, talk = train("--resume")
    assert code == 1
    assert "another recipe, data, base or CLIP" in " ".join(talk.split())
    assert "start again without --resume" in " ".join(talk.split())
    CHECKPOINT.write_bytes(b"no checkpoint")
    code, _, talk = train("--resume")
    assert code == 1
    assert "no checkpoint that can be read" in " ".join(talk.split())
    assert train()[0] == 0
    assert not CHECKPOINT.exists()
