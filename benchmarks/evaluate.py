"""Time an evaluation as a user runs it, and what drawing costs beyond the U-Net's own forwards.

`python benchmarks/evaluate.py [--adapter FILE] [--attribute beard] [--full] [--out result.json]`

`first` and `again` are whole `spf-lora evaluate` processes, imports included, with an empty picture
cache and then with the one just filled. `overhead` is the time of drawing and keeping pictures over
the time of the U-Net's forwards alone, on the same batches, measured in turns; processor seconds
count, since other work may share the machine. Without `--adapter` random factors stand in: time
does not depend on what they are.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spf_lora.adapters.attach import PRESETS
from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.adapters.module import Adapter, Module
from spf_lora.base.load import Base, load_base
from spf_lora.draw.act import NOTHING
from spf_lora.draw.sample import BATCH, Sampling
from spf_lora.evaluate.paint import painter
from spf_lora.evaluate.plan import PicturePlan
from spf_lora.evaluate.protocol import held_out_cases

TOOLS = ("torch", "diffusers", "transformers", "numpy")


def random_adapter(base: Base, folder: Path) -> Path:
    """Write rank-8 random factors on all attention layers."""
    rng = np.random.default_rng(0)
    modules = {}
    for path, layer in base.unet.named_modules():
        if path.endswith(PRESETS["attention"]):
            out, width = layer.weight.shape
            down, up = (0.02 * rng.normal(size=s) for s in ((8, width), (out, 8)))
            name = f"unet.{path}"
            modules[name] = Module(name, down.astype("float32"), up.astype("float32"), 8.0)
    file = folder / "random.safetensors"
    write_adapter(Adapter(modules, {}), file)
    return file


def command(file: Path, attribute: str, folder: Path, *, full: bool) -> dict[str, Any]:
    """Run `spf-lora evaluate`; return wall and processor seconds and peak memory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run(
        [
            sys.executable, "-m", "spf_lora", "evaluate", str(file), "-a", attribute, "--force",
            "-o", str(folder / "report"), *([] if full else ["--quick"]),
        ],
        check=True, stdout=subprocess.DEVNULL, env=os.environ | {"SPF_LORA_CACHE": str(folder)},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads((folder / "report" / "report.json").read_text("utf-8"))
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "processor_seconds": round(after.ru_utime - before.ru_utime, 1),
        "peak_mib": round(after.ru_maxrss / 1024),
        "pictures_drawn": report["pictures_drawn"],
        "report_kb": round((folder / "report" / "report.html").stat().st_size / 1000),
    }


@torch.no_grad()
def unet_seconds(base: Base, steps: int) -> float:
    """Return processor seconds of the U-Net's forwards for one batch, both halves of guidance."""
    side, width = base.unet.config.sample_size, base.unet.config.cross_attention_dim
    latents = torch.randn(2 * BATCH, base.unet.config.in_channels, side, side)
    states = torch.randn(2 * BATCH, 77, width)
    begun = time.process_time()
    for step in range(steps):
        base.unet(latents, torch.tensor(step), states, return_dict=False)
    return time.process_time() - begun


def overhead(base: Base, steps: int, rounds: int) -> dict[str, Any]:
    """Return the median ratio of drawing a batch to its U-Net forwards."""
    ratios = []
    wanted = PicturePlan(held_out_cases("beard", prompts=BATCH, seeds=1), (0.0,)).wanted()
    asked = list(dict.fromkeys(wanted))[:BATCH]
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            brush = painter(base, NOTHING, folder=Path(folder), sampling=Sampling(steps=steps))
            bare = unet_seconds(base, steps)
            begun = time.process_time()
            assert brush.draw(asked) == BATCH
            drawn = time.process_time() - begun
        ratios.append(drawn / (0.5 * bare + 0.5 * unet_seconds(base, steps)))
    return {
        "ratio": round(statistics.median(ratios), 3), "rounds": [round(r, 3) for r in ratios],
        "batch": BATCH, "ddim_steps": steps,
    }  # fmt: skip


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--attribute", default="beard")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    base = load_base("embedded", device=torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = arguments.adapter or random_adapter(base, folder)
        drawing = overhead(base, 25, arguments.rounds)
        first, again = (
            command(file, arguments.attribute, folder, full=arguments.full) for _ in range(2)
        )
    result = {
        "what": "spf-lora evaluate" + ("" if arguments.full else " --quick"),
        "first": first, "again": again, "overhead": drawing,
        "machine": {
            "cores": os.cpu_count(), "cpu": platform.machine(), "threads": torch.get_num_threads(),
            "load_average": round(os.getloadavg()[0], 1),
        },
        "versions": {tool: version(tool) for tool in TOOLS},
    }  # fmt: skip
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
