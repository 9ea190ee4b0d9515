"""A disk of 2 MB under every command that writes: one sentence, nothing half-written or lost."""

import subprocess
import sys

import pytest
from full_disk import WRITERS
from root import ROOT
from slow_tier import SEED

pytestmark = pytest.mark.slow
SCRIPT = ROOT / "tests" / "reliability" / "full_disk.py"
ENTER = ("unshare", "-rm", "sh", "-c")
MOUNT = 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"'


def mountable(folder):
    """Tell whether this system lets a user mount a disk of his own."""
    try:
        return subprocess.run([*ENTER, MOUNT, folder, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_ends_in_a_sentence_and_leaves_what_was_there(name, tmp_path, record_property):
    disk, cache = tmp_path / "disk", tmp_path / "cache"
    disk.mkdir()
    cache.mkdir()
    if not mountable(disk):
        pytest.skip("no disk can be mounted here (unshare -rm)")
    done = subprocess.run(
        [*ENTER, MOUNT, disk, sys.executable, SCRIPT, disk, name, str(SEED), cache],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    record_property("told", f"full disk: {name}: seed {SEED}, met {done.stdout.strip()} times")
    assert int(done.stdout) > 0, "it never met a full disk"
