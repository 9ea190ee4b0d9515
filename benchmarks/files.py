"""Times the file commands on a 150 MB adapter against safetensors' own load and save.

    python benchmarks/files.py [--repeats 5] [--out benchmarks/results/files-0.1.0.json]

Every figure is a median of fresh processes, wall clock, start of Python included unless it says
otherwise. The plain copy is `load_file` and `save_file` of the same file in the same run, both in
one process like `convert`; `ratio` compares the work alone, imports left out.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import command_line, cost_of, write_result

from spf_lora.adapters import sd15
from spf_lora.adapters.format.adapter_file import Adapter, Module, write_adapter

PLAIN_COPY = """
import sys, time
from safetensors.numpy import load_file, save_file
began = time.perf_counter()
save_file(load_file(sys.argv[1]), sys.argv[2])
print(time.perf_counter() - began)
"""
# the same bytes, flushed to the disk as ours are
SYNCED_COPY = """
import os, sys, time
from safetensors.numpy import load_file, save_file
began = time.perf_counter()
save_file(load_file(sys.argv[1]), sys.argv[2])
descriptor = os.open(sys.argv[2], os.O_RDONLY)
os.fsync(descriptor)
print(time.perf_counter() - began)
"""
CONVERT = """
import re, sys, time
from pathlib import Path
from spf_lora.adapters.format.rewrite import convert
began = time.perf_counter()
convert(Path(sys.argv[1]), Path(sys.argv[2]), layout=sys.argv[3], dtype=None, overwrite=True)
print(time.perf_counter() - began)
status = Path("/proc/self/status")
if status.exists():
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) / 1000)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), settings.repeats)
    write_result(command_line(repeats=settings.repeats), result, settings.out)


def measure(folder: Path, repeats: int) -> dict[str, object]:
    big, copy = folder / "big.safetensors", folder / "copy.safetensors"
    write_adapter(big_adapter(), big)
    size = big.stat().st_size / 1e6
    rounds: dict[str, list[float]] = {}
    memory: list[float] = []

    def note(name: str, seconds: float) -> None:
        rounds.setdefault(name, []).append(seconds)

    for _ in range(repeats):
        note("help", command("--help"))
        note("inspect", command("inspect", str(big)))
        note("inspect --json", command("inspect", str(big), "--json"))
        note("inspect --full", command("inspect", str(big), "--full"))
        note("verify", command("verify", str(big)))
        note("plain copy", inside(PLAIN_COPY, big, copy)[0])
        note("plain copy, flushed", inside(SYNCED_COPY, big, copy)[0])
        for layout in ("kohya", "diffusers"):
            seconds, *peak = inside(CONVERT, big, copy, layout)
            note(f"convert to {layout}", seconds)
            memory += peak
    medians = {name: round(statistics.median(found), 4) for name, found in rounds.items()}
    plain, flushed = medians["plain copy"], medians["plain copy, flushed"]
    converts = [name for name in medians if name.startswith("convert")]
    return {
        "file_mb": round(size, 1),
        "median_seconds": medians,
        "ratio_to_plain_copy": {name: round(medians[name] / plain, 2) for name in converts},
        "ratio_to_flushed_copy": {name: round(medians[name] / flushed, 2) for name in converts},
        "convert_peak_mb": round(max(memory), 1) if memory else None,
        "convert_limit_mb": round(size + 100, 1),
    }


def big_adapter() -> Adapter:
    """The whole kohya set at rank 128: 150 MB in fp16."""
    rng = np.random.default_rng(0)
    modules = {}
    for name in sd15.kohya_modules():
        out, into, *taps = sd15.weight_shapes()[name]
        down = rng.normal(scale=0.02, size=(128, into, *taps)).astype(np.float16)
        up = rng.normal(scale=0.02, size=(out, 128, *(1 for _ in taps))).astype(np.float16)
        modules[name] = Module(name, down, up, 64.0)
    return Adapter(modules)


def command(*arguments: str) -> float:
    """Seconds of one command in a fresh process; a refusal counts as well."""
    return cost_of([sys.executable, "-m", "spf_lora", *arguments], check=False).seconds


def inside(script: str, *arguments: object) -> list[float]:
    """The numbers that a script prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
    )
    return [float(line) for line in done.stdout.split()]


if __name__ == "__main__":
    main()
