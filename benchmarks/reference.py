"""Write the figures of plain LoRAs that reports show for comparison: means over training seeds.

python benchmarks/reference.py
"""

import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from common import read_cell

RESULTS = Path(__file__).parent / "results" / "methods"
TARGET = Path(__file__).parents[1] / "spf_lora" / "evaluate" / "report" / "plain_lora.json"
MEASURES = ("rho", "P", "BL", "unasked")


def reference(base_id: str) -> dict[str, Any]:
    """Return attribute -> measure -> mean at strength 1, of every seed that was measured."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for path in sorted(RESULTS.glob("plain-*.json")):
        if not re.fullmatch(r"plain-.+-\d+", path.stem):
            continue
        result = read_cell(path)
        if result["method"] == "plain":
            figures = result["figures"]
            found[result["attribute"]].append({m: figures[f"{m}@1"]["value"] for m in MEASURES})
    return {
        "base_id": base_id,
        "attributes": {
            name: {"seeds": len(rows)} | {m: round(mean(r[m] for r in rows), 4) for m in MEASURES}
            for name, rows in sorted(found.items())
        },
    }


def main() -> None:
    from spf_lora.base.load import load_base

    TARGET.write_text(json.dumps(reference(load_base().id), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
