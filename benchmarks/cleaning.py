"""Clean LoRAs that were not trained for it, and measure each before and after.

`python benchmarks/cleaning.py [--loras plain-16 ...] [--attributes beard ...] [--trained DIR]`

A plain LoRA of rank 16 is cleaned on six attributes, the other kinds on a beard alone. What is
cleaned is a file without a card, as people download them. One JSON per cell in
`benchmarks/results/cleaning/`; a cell that is there is not run again, so a stopped run goes on
where it was. `--table` only prints the table of what is there, `--page docs/cleaning.md` writes it
between the page's markers.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from common import command_line, peak_mib, write_result
from methods import ATTRIBUTES, METHODS, STRENGTHS, figures_of, train_once
from methods_table import read_cells, replace_tables

from spf_lora.adapters.combine import combined
from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.adapters.module import Adapter
from spf_lora.base.load import load_base
from spf_lora.cli.any_lora import prompts_of, recipe_of, source_of
from spf_lora.data.cache import TensorCache
from spf_lora.draw.act import acting
from spf_lora.draw.sample import Sampling
from spf_lora.evaluate.gallery import cache_folder
from spf_lora.evaluate.protocol import held_out_cases
from spf_lora.evaluate.run import Measurement, evaluate
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.training.clean import Task, build_cleaner, cleaned_adapter
from spf_lora.training.examples import load_examples

RESULTS = Path(__file__).parent / "results" / "cleaning"
FIRST = "plain-16"
# what is changed in a plain training of 400 steps, rank 16, attention
LORAS: dict[str, tuple[str, ...]] = {
    FIRST: (),
    "plain-4": ("adapter.rank=4", "adapter.alpha=4"),
    "plain-64": ("adapter.rank=64", "adapter.alpha=64"),
    "full": ("adapter.preset=full",),
    "overcooked": ("learn.steps=1600",),
    "two-in-one": (),
    "kohya-layout": ("adapter.preset=full", "adapter.text_encoder=true"),
}
SECOND = "glasses"  # the other attribute of two-in-one
# table column -> figure; each is lower for the better but response
COLUMNS = {
    "response": "rho@1",
    "P": "P@1",
    "SPS": "sps",
    "leakage": "BL@1",
    "unasked": "unasked@1",
    "distance to truth": "truth:pixels@1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Clean LoRAs and measure before and after.")
    parser.add_argument("--loras", nargs="+", default=list(LORAS), choices=LORAS)
    parser.add_argument("--attributes", nargs="+", default=list(ATTRIBUTES), choices=ATTRIBUTES)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--noises", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15, help="DDIM steps")
    parser.add_argument("--trained", type=Path, help="keeps plain LoRAs here, by what they learned")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    if not args.table:
        _run(args)
    _write_table(args.page)


def _run(args: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        args.trained = args.trained or Path(folder)
        args.trained.mkdir(parents=True, exist_ok=True)
        for lora in args.loras:
            for attribute in args.attributes if lora == FIRST else args.attributes[:1]:
                path = RESULTS / f"{lora}-{attribute}-0.json"
                if not path.exists():
                    _cell(lora, attribute, args, path)


def _cell(lora: str, attribute: str, args: Any, path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / f"{lora}-{attribute}.safetensors"
        write_adapter(_plain(lora, attribute, args.trained), file)
        source = source_of(file)
        recipe, wordless = recipe_of(source, [], target=None, attribute=attribute, base="embedded")
        before = _measured(read_adapter(file), attribute, args)
        base = load_base("embedded", device=torch.device("cpu"))
        assert source.adapter is not None
        task = Task(base, source.adapter, prompts_of(None, recipe), wordless)
        began = time.process_time()
        trainer = build_cleaner(
            recipe, task, checkpoint=Path(name) / "none", cache=TensorCache(Path(name) / "cache")
        )
        for step in trainer.run():
            if step.index % 50 == 0:
                print(path.stem, step.index, round(step.loss, 4), flush=True)
        seconds = time.process_time() - began
        cleaned = Path(name) / "cleaned.safetensors"
        write_adapter(cleaned_adapter(recipe, task, {}), cleaned)
        after = _measured(read_adapter(cleaned), attribute, args)
    run = command_line(
        lora=lora, attribute=attribute, seed=0, changes=list(LORAS[lora]), rank=recipe.adapter.rank
    )
    run |= {"prompts": args.prompts, "noises": args.noises, "sampler_steps": args.steps}
    measure = {"processor_seconds": round(seconds, 1), "peak_mib": peak_mib()}
    write_result(run, measure | {"before": before, "after": after}, path)


def _plain(lora: str, attribute: str, folder: Path) -> Adapter:
    """Return the LoRA to clean, with nothing said about it."""
    names = [attribute, SECOND] if lora == "two-in-one" else [attribute]
    adapters = []
    for name in names:
        recipe = load_recipe(find_recipe(name), [*METHODS["plain"], *LORAS[lora]])
        adapters.append(train_once(recipe, load_examples(recipe, None), folder)["adapter"])
    return combined([(one, 1.0) for one in adapters])


def _measured(adapter: Adapter, attribute: str, args: Any) -> dict[str, Any]:
    result = evaluate(
        load_base("embedded", device=torch.device("cpu")),
        acting(adapter),
        Measurement(
            load_recipe(find_recipe(attribute)).attribute,
            held_out_cases(attribute, prompts=args.prompts, seeds=args.noises),
            strengths=STRENGTHS,
        ),
        gallery=cache_folder(),
        sampling=Sampling(steps=args.steps),
    )
    return figures_of(result)


def _write_table(page: Path | None) -> None:
    """Print the table of every cell, and replace what is between a page's markers."""
    cells = read_cells(RESULTS)
    text = "\n".join(_table(cells)) if cells else "No cells yet."
    replace_tables([page] if page else [], {"cleaning": text})


def _table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each figure before and after, and the means of the first kind over its attributes."""
    lines = [_row(["LoRA", *COLUMNS]), _row(["---"] * (len(COLUMNS) + 1))]
    for cell in cells:
        shown = [
            " -> ".join(_text(cell, when, f) for when in ("before", "after"))
            for f in COLUMNS.values()
        ]
        lines.append(_row([f"{cell['attribute']}, {cell['lora']}", *shown]))
    of_first = [cell for cell in cells if cell["lora"] == FIRST]
    kept = [_share(of_first, name) for name in ("response", "SPS", "leakage")]
    said = ", ".join(found for found in kept if found)
    names = ", ".join(cell["attribute"] for cell in of_first)
    return [*lines, "", f"After as a share of before, {FIRST}, mean over {names}: {said}."]


def _text(cell: Mapping[str, Any], when: str, figure: str) -> str:
    value = cell[when][figure]["value"]
    return "not reached" if value is None else f"{value:.2f}"


def _share(cells: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return a column's mean after over its mean before; it says of how many, if not of all."""
    figure = COLUMNS[name]
    pairs = [[cell[when][figure]["value"] for when in ("before", "after")] for cell in cells]
    there = [pair for pair in pairs if None not in pair]
    if not there:
        return ""
    share = mean(after for _, after in there) / mean(before for before, _ in there)
    only = "" if len(there) == len(cells) else f" (of the {len(there)} that have it)"
    return f"{name} {share:.2f}{only}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
