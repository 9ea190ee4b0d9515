"""How much memory a piece of code takes at most, measured in a process of its own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from root import ROOT

STATUS = Path("/proc/self/status")

_SETUP = """
import re, sys

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
"""


def peaks(setup: str, measured: str, words: Sequence[object]) -> list[float]:
    """Run `measured` for each word, which it finds as `word`; return the MB that each added.

    Each runs in a child of the process that ran `setup`, so none sees what another one left.
    """
    code = f"""{_SETUP}{setup}
import os
for word in sys.argv[1:]:
    read, write = os.pipe()
    if os.fork() == 0:
        open("/proc/self/clear_refs", "w").write("5")
        before = peak()
        {measured}
        os.write(write, str(peak() - before).encode())
        os._exit(0)
    os.close(write)
    print(os.read(read, 100).decode(), flush=True)
    assert os.wait()[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.splitlines()]
