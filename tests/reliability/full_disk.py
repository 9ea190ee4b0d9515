"""Runs a command that writes on a disk of 2 MB that fills up; started by the test of full disks.

    python full_disk.py DISK NAME SEED CACHE

A command first runs on the empty disk, to see that it works and what it needs; then with less room
than that, where it must end in one sentence and leave all as it was.
"""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "adapters" / "demo"
BEARD, HAT = DEMO / "beard.safetensors", DEMO / "hat.safetensors"
# name -> commands that prepare the disk, and the one that writes; @ is the disk, + a space
WRITERS = {
    "convert": ([], f"convert {BEARD} @/x.safetensors --to diffusers"),
    "convert to a folder": ([], f"convert {BEARD} @/x --to peft"),
    "resize": ([], f"resize {BEARD} @/x.safetensors --rank 2"),
    "merge": ([], f"merge {BEARD} {HAT} --out @/x.safetensors"),
    "metadata": (
        [f"convert {BEARD} @/x.safetensors --to kohya"],
        "metadata @/x.safetensors --strip",
    ),
    "overwrite": (
        [f"resize {BEARD} @/x.safetensors --rank 2"],
        f"convert {HAT} @/x.safetensors --to kohya --force",
    ),
    "card": ([], f"card {BEARD} --license mit --out @/card"),
    "adapters add": ([], f"adapters add {BEARD} --name x --registry @"),
    "stack create": (
        [f"adapters add {BEARD} --name x --registry @"],
        "stack create s x --registry @",
    ),
    "stack add": (
        [
            f"adapters add {BEARD} --name x --registry @",
            f"adapters add {HAT} --name y --registry @",
            "stack create s x --registry @",
        ],
        "stack add s y --registry @",
    ),
    "stack export": (
        [f"adapters add {BEARD} --name x --registry @", "stack create s x --registry @"],
        "stack export s --registry @ --out @/s.safetensors",
    ),
    "stack export --each": (
        [f"adapters add {BEARD} --name x --registry @", "stack create s x --registry @"],
        "stack export s --registry @ --each @/each",
    ),
    "recipe new": ([], "recipe new crown --target a+crown --out @/crown.toml"),
    "portraits export": ([], "portraits export @/photos --attribute beard --count 12"),
    "generate": ([], "generate a+portrait --steps 1 --count 8 --out @/grid.png"),
    "train": (
        [],
        "train -a beard --steps 2 --set data.count=4 --set data.batch_size=2 --set "
        "distil.steps=0 --set data.vocabulary=none --set adapter.rank=1 --out @/beard.safetensors "
        "--resume",
    ),
}
FRACTIONS = {"train": 2, "generate": 2}  # how many times they are tried; the others five
FILLER = ".filler"


def run(words, disk, cache):
    """Run a command line; return its exit code and what it said."""
    told = os.environ | {
        "PYTHONPATH": str(ROOT),
        "SPF_LORA_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
    }
    arguments = [one.replace("@", str(disk)).replace("+", " ") for one in words.split()]
    done = subprocess.run(
        [sys.executable, "-m", "spf_lora", *arguments],
        env=told,
        cwd=cache,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, " ".join(done.stderr.split())


def content(disk):
    """Return what a user finds: all but lock files, which are empty, and folders."""
    return {
        path.relative_to(disk).as_posix(): path.read_bytes()
        for path in disk.rglob("*")
        if path.is_file() and path.name not in (".lock", FILLER)
    }


def emptied(disk, prepare, cache):
    """Empty the disk and lay down what the command needs."""
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for words in prepare:
        code, said = run(words, disk, cache)
        assert code == 0, f"{words}: {said}"


def free(disk):
    status = os.statvfs(disk)
    return status.f_bavail * status.f_frsize


def fill(disk, room):
    """Take all but `room` bytes."""
    with (disk / FILLER).open("wb") as filler:
        filler.write(bytes(max(0, free(disk) - room)))


def check(name, disk, cache, rng):
    """Try one writer; return how many times it met a full disk."""
    prepare, words = WRITERS[name]
    emptied(disk, prepare, cache)
    before, room = content(disk), free(disk)
    code, said = run(words, disk, cache)
    assert code == 0, f"{name} on an empty disk: {said}"
    whole = content(disk)
    needs = max(room - free(disk), sum(map(len, whole.values())) - sum(map(len, before.values())))
    needs = max(needs, 4096)
    met = 0
    for _ in range(FRACTIONS.get(name, 5)):
        emptied(disk, prepare, cache)
        before = content(disk)
        fill(disk, int(rng.choice((0, rng.random(), 0.95)) * needs))
        code, said = run(words, disk, cache)
        after = content(disk)
        (disk / FILLER).unlink()
        if code == 0:  # it needed less than it took
            assert after == whole, f"{name}: it says done, but is not: {said}"
            continue
        met += 1
        assert code == 1, f"{name} ended with {code}: {said}"
        assert "No space left on device" in said, f"{name}: {said}"
        assert "Traceback" not in said, said
        assert "hint:" in said, said
        kept = {
            key: data for key, data in after.items() if not key.endswith(".checkpoint.safetensors")
        }
        assert kept == before, f"{name} left {sorted(kept.keys() ^ before.keys())}: {said}"
        if name == "train":
            assert "--resume" in said, said
            code, said = run(words, disk, cache)
            assert code == 0, f"{name} after room was made: {said}"
            assert content(disk) == whole, "a run that met a full disk ends in another file"
    return met


if __name__ == "__main__":
    place, named, seed = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    print(check(named, place, Path(sys.argv[4]), random.Random(f"{seed} {named}")))
