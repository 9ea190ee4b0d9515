"""What every benchmark shares: where it ran, what a process cost, and how a result is written.

A result is one JSON object of three parts, which docs/benchmarks.md explains: `run` says what was
started, `measure` what was found, `environment` where. It is never edited, only added to.
"""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

TOOLS = ("spf-lora", "torch", "diffusers", "transformers", "peft", "numpy", "safetensors")
_DRAWS = 2000  # of a bootstrap


@dataclass(frozen=True)
class Cost:
    """What whole processes cost, start of Python included.

    Attributes:
        seconds: median wall clock.
        processor_seconds: median processor time, which does not grow with what else is running.
        peak_mib: largest resident set of any of them.
    """

    seconds: float
    processor_seconds: float
    peak_mib: float


def cost_of(
    command: Sequence[str], *, repeats: int = 1, check: bool = True, **options: Any
) -> Cost:
    """Run a command several times, its output thrown away, and return what it costs.

    Args:
        command: program and words.
        repeats: how often.
        check: whether a refusal ends the benchmark.
        options: of `subprocess.Popen`.
    """
    seconds, processor, peak = [], [], 0
    for _ in range(repeats):
        began = time.perf_counter()
        child = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=None if check else subprocess.DEVNULL,
            **options,
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds.append(time.perf_counter() - began)
        processor.append(usage.ru_utime + usage.ru_stime)
        if status and check:
            raise SystemExit(f"this failed: {' '.join(command[:6])}")
        peak = max(peak, usage.ru_maxrss)
    medians = (round(statistics.median(one), 4) for one in (seconds, processor))
    return Cost(*medians, round(peak / 1024, 1))


def peak_mib() -> int | None:
    """Return the most memory that this process has had; Linux alone says so."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) // 1024 if found else None


def environment(**more: Any) -> dict[str, Any]:
    """Return where a benchmark runs: machine, load, threads, and versions of what is installed."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch = sys.modules.get("torch")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": found[1] if found else "unknown",
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "torch_threads": torch.get_num_threads() if torch else None,
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in TOOLS},
        **more,
    }


def write_result(
    run: Mapping[str, Any], measure: Mapping[str, Any], out: Path | None, **where: Any
) -> None:
    """Print a result, and write it if a file is named, beside it and then renamed.

    Args:
        run: what was started: the command's words, settings, numbers of repeats.
        measure: what was found.
        out: the file, or None.
        where: more of the environment, such as a GPU's name.
    """
    parts = _parts(run, measure, environment(**where))
    print(json.dumps(parts, indent=2))
    if out:
        _write(out, parts, indent=2)


def write_cell(
    path: Path, run: Mapping[str, Any], measure: Mapping[str, Any], where: Mapping[str, Any]
) -> None:
    """Write one of many results that a table is made of; nothing is printed."""
    _write(path, _parts(run, measure, where), indent=1)


def read_cell(path: Path) -> dict[str, Any]:
    """Return a cell's run and measure as one table; one of the first version is one already."""
    parts = json.loads(path.read_text("utf-8"))
    return {**parts["run"], **parts["measure"]} if "run" in parts else dict(parts)


def _parts(
    run: Mapping[str, Any], measure: Mapping[str, Any], where: Mapping[str, Any]
) -> dict[str, Any]:
    return {"run": dict(run), "measure": dict(measure), "environment": dict(where)}


def _write(out: Path, parts: Mapping[str, Any], *, indent: int) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_suffix(".part")
    beside.write_text(json.dumps(parts, indent=indent) + "\n", encoding="utf-8")
    beside.replace(out)


def command_line(**settings: Any) -> dict[str, Any]:
    """Return how this benchmark was started, for `run`."""
    return {"command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]), **settings}


def attribute_recipe(name: str, target_text: str, replaced: Sequence[str], tables: str = "") -> str:
    """Return a recipe for the embedded base that says no more of an attribute than it must.

    Args:
        name: of the attribute.
        target_text: what asks for it.
        replaced: phrases that it takes the place of.
        tables: more TOML.
    """
    return (
        f'profile = "embedded"\n[attribute]\nname = "{name}"\n'
        f'target_text = "{target_text}"\nreplaces = {json.dumps(list(replaced))}\n{tables}'
    )


def mean_interval(rows: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the 95 % interval of the mean over rows; each row's values are drawn again."""
    rng = np.random.default_rng(0)
    means = [row[rng.integers(len(row), size=(_DRAWS, len(row)))].mean(axis=1) for row in rows]
    low, high = np.quantile(np.mean(means, axis=0), (0.025, 0.975))
    return float(low), float(high)
