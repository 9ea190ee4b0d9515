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
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import command_line, cost_of, write_result

from spf_lora.adapters.attach import PRESETS
from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.adapters.module import Adapter, Module
from spf_lora.base.load import Base, load_base
from spf_lora.draw.act import NOTHING
from spf_lora.draw.sample import BATCH, Sampling
from spf_lora.evaluate.draw_missing import painter
from spf_lora.evaluate.plan import PicturePlan
from spf_lora.evaluate.protocol import held_out_cases


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
    """Run `spf-lora evaluate`; return what it cost and made."""
    words = [str(file), "-a", attribute, "--force", "-o", str(folder / "report")]
    cost = cost_of(
        [sys.executable, "-m", "spf_lora", "evaluate", *words, *([] if full else ["--quick"])],
        env=os.environ | {"SPF_LORA_CACHE": str(folder)},
    )
    report = json.loads((folder / "report" / "report.json").read_text("utf-8"))
    return {
        **asdict(cost),
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
        "ratio": round(statistics.median(ratios), 3),
        "rounds": [round(r, 3) for r in ratios],
        "batch": BATCH,
        "ddim_steps": steps,
    }


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
    run = command_line(what="spf-lora evaluate" + ("" if arguments.full else " --quick"))
    write_result(run, {"first": first, "again": again, "overhead": drawing}, arguments.out)


if __name__ == "__main__":
    main()
