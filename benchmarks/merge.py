"""Times `spf-lora merge` against a dense SVD merge of our own writing, whole processes.

    python benchmarks/merge.py [--repeats 3] [--skip-dense] [--skip-fifty]
                               [--sd-scripts FOLDER] [--out benchmarks/results/merge.json]

The dense merge does what the SVD merge scripts do: build each module's full matrix in torch, full
SVD, cut. It clamps nothing, so its error is the optimum but for float32. Errors are measured on the
files written, against the exact weighted sum in float64. Random factors are the worst case for a
smaller rank: every direction counts the same.

With a checkout of kohya-ss/sd-scripts, its merge and its SVD merge run on the same files, once
each, at their defaults (computing in float, saved in fp16); what they import must be on PYTHONPATH.
Their start alone, without a merge, is timed too, so that it can be taken off.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from common import Cost, command_line, cost_of, write_result

from spf_lora.adapters import sd15
from spf_lora.adapters.factors import decompose
from spf_lora.adapters.format.adapter_file import Adapter, Module, open_adapter, write_adapter

WEIGHTS = (1.0, 0.8)
DENSE_NAME, THEIR_SVD = "dense reference, rank 16", "sd-scripts svd_merge_lora, rank 16"
DENSE = """
import sys
import torch
from safetensors.torch import load_file, save_file
first, second, target, rank = *sys.argv[1:4], int(sys.argv[4])
files, merged = [(load_file(first), 1.0), (load_file(second), 0.8)], {}
for key in files[0][0]:
    if not key.endswith("lora_down.weight"):
        continue
    name = key.removesuffix(".lora_down.weight")
    delta = 0
    for tensors, weight in files:
        down, up = tensors[key].float(), tensors[name + ".lora_up.weight"].float()
        scale = weight * tensors[name + ".alpha"].float() / down.shape[0]
        delta = delta + scale * up.flatten(1) @ down.flatten(1)
    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    taps = down.shape[2:]
    merged[name + ".lora_down.weight"] = right[:rank].reshape(rank, -1, *taps).half().contiguous()
    cut = (left[:, :rank] * values[:rank]).reshape(-1, rank, *(1 for _ in taps))
    merged[name + ".lora_up.weight"] = cut.half().contiguous()
    merged[name + ".alpha"] = torch.tensor(float(rank))
