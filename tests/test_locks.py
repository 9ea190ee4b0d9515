"""A lock is one process's alone, told to others, and free when its process is gone."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from root import ROOT

from spf_lora.errors import LockedError, OutputError
from spf_lora.locks import held_alone, locked

HOLDER = """
import sys
from pathlib import Path
from spf_lora.locks import held_alone
with held_alone(Path(sys.argv[1]), "x"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """Start a process that holds a lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_who_comes_second_is_refused_at_once_and_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / ".hat.lock"
    process = holder(path)
    try:
        told = rf"hat is being written by process {process.pid} on this machine, since \d{{4}}-"
        with pytest.raises(LockedError, match=told), held_alone(path, "hat"):
            pytest.fail("two hold it")
        content = path.read_text()
        path.write_text("{}")  # whatever lies there
        with pytest.raises(LockedError, match="by another process"), held_alone(path, "hat"):
            pytest.fail("two hold it")
        path.write_text(json.dumps(json.loads(content) | {"host": "elsewhere"}))
        with pytest.raises(LockedError, match="on elsewhere, since"), held_alone(path, "hat"):
            pytest.fail("two hold it")
    finally:
        process.communicate("")
    with held_alone(path, "hat"):
        assert path.exists()
    assert not path.exists(), "nothing is left behind"


def test_a_lock_that_a_killed_process_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / ".hat.lock"
    process = holder(path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert path.exists()
    with held_alone(path, "hat"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_an_error_of_the_work_is_told_as_it_is(tmp_path: Path) -> None:
    with (
        pytest.raises(LockedError, match="of the work"),
        held_alone(tmp_path / "a", "hat"),
    ):
        raise LockedError("of the work", hint="x")


def test_a_lock_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="could not be written: Is a directory"),
        held_alone(tmp_path, "hat"),
    ):
        pytest.fail("it cannot be held")


def test_many_who_take_several_locks_never_wait_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    one, two = tmp_path / "a", tmp_path / "link" / "b"
    inside, most = 0, 0

    def work(order: tuple[Path, ...]) -> None:
        nonlocal inside, most
        for _ in range(10):
            with locked(*order):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work, args=(o,)) for o in ((one, two), (two, one), (two,))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "they wait for each other"
    assert most == 1
