"""Times the registry's commands on 10,000 adapters, whole processes.

    python benchmarks/registry.py [--count 10000] [--out benchmarks/results/registry.json]

Every adapter is a file of its own with 32 modules, a card and full metadata; its matrices are tiny,
for no command here reads them but `verify NAME`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import command_line, cost_of, write_result

from spf_lora.adapters import sd15
from spf_lora.adapters.format.adapter_file import Adapter, Module, write_adapter
from spf_lora.adapters.format.card import Card, file_metadata

START = [sys.executable, "-m", "spf_lora", "adapters"]
COMMANDS = {
    "list": ["list"],
    "list --json": ["list", "--json"],
    "show NAME": ["show", "a1234"],
    "where NAME": ["where", "a1234"],
    "verify NAME": ["verify", "a1234"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), settings.count)
        medians = {
            name: cost_of([*START, *words, "--registry", folder], repeats=settings.repeats).seconds
            for name, words in COMMANDS.items()
        }
    measured = {"median_seconds": {name: round(one, 3) for name, one in medians.items()}}
    run = command_line(adapters=settings.count, repeats=settings.repeats)
    write_result(run, measured, settings.out)


def fill(folder: Path, count: int) -> None:
    names = [one for one in sd15.weight_shapes() if one.endswith(("attn2.to_k", "attn2.to_v"))]
    down, up = np.ones((1, 2), np.float16), np.ones((2, 1), np.float16)
    modules = {name: Module(name, down, up, 1.0) for name in names}
    card = Card("beard", "a beard", "a beard", "sd15:0123", recipe={"learn": {"steps": 300}})
    write_adapter(
        Adapter(modules, file_metadata(card, rank=1, alpha=1.0, title="beard")),
        folder / "a0.safetensors",
    )
    data = (folder / "a0.safetensors").read_bytes()
    for at in range(1, count):
        (folder / f"a{at}.safetensors").write_bytes(data)


if __name__ == "__main__":
    main()