save_file(merged, target)
"""


@dataclass(frozen=True)
class Run:
    """One merge.

    Attributes:
        cost: of whole processes.
        relative_error: of the file written against the exact sum, or None if not measured.
    """

    cost: Cost
    relative_error: float | None = None

    def as_row(self) -> dict[str, float | None]:
        """Return it as a result states it."""
        return {**asdict(self.cost), "relative_error": self.relative_error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-dense", action="store_true", help="leave out the slow reference")
    parser.add_argument("--skip-fifty", action="store_true", help="leave out fifty adapters")
    parser.add_argument("--sd-scripts", type=Path, metavar="FOLDER", help="a checkout of it")
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), settings)
    write_result(command_line(repeats=settings.repeats), result, settings.out)


def measure(folder: Path, settings: argparse.Namespace) -> dict[str, object]:
    repeats, dense = settings.repeats, not settings.skip_dense
    pair = [write(folder / f"pair{seed}.safetensors", seed, 16) for seed in (0, 1)]
    target = folder / "out.safetensors"
    weights = ",".join(map(str, WEIGHTS))

    def ours(*words: str) -> Run:
        run = whole(
            spf_lora(*map(str, pair), "--weights", weights, "-o", str(target), *words), repeats
        )
        return replace(run, relative_error=relative_error(pair, WEIGHTS, target))

    two = {
        "concat": ours("--force"),
        "svd --rank 16": ours("--method", "svd", "--rank", "16", "--force"),
        "svd --rank 16 --plan": whole(
            spf_lora(*map(str, pair), "--method", "svd", "--rank", "16", "--plan"), repeats
        ),
    }
    if dense:
        command = [sys.executable, "-c", DENSE, *map(str, pair), str(target), "16"]
        run = whole(command, 1)
        error = relative_error(pair, WEIGHTS, target)
        two[DENSE_NAME] = replace(run, relative_error=error)
    if settings.sd_scripts:
        two |= sd_scripts(settings.sd_scripts.resolve(), pair, folder)
    found: dict[str, object] = {
        "two adapters, rank 16, 192 + 72 modules": {key: one.as_row() for key, one in two.items()},
    }
    if not settings.skip_fifty:
        many = [write(folder / f"many{seed}.safetensors", seed, 32) for seed in range(50)]
        words = ("--method", "svd", "--rank", "64", "--force", "-o", str(target))
        found["fifty adapters, rank 32 to 64"] = whole(
            spf_lora(*map(str, many), *words), 1
        ).as_row()
    found["times faster, svd to rank 16"] = {
        f"than {name}": _times(two[name].cost, two["svd --rank 16"].cost)
        for name in (DENSE_NAME, THEIR_SVD)
        if name in two
    }
    return found


def _times(theirs: Cost, ours: Cost) -> dict[str, float]:
    return {
        "wall clock": round(theirs.seconds / ours.seconds, 1),
        "processor time": round(theirs.processor_seconds / ours.processor_seconds, 1),
    }


def sd_scripts(checkout: Path, pair: list[Path], folder: Path) -> dict[str, Run]:
    """Run sd-scripts' own merges on the same files; see the module's docstring."""
    models = [
        "--models",
        *map(str, pair),
        "--ratios",
        *map(str, WEIGHTS),
        "--save_precision",
        "fp16",
    ]
    rows = {
        "sd-scripts merge_lora": ("merge_lora.py", []),
        "sd-scripts merge_lora --concat": ("merge_lora.py", ["--concat"]),
        THEIR_SVD: ("svd_merge_lora.py", ["--new_rank", "16", "--new_conv_rank", "16"]),
    }
    found = {
        "sd-scripts, start alone": whole(
            [sys.executable, str(checkout / "networks" / "svd_merge_lora.py"), "--help"], 1
        )
    }
    for at, (name, (script, words)) in enumerate(rows.items()):
        target = folder / f"theirs{at}.safetensors"
        program = [sys.executable, str(checkout / "networks" / script)]
        words = [*models, *words, "--save_precision", "fp16", "--save_to", str(target)]
        run = whole([*program, *words], 1)
        found[name] = replace(run, relative_error=relative_error(pair, WEIGHTS, target))
    return found


def write(path: Path, seed: int, rank: int) -> Path:
    rng = np.random.default_rng(seed)
    modules = {}
    for name in sd15.kohya_modules():
        out, into, *taps = sd15.weight_shapes()[name]
        down = rng.normal(scale=0.02, size=(rank, into, *taps)).astype(np.float16)
        up = rng.normal(scale=0.02, size=(out, rank, *(1 for _ in taps))).astype(np.float16)
        modules[name] = Module(name, down, up, rank / 2)
    write_adapter(Adapter(modules), path)
    return path


def relative_error(paths: Sequence[Path], weights: Sequence[float], merged: Path) -> float:
    """|exact sum - merged| / |exact sum| from the stacked factors of all files, in float64."""
    error = norm = 0.0
    with open_adapter(paths[0]) as a, open_adapter(paths[1]) as b, open_adapter(merged) as c:
        for name in a.specs:
            terms = [(a.load(name), weights[0]), (b.load(name), weights[1]), (c.load(name), -1.0)]
            ups = [
                one.up.reshape(-1, one.rank).astype(np.float64) * one.scale * weight
                for one, weight in terms
            ]
            downs = [one.down.reshape(one.rank, -1).astype(np.float64) for one, _ in terms]
            norm += np.sum(decompose(np.hstack(ups[:2]), np.vstack(downs[:2])).values ** 2)
            error += np.sum(decompose(np.hstack(ups), np.vstack(downs)).values ** 2)
    return float((error / norm) ** 0.5)


def spf_lora(*words: str) -> list[str]:
    return [sys.executable, "-m", "spf_lora", "merge", *words]


def whole(command: list[str], repeats: int) -> Run:
    return Run(cost_of(command, repeats=repeats))


if __name__ == "__main__":
    main()
