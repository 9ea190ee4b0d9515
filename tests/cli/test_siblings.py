"""Processes that `train` starts beside itself: when, what they share, and how all of them end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from root import ROOT
from safetensors.torch import load_file

from spf_lora.base import load
from spf_lora.cli import siblings
from spf_lora.cli.siblings import most_processes, team
from spf_lora.errors import TrainingError
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe

SIBLING = (sys.executable, str(Path(__file__).with_name("sibling.py")))
HASTY = (sys.executable, str(ROOT / "tests" / "hasty.py"), "train", "-a", "hat")


def recipe(*changes):
    return load_recipe(find_recipe("beard"), changes)


@pytest.fixture
def four_cores(monkeypatch):
    """A machine with four cores and no GPU, and nobody who says how many to take."""
    for name in ("OMP_NUM_THREADS", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    monkeypatch.setattr(load, "default_device", lambda: torch.device("cpu"))


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ((), 4),
        (("data.batch_size=6",), 3),
        (("data.batch_size=8", "data.passes=4"), 2),
        (("data.batch_size=7",), 1),
        (('training.base="owner/of-a-large-one"',), 1),
    ],
)
def test_as_many_share_a_small_bases_batch_as_divide_it(four_cores, changes, count):
    assert most_processes([recipe(*changes)]) == count


def test_all_recipes_of_a_run_must_allow_it(four_cores):
    assert most_processes([recipe(), recipe("data.batch_size=6")]) == 2


@pytest.mark.parametrize(("name", "value"), [("OMP_NUM_THREADS", "1"), ("WORLD_SIZE", "1")])
def test_the_environment_can_ask_for_one_process(four_cores, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert most_processes([recipe()]) == 1


@pytest.mark.parametrize(
    ("words", "argv", "again"),
    [
        (["train", "-a", "hat"], "sys.argv", True),
        (["train", "-a", "hat"], "['spf-lora', 'train', '-a', 'beard']", False),
        (["all.py"], "['spf-lora', 'train', '-a', 'hat']", False),
    ],
)
def test_only_a_command_that_is_a_process_of_its_own_can_be_started_again(words, argv, again):
    code = f"import sys; sys.argv = {argv}; from spf_lora.cli.siblings import own_command as own"
    whole = [sys.executable, "-c", f"{code}; print(own())", *words]
    done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tuple(whole) if again else ())


def test_parent_and_siblings_hold_the_mean_and_a_killed_one_is_told(four_cores):
    with team(SIBLING, [recipe("data.batch_size=6", "data.passes=3")]) as join:
        both = join()
        assert (both.rank, both.count, both.whole(6)) == (0, 2, 6)
        assert both.mean(6.0) == (6 + 1) / 2
        with pytest.raises(TrainingError, match="was killed by signal 9") as refused:
            both.mean(0.0)
    assert "--resume" in refused.value.hint


def test_where_no_sibling_comes_the_training_goes_on_alone(four_cores, capsys):
    with team((sys.executable, "-c", "pass"), [recipe()]) as join:
        assert join().count == 1
    assert "training in one process: no other could" in capsys.readouterr().err


def test_a_sibling_ends_with_its_parent_whatever_it_does():
    env = os.environ | {"PYTHONPATH": str(ROOT), "RANK": "1", "_SPF_LORA_PROCESSES": "2"}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([*SIBLING, "busy"], env=env, **pipes) as busy:
        busy.stdin.close()  # as the system closes it when the parent dies
        assert busy.wait(timeout=60) == 1
        assert busy.stdout.read() + busy.stderr.read() == b""


@pytest.fixture
def words(tiny_folder, tmp_path, monkeypatch):
    """A hasty training in two processes, as a command."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    for name, value in {"PYTHONPATH": path, "OMP_NUM_THREADS": "2"}.items():
        monkeypatch.setenv(name, value)
    if siblings._cores() < 2:
        pytest.skip("one core")
    few = ("data.count=8", "data.batch_size=4", "data.vocabulary=none")
    changes = [word for change in few for word in ("--set", change)]
    hat = tmp_path / "hat.safetensors"
    return [*HASTY, "--base", str(tiny_folder), "--steps", "8", *changes, "--out", str(hat)]


