"""The three signals that ask a process to end do it alike, and the second one at once."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from root import ROOT

BETWEEN_STEPS = """
import sys, time
from pathlib import Path
from spf_lora.signals import Stopped, asked_to_end, ending_politely
try:
    with ending_politely(), asked_to_end() as asked:
        print("ready", flush=True)
        while not asked():
            time.sleep(0.01)
        Path(sys.argv[1]).write_text("saved")
        if sys.argv[2:]:
            time.sleep(60)  # saving takes long
        print("to a terminal that may be gone", flush=True)
        raise Stopped(asked())
except Stopped as stopped:
    sys.exit(stopped.exit_code)
"""
IN_A_STEP = """
import sys, time
from spf_lora.signals import Stopped, ending_politely
try:
    with ending_politely():
        print("ready", flush=True)
        time.sleep(60)
except Stopped as stopped:
    sys.exit(stopped.exit_code)
"""
ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def _as_from_a_terminal() -> None:
    """What runs in the background starts with SIGINT ignored, and its children inherit that."""
    for number in ALL:
        signal.signal(number, signal.SIG_DFL)


def started(code: str, *words: object, **how: object) -> subprocess.Popen[str]:
    how.setdefault("preexec_fn", _as_from_a_terminal)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **how,
    )  # type: ignore[call-overload]
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", ALL)
def test_each_is_asked_for_between_two_steps(tmp_path: Path, number: int) -> None:
    process = started(BETWEEN_STEPS, tmp_path / "state")
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert (tmp_path / "state").read_text() == "saved"
    assert "once more stops at once" in process.stderr.read()


@pytest.mark.parametrize("number", ALL)
def test_each_ends_what_has_no_steps(number: int) -> None:
    process = started(IN_A_STEP)
    process.send_signal(number)
    assert process.wait(20) == 128 + number


@pytest.mark.parametrize("number", ALL)
def test_the_second_one_stops_at_once(tmp_path: Path, number: int) -> None:
    process = started(BETWEEN_STEPS, tmp_path / "state", "long")
    process.send_signal(number)
    while not (tmp_path / "state").exists():
        time.sleep(0.01)
    if number != signal.SIGINT:
        process.send_signal(number)  # a launcher's echo of the first counts as the same
        time.sleep(1.1)
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait(20) == -number


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    process = started(
        BETWEEN_STEPS,
        tmp_path / "state",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM


def test_a_closed_terminal_saves_and_ends_in_no_error(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        _as_from_a_terminal()
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", BETWEEN_STEPS, str(tmp_path / "state")])
    said = b""
    while b"ready" not in said:
        assert select.select([terminal], [], [], 20)[0], said
        said += os.read(terminal, 1000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGHUP
    assert (tmp_path / "state").read_text() == "saved"
