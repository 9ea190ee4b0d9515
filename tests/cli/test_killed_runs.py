"""Training killed at any moment: nothing half-written, nothing lost, the same file in the end."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from root import ROOT

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
    assert "another recipe, data or base" in " ".join(talk.split())
    assert "start again without --resume" in " ".join(talk.split())
    CHECKPOINT.write_bytes(b"no checkpoint")
    code, _, talk = train("--resume")
    assert code == 1
    assert "no checkpoint that can be read" in " ".join(talk.split())
    assert train()[0] == 0
    assert not CHECKPOINT.exists()


LANES = 2
SHARES = {"start": 10, "train": 16, "write": 14}  # of the forty kills
# what a run says when a part of it begins: starting, training with saving, drawing with writing
PARTS = {"start": "", "train": "training beard", "write": r"draw the preview"}
EMBEDDED = (
    "--attribute",
    "beard",
    "--steps",
    "6",
    "--set",
    "data.count=8",
    "--set",
    "data.batch_size=2",
    "--set",
    "distil.pairs=16",
    "--set",
    "distil.sampler_steps=4",
    "--set",
    "training.checkpoint_every_steps=1",
    "--resume",
)


def start(folder):
    """Start the command in its own process, with a cache of its own that is cold at first."""
    (folder / "adapters").mkdir(parents=True, exist_ok=True)
    told = os.environ | {"SPF_LORA_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    told["PYTHONPATH"] = str(ROOT)
    with (folder / "talk").open("w") as talk:
        return subprocess.Popen(
            [sys.executable, "-m", "spf_lora", "train", *EMBEDDED],
            cwd=folder,
            env=told,
            stdout=subprocess.DEVNULL,
            stderr=talk,
        )


def finish(run, folder):
    """Wait for a run; return the bytes of the adapter and the picture."""
    assert run.wait(300) == 0, (folder / "talk").read_text()
    return [(folder / "adapters" / f"beard.{end}").read_bytes() for end in ("safetensors", "png")]


def until(run, folder, part):
    """Wait until a run comes to a part of it, or ends; return the seconds."""
    begun = time.monotonic()
    while run.poll() is None and not re.search(PARTS[part], (folder / "talk").read_text()):
        time.sleep(0.02)
    return time.monotonic() - begun


def undisturbed(folder):
    """Return what a whole run writes, and the seconds that each part of it takes."""
    run = start(folder)
    seconds = {"start": until(run, folder, "train"), "train": until(run, folder, "write")}
    begun = time.monotonic()
    whole = finish(run, folder)
    return whole, seconds | {"write": time.monotonic() - begun}


def killed_over_and_over(folder, moments, whole):
    """Kill runs at moments of their parts; return the parts, and what lay there after each."""
    seen = []
    finished = False  # an adapter is there
    while moments:
        part, delay = moments[-1]
        run = start(folder)
        until(run, folder, part)
        try:
            run.wait(delay)
        except subprocess.TimeoutExpired:
            run.kill()
        if run.wait() == -signal.SIGKILL:
            moments.pop()
            found = {path.name for path in (folder / "adapters").iterdir()}
            check_files(folder / "adapters")
            assert "beard.safetensors" in found or not finished, "a finished adapter is lost"
            finished = "beard.safetensors" in found
            seen.append((part, found))
            continue
        assert finish(run, folder) == whole
        moments[-1] = part, 0.9 * delay  # it ended before: another one from the start
        shutil.rmtree(folder / "adapters")
        finished = False
    assert finish(start(folder), folder) == whole
    left = sorted(path.name for path in (folder / "adapters").iterdir())
    assert left == ["beard.png", "beard.safetensors"]
    return seen


@pytest.mark.slow
def test_forty_kills_of_a_run_on_the_embedded_base_change_nothing(tmp_path):
    whole, seconds = undisturbed(tmp_path / "whole")
    chance = random.Random(7)
    moments = [
        (part, seconds[part] * chance.random())
        for part, share in SHARES.items()
        for _ in range(share)
    ]
    chance.shuffle(moments)
    with ThreadPoolExecutor(LANES) as pool:
        lanes = [
            pool.submit(killed_over_and_over, tmp_path / f"lane {n}", moments[n::LANES], whole)
            for n in range(LANES)
        ]
    seen = [one for lane in lanes for one in lane.result()]
    assert Counter(part for part, _ in seen) == SHARES
    between = [found for _, found in seen if ".beard.checkpoint.safetensors" in found]
    assert len(between) > len(seen) // 4, "most kills came before there was anything to lose"
