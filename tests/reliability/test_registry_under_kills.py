"""Four processes change one registry while they are killed again and again: nothing is lost."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from made_adapters import KEYS_AND_VALUES
from registry_worker import STOP, replayed
from root import ROOT
from slow_tier import SEED, seconds

from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.registry import names
from spf_lora.registry.stack import adapters_of, find_stack, stack_names

pytestmark = pytest.mark.slow
WORKERS, SHARE = 4, 0.12
SCRIPT = ROOT / "tests" / "reliability" / "registry_worker.py"


@pytest.fixture
def sources(tmp_path, make_adapter):
    folder = tmp_path / "sources"
    folder.mkdir()
    for seed in range(4):
        card = Card("beard", "a beard", "a beard", "base:1", recipe={"seed": seed})
        metadata = file_metadata(card, rank=4, alpha=2.0, title="beard")
        adapter = make_adapter(KEYS_AND_VALUES, seed=seed, metadata=metadata)
        write_adapter(adapter, folder / f"{seed}.safetensors")
    return folder


def start(shelf, sources, logs, worker, seed):
    with (logs / f"{worker}.talk").open("a") as talk:
        words = [SCRIPT, shelf, sources, logs / f"{worker}.log", worker, seed]
        return subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=shelf.parent,
            stdout=talk,
            stderr=talk,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )


def test_four_processes_that_are_killed_lose_nothing(shelf, sources, tmp_path, record_property):
    logs = tmp_path / "logs"
    logs.mkdir()
    chance, kills = random.Random(SEED), 0
    running = {n: start(shelf, sources, logs, n, SEED) for n in range(WORKERS)}
    end = time.monotonic() + max(10, seconds(SHARE))
    while time.monotonic() < end:
        time.sleep(chance.uniform(0.2, 1.5))
        worker = chance.randrange(WORKERS)
        assert running[worker].poll() is None, (logs / f"{worker}.talk").read_text()
        running[worker].kill()
        assert running[worker].wait() == -signal.SIGKILL
        kills += 1
        running[worker] = start(shelf, sources, logs, worker, SEED + kills)
    (shelf / STOP).touch()
    for worker, process in running.items():
        assert process.wait(120) == 0, (logs / f"{worker}.talk").read_text()

    known = {path.read_bytes() for path in sources.glob("*.safetensors")}
    there = {entry.name for entry in names.entries(shelf) if entry.place.label == "--registry"}
    trashed = {path.stem for path in (shelf / ".trash").glob("*/*.safetensors")}
    for name in there:
        assert (shelf / f"{name}.safetensors").read_bytes() in known
    count = 0
    for worker in range(WORKERS):
        lines = (logs / f"{worker}.log").read_text().splitlines()
        count += sum(line[0] in "!-" for line in lines)
        have, gone, doing = replayed(lines)
        assert doing is None
        assert have <= there, f"adapters of worker {worker} are lost"
        assert not gone & there
        removed = {line.split()[2] for line in lines if line.startswith("! remove")}
        assert removed <= trashed
    stacks = [find_stack(name, shelf) for name, _ in stack_names(shelf)]
    for stack in stacks:
        adapters_of(stack, shelf)  # raises where one that it needs is gone or another
    told = f"registry: seed {SEED}, {kills} kills, {count} changes, {len(stacks)} stacks left whole"
    record_property("told", told)
    assert kills >= 5
