"""Time a training as a user runs it.

`python benchmarks/train.py [--attribute beard] [--set KEY=VALUE ...] [--out result.json]`

`first` and `again` are whole `spf-lora train` processes, imports, pictures and preview included,
with an empty cache and then with the one just filled. What the adapter does, `methods.py` measures.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import command_line, cost_of, write_result

from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe, recipe_hash


def train(attribute: str, changes: Sequence[str], folder: Path, name: str) -> dict[str, Any]:
    """Run `spf-lora train` with the folder's cache and return what it cost."""
    options = [word for change in changes for word in ("--set", change)]
    out = folder / f"{name}.safetensors"
    cost = cost_of(
        [sys.executable, "-m", "spf_lora", "train", "-a", attribute, "-o", str(out), *options],
        env=os.environ | {"SPF_LORA_CACHE": str(folder / "cache")},
    )
    return asdict(cost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--attribute", default="beard")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    recipe = load_recipe(find_recipe(args.attribute), args.changes)
    with tempfile.TemporaryDirectory() as folder:
        measured = {
            name: train(args.attribute, args.changes, Path(folder), name)
            for name in ("first", "again")
        }
    what = f"spf-lora train --attribute {args.attribute}"
    write_result(command_line(what=what, recipe=recipe_hash(recipe)), measured, args.out)


if __name__ == "__main__":
    main()
