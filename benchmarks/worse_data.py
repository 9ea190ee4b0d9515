"""Train on worse pictures: captions of which a fifth is wrong, and 12 pictures instead of 64.

`python benchmarks/worse_data.py [--kinds ...] [--methods ours ...] [--attributes ...] [--seeds 0]`

No setting was chosen on them. Cells are those of `benchmarks/methods.py`, with the same settings;
the pictures and captions come from a folder, as a user's do. One JSON per cell in
`benchmarks/results/worse-data/KIND/`; a cell that is there is not run again. `--page
docs/benchmarks.md` writes the tables between its markers.
"""

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from methods import ATTRIBUTES, METHODS, run_cell
from methods_table import read_cells, replace_tables, result_tables

from spf_lora.data.captions import join_phrases, split_phrases
from spf_lora.data.export import export_folder
from spf_lora.data.folder import Example
from spf_lora.data.worlds import PORTRAITS
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe

RESULTS = Path(__file__).parent / "results" / "worse-data"
COMPARED = ("ours", "plain", "plain-completed")  # a folder says nobody where the attribute is


class Kind(NamedTuple):
    """Pictures to learn from.

    Attributes:
        pictures: how many.
        wrong: share of a caption's phrases that say something else than the picture shows.
    """

    pictures: int
    wrong: float


KINDS = {"wrong-captions": Kind(64, 0.2), "12-pictures": Kind(12, 0.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--methods", nargs="+", default=list(COMPARED), choices=COMPARED)
    parser.add_argument("--attributes", nargs="+", default=list(ATTRIBUTES), choices=ATTRIBUTES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--noises", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15, help="DDIM steps")
    parser.add_argument("--trained", type=Path, help="keeps adapters here, by what they learned")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--page", nargs="+", type=Path, default=[])
    args = parser.parse_args()
    if not args.table:
        with tempfile.TemporaryDirectory() as folder:
            args.tuning, args.recipes = False, None
            args.trained = args.trained or Path(folder) / "trained"
            args.trained.mkdir(parents=True, exist_ok=True)
            for kind in args.kinds:
                _run(kind, Path(folder) / kind, args)
    tables = {
        f"{kind}-{name}": table
        for kind in KINDS
        for name, table in result_tables(read_cells(RESULTS / kind)).items()
    }
    replace_tables(args.page, tables)


def _run(kind: str, folder: Path, args: Any) -> None:
    args.results, args.pictures = RESULTS / kind, folder
    folder.mkdir()
    for attribute in args.attributes:
        export_folder(spoiled(attribute, KINDS[kind]), folder / attribute, overwrite=False)
    for seed in args.seeds:
        for attribute in args.attributes:
            for method in args.methods:
                run_cell(method, METHODS[method], attribute, seed, args)


def spoiled(attribute: str, kind: Kind) -> list[Example]:
    """Return the pictures that `train` draws for itself, fewer or with wrong captions."""
    data, rng = load_recipe(find_recipe(attribute)).data, random.Random("wrong captions")
    drawn = PORTRAITS.training_set(
        attribute, count=kind.pictures, seed=data.seed, coverage=data.coverage, bias=data.bias
    )
    return [Example(picture, wronged(text, kind.wrong, rng), "") for picture, text, _ in drawn]


def wronged(caption: str, share: float, rng: random.Random) -> str:
    """Return a caption in which each phrase of the world says another choice this often."""
    groups = [[said for said, _ in values.values()] for values in PORTRAITS.factors.values()]
    phrases = split_phrases(caption)
    for place, phrase in enumerate(phrases):
        others = next(
            ([p for p in group if p != phrase] for group in groups if phrase in group), []
        )
        if others and rng.random() < share:
            phrases[place] = rng.choice(others)
    return join_phrases(phrases)


if __name__ == "__main__":
    main()
