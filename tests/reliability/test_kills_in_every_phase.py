"""Forty kills over all phases of a training on the embedded base: the same file, byte for byte."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from root import ROOT
from slow_tier import SEED, part_of

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
LANES, KILLS, LEAST = 2, 40, 3  # kills in all, and in each phase
START = "start"
WORDS = (
    *("--attribute", "beard", "--steps", "6", "--resume", "--set", "data.count=8"),
    *("--set", "data.batch_size=2", "--set", "distil.pairs=16", "--set", "distil.sampler_steps=4"),
    *("--set", "training.checkpoint_every_steps=1"),
)


def start(folder):
    """Start the command in its own process, with a cache of its own that is cold at first."""
    (folder / "adapters").mkdir(parents=True, exist_ok=True)
    told = os.environ | {"SPF_LORA_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    with (folder / "talk").open("w") as talk:
        return subprocess.Popen(
            [sys.executable, "-m", "spf_lora", "train", *WORDS],
            cwd=folder,
            env=told | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=talk,
        )


def phases_told(folder):
    """Return the phases that a run has told so far: "learn ..."."""
    lines = (folder / "talk").read_text().splitlines()
    return [START, *(line.removesuffix(" ...") for line in lines if line.endswith(" ..."))]


def finish(run, folder):
    """Wait for a run; return the bytes of the adapter and the picture."""
    assert run.wait(600) == 0, (folder / "talk").read_text()
    return [(folder / "adapters" / f"beard.{end}").read_bytes() for end in ("safetensors", "png")]


def undisturbed(folder):
    """Return what a whole run writes, and the seconds that each of its phases takes."""
    run, begun, seen = start(folder), time.monotonic(), {}
    while run.poll() is None:
        for phase in phases_told(folder):
            seen.setdefault(phase, time.monotonic() - begun)
        time.sleep(0.02)
    starts = [*seen.values(), time.monotonic() - begun]
    spent = dict(zip(seen, (b - a for a, b in pairwise(starts)), strict=True))
    return finish(run, folder), spent


def check_files(folder):
    """Read every file that a reader could meet; one being written has a hidden name and .tmp."""
    for path in folder.rglob("*.safetensors"):
        if path.name.endswith(".checkpoint.safetensors"):
            load_checkpoint(path)
        else:
            assert read_adapter(path).modules


def killed_over_and_over(folder, moments, whole):
    """Kill runs at moments of their phases; return the phases, and what lay there after each."""
    seen = []
    finished = False  # an adapter is there
    while moments:
        phase, delay = moments[-1]
        run = start(folder)
        while run.poll() is None and phase not in phases_told(folder):
            time.sleep(0.02)
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
            seen.append((phase, found))
            continue
        assert finish(run, folder) == whole
        moments[-1] = phase, 0.9 * delay  # it ended before: another one from the start
        shutil.rmtree(folder / "adapters")
        finished = False
    assert finish(start(folder), folder) == whole
    left = sorted(path.name for path in (folder / "adapters").iterdir())
    assert left == ["beard.png", "beard.safetensors"]
    return seen


def shares(spent):
    """Return how often a run is killed in each phase: a few times, the long ones oftener."""
    wanted = part_of(KILLS, least=len(spent))
    least = min(LEAST, wanted // len(spent))
    left, whole = wanted - least * len(spent), sum(spent.values())
    counts = {phase: least + int(left * seconds / whole) for phase, seconds in spent.items()}
    longest = max(spent, key=spent.__getitem__)
    counts[longest] += wanted - sum(counts.values())
    return counts


def test_forty_kills_over_all_phases_change_nothing(tmp_path, record_property):
    whole, spent = undisturbed(tmp_path / "whole")
    assert {"learn", "distil"} <= spent.keys(), spent
    counts, chance = shares(spent), random.Random(SEED)
    moments = [
        (phase, spent[phase] * chance.random())
        for phase, count in counts.items()
        for _ in range(count)
    ]
    chance.shuffle(moments)
    with ThreadPoolExecutor(LANES) as pool:
        lanes = [
            pool.submit(killed_over_and_over, tmp_path / f"lane {n}", moments[n::LANES], whole)
            for n in range(LANES)
        ]
    seen = [one for lane in lanes for one in lane.result()]
    assert Counter(phase for phase, _ in seen) == counts
    between = [found for _, found in seen if ".beard.checkpoint.safetensors" in found]
    told = ", ".join(f"{count} in {phase!r}" for phase, count in counts.items())
    record_property(
        "told",
        f"kills: seed {SEED}, {len(seen)}: {told}; {len(between)} times a checkpoint was left",
    )
    assert len(between) > len(seen) // 4, "most kills came before there was anything to lose"