def run(words, *more, **env):
    return subprocess.run(
        [*words, *map(str, more)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_siblings_learn_what_launched_processes_do_with_a_divided_batch(words, tmp_path):
    two = tmp_path / "hat.safetensors"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *words[1:]]
    more = ("--set", "data.batch_size=2", "--out", tmp_path / "launched.safetensors")
    done = [run(words), run(launcher, *more, OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="true")]
    for one in done:
        assert one.returncode == 0, one.stderr
        assert one.stdout.count("safetensors") == 1
        assert one.stderr.count("in 2 processes") == 1
    learned, launched = load_file(two), load_file(more[-1])
    assert all(torch.equal(learned[name], launched[name]) for name in learned | launched)
    first = two.read_bytes()
    assert run(words, "--force").returncode == 0
    assert two.read_bytes() == first
    one = run(words, "--force", OMP_NUM_THREADS="1")
    assert "processes" not in one.stderr
    for name, exact in load_file(two).items():
        # a gradient of next to nothing is rounded up or down: 2 threads instead of 1 make 0.003
        assert (learned[name] - exact).norm() < 0.02 * exact.norm()


MANY = ("--steps", "60", "--set", "training.checkpoint_every_steps=1")


@pytest.fixture
def started(words):
    """Start a longer training; return it and its sibling when it is in a phase."""
    made = []

    def start(phase):
        parent = subprocess.Popen([*words, *MANY], stderr=subprocess.PIPE, text=True)
        made.append(parent)
        while f"{phase} ..." not in (line := parent.stderr.readline()):
            assert line, "it ended before"
        found = subprocess.run(
            ["pgrep", "-P", str(parent.pid)], capture_output=True, text=True, check=True
        )
        return parent, int(found.stdout)

    yield start
    for parent in made:
        with parent:
            parent.kill()


def wait_for_end(number):
    """Return when a process has ended, whether or not anyone has asked how."""
    words, state = ["ps", "-o", "stat=", "-p", str(number)], b"R"
    while state and not state.startswith(b"Z"):
        state = subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout


@pytest.mark.slow
def test_a_killed_sibling_ends_the_training_which_one_process_can_go_on_with(started, words):
    parent, sibling = started("learn")
    os.kill(sibling, signal.SIGKILL)
    _, talk = parent.communicate()
    assert parent.returncode == 1
    assert "Traceback" not in talk
    assert "error: one of the 2 processes that share the training was killed by signal 9" in talk
    assert "hint: the same command with --resume" in talk
    again = run([*words, *MANY], "--resume", OMP_NUM_THREADS="1")
    assert (again.returncode, "resuming after step" in again.stderr) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["read pictures", "learn", "draw pairs to learn from"])
def test_siblings_end_with_a_killed_parent(started, phase):
    parent, sibling = started(phase)
    parent.kill()
    wait_for_end(sibling)


@pytest.mark.slow
def test_a_stopped_training_in_two_processes_goes_on_to_the_same_file(started, words, tmp_path):
    parent, sibling = started("learn")
    parent.terminate()
    _, talk = parent.communicate()
    assert parent.returncode == 128 + signal.SIGTERM
    assert "--resume goes on" in talk
    wait_for_end(sibling)
    again = run([*words, *MANY], "--resume")
    assert (again.returncode, "resuming after step" in again.stderr) == (0, True)
    stopped = (tmp_path / "hat.safetensors").read_bytes()
    assert run([*words, *MANY], "--force").returncode == 0
    assert (tmp_path / "hat.safetensors").read_bytes() == stopped


@pytest.mark.slow
def test_after_an_attribute_that_fails_one_process_goes_on_alone(words, cli, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("glasses", "beard", "hat"):
        export = ("portraits", "export", data / name, "--attribute", name)
        assert cli(*export, "--count", "4")[0] == 0
    min((data / "beard").glob("*.txt")).unlink()
    more = ("-a", "glasses,beard,hat", "--data", data, "--out", tmp_path)
    done = run(words, *more)
    assert done.returncode == 1
    assert "1 of 3 attributes are not trained: beard" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("training ")]
    assert [line.endswith(", in 2 processes") for line in lines] == [True, False]
    assert [Path(line).stem for line in done.stdout.splitlines()] == ["glasses", "hat"]
