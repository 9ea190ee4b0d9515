"""Run the methods on the second world, on which no setting was chosen: ours beside its rivals.

`python benchmarks/second_world.py [--base FOLDER] [--methods ...] [--attributes ...] [--seeds 0 1]`

Cells are those of `benchmarks/methods.py`, with the same settings; a base that
`scripts/build_embedded_base.py --world personas` packed brings its pictures, CLIP and judge along.
One JSON per cell in `benchmarks/results/second-world/`; a cell that is there is not run again.
`--table` only prints the tables of what is there; `--page docs/benchmarks.md` writes them between
its markers.
"""

import argparse
import tempfile
from pathlib import Path

from common import attribute_recipe
from methods import METHODS, run_cell
from methods_table import read_cells, replace_tables, result_tables

from spf_lora.data.worlds import PERSONAS

RESULTS = Path(__file__).parent / "results" / "second-world"
# recipes and cells name them, so they are told from the repository's root
BASE = Path("benchmarks/worlds/personas")
VOCABULARY = BASE.with_suffix(".toml")
COMPARED = ("ours", "plain", "plain-completed", "masked-prior")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--methods", nargs="+", default=list(COMPARED), choices=COMPARED)
    known = list(PERSONAS.attributes)
    parser.add_argument("--attributes", nargs="+", default=known, choices=known)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--noises", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15, help="DDIM steps")
    parser.add_argument("--trained", type=Path, help="keeps adapters here, by what they learned")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for a trial run")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--page", nargs="+", type=Path, default=[])
    args = parser.parse_args()
    if not args.table:
        with tempfile.TemporaryDirectory() as folder:
            args.tuning, args.recipes, args.pictures = False, Path(folder), None
            args.trained = args.trained or args.recipes
            args.trained.mkdir(parents=True, exist_ok=True)
            _write_recipes(args.recipes, args.base)
            for seed in args.seeds:
                for attribute in args.attributes:
                    for method in args.methods:
                        run_cell(method, (*_changes(method), *args.set), attribute, seed, args)
    tables = result_tables(read_cells(args.results))
    replace_tables(args.page, {f"second-world-{name}": table for name, table in tables.items()})


def _write_recipes(folder: Path, base: Path) -> None:
    """Write each attribute's recipe: the embedded base's settings, this base and its words."""
    words = f'vocabulary = "{VOCABULARY}"'
    tables = f'[data]\n{words}\n[distil]\n{words}\n[training]\nbase = "{base}"\n'
    for name, row in PERSONAS.attributes.items():
        replaced = PERSONAS.factors[row.replaces].values() if row.replaces else ()
        text = attribute_recipe(name, row.target_text, [said for said, _ in replaced], tables)
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")


def _changes(method: str) -> tuple[str, ...]:
    """Return what a method changes, with this world's vocabulary for the first's."""
    return tuple(
        f"data.vocabulary={VOCABULARY}" if one == "data.vocabulary=portraits" else one
        for one in METHODS[method]
    )


if __name__ == "__main__":
    main()
