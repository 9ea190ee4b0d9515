"""Train an attribute with its recipe as a user would, and measure what the adapter does.

`python benchmarks/train.py --attribute beard [--set KEY=VALUE ...] [--out result.json]`

Held-out prompts: unbiased people, exhaustive captions, other seeds than training's. The probe
counts how often the attribute shows: base model asked and not asked, adapter at strength 1 asked
and not asked. `moved` is the share of the other choices that the adapter changed against the base
on the same prompt and noise (hidden ones left out). Seconds and peak memory are of the whole
`spf-lora train` process, imports and pictures included.
"""

import argparse
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Cost, command_line, cost_of, write_result

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.card import from_metadata
from spf_lora.base.load import EMBEDDED, load_base
from spf_lora.base.towers import load_probe
from spf_lora.data.worlds.portraits import ATTRIBUTES, FACTORS, caption, unbiased
from spf_lora.draw.act import draw
from spf_lora.draw.sample import GUIDANCE, STEPS
from spf_lora.draw.weights import attached
from spf_lora.training.encoders import picture_tensor


def train(attribute: str, changes: list[str], out: Path) -> Cost:
    """Run `spf-lora train` and return what it cost."""
    options = [word for change in changes for word in ("--set", change)]
    words = ["train", "-a", attribute, "-o", str(out), *options]
    return cost_of([sys.executable, "-m", "spf_lora", *words])


def measure(attribute: str, file: Path, count: int) -> dict[str, Any]:
    """Draw and classify; every share is over `count` pictures."""
    base, probe = load_base(), load_probe(EMBEDDED / "probe")
    adapter = read_adapter(file)
    rng = random.Random(f"response {attribute}")
    people = [unbiased(rng) for _ in range(count)]
    seeds = list(range(50_000, 50_000 + count))
    plain = [caption(p) for p in people]
    full = [caption(p, (attribute,)) for p in people]

    def classes(prompts: list[str]) -> dict[str, np.ndarray]:
        pictures = draw(base, prompts, seeds)
        with torch.no_grad():
            logits = probe(torch.stack([picture_tensor(p, base.resolution) for p in pictures]))
        return {name: row.argmax(1).numpy() for name, row in logits.items()}

    found = {"base_unasked": classes(plain), "base_asked": classes(full)}
    with attached(base.unet, [(adapter, 1.0)]):
        found |= {"adapter_unasked": classes(plain), "adapter_asked": classes(full)}
    spec = ATTRIBUTES[attribute]
    judged = [f for f in FACTORS if f not in spec.hides and f != spec.replaces]
    shares = {name: round(float(rows[attribute].mean()), 4) for name, rows in found.items()}
    moved = {
        name: round(
            float(np.mean([(rows[f] != found["base_unasked"][f]).mean() for f in judged])), 4
        )
        for name, rows in found.items()
    }
    return {
        "n": count,
        "shown": shares,
        "moved": moved,
        "judged": judged,
        "base_id": base.id,
        "ddim_steps": STEPS,
        "guidance": GUIDANCE,
    }


def main() -> None:
    """Train, measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attribute", default="beard")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "adapter.safetensors"
        cost = train(arguments.attribute, arguments.changes, file)
        card = from_metadata(read_adapter(file).metadata)
        assert card is not None
        run = command_line(
            what=f"spf-lora train --attribute {arguments.attribute}", recipe=card.recipe
        )
        measured = asdict(cost) | measure(arguments.attribute, file, arguments.count)
    write_result(run, measured, arguments.out)


if __name__ == "__main__":
    main()
