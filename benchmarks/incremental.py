"""Learn attributes one after another, ours and plain, and measure the stacks after every step.

    python benchmarks/incremental.py [--methods ours plain ...] [--orders 1] [--seeds 0]
                                     [--work FOLDER] [--page docs/incremental.md]

`onto` methods train each adapter on top of those before it, `apart` methods train each on the bare
base and put them together afterwards; `exact` methods let each act on its own words alone, `local`
methods where they answer alone; all use the same data and seeds. Adapters are kept in `--work` and
one JSON for each cell in `benchmarks/results/incremental/`, so a stopped run goes on where it was.
`--table` only prints the table of what is there; `--page` writes it into a page.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import environment, read_cell, write_cell
from methods import METHODS as RIVALS
from methods_table import replace_tables

from spf_lora.registry.onto import Below
from spf_lora.registry.stack import Known, look

RESULTS = Path(__file__).parent / "results" / "incremental"
# the first is the order of the table; the others turn it round and mix it
ORDERS = (
    ("beard", "glasses", "hat", "moustache", "blonde-hair"),
    ("blonde-hair", "moustache", "hat", "glasses", "beard"),
    ("hat", "blonde-hair", "beard", "moustache", "glasses"),
)


@dataclass(frozen=True)
class Method:
    """How the adapters of a stack are trained.

    Attributes:
        changes: to each attribute's own recipe.
        onto: whether each is trained on top of those before it.
        exact: whether each acts on the words that ask for it alone.
        local: whether they change the base's picture where they answer only.
    """

    changes: tuple[str, ...]
    onto: bool
    exact: bool = False
    local: bool = False


METHODS = {
    "ours": Method((), onto=True),
    "ours-apart": Method((), onto=False),
    "ours-exact": Method((), onto=True, exact=True),
    "ours-exact-local": Method((), onto=True, exact=True, local=True),
    "ours-apart-exact": Method((), onto=False, exact=True),
    "ours-apart-exact-local": Method((), onto=False, exact=True, local=True),
    "plain": Method(RIVALS["plain"], onto=True),
    "plain-apart": Method(RIVALS["plain"], onto=False),
    "plain-apart-exact": Method(RIVALS["plain"], onto=False, exact=True),
    "plain-apart-exact-local": Method(RIVALS["plain"], onto=False, exact=True, local=True),
}


def main() -> None:
    args = _arguments()
    if not args.table:
        for seed in args.seeds:
            for at, order in enumerate(ORDERS[: args.orders]):
                for method in args.methods:
                    _cell(method, at, order[: args.count], seed, args)
    replace_tables([args.page] if args.page else [], {"incremental": f"\n{_table()}\n"})


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--methods", nargs="+", default=["ours", "plain"], choices=METHODS)
    parser.add_argument("--orders", type=int, default=1, choices=range(1, len(ORDERS) + 1))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--count", type=int, default=5, help="attributes of an order")
    parser.add_argument("--steps", type=int, help="training steps, instead of the recipe's")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--noises", type=int, default=2)
    parser.add_argument("--ddim-steps", type=int, default=15)
    parser.add_argument("--work", type=Path, default=Path("runs/incremental"))
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--page", type=Path)
    return parser.parse_args()


def _cell(method: str, at: int, order: tuple[str, ...], seed: int, args: Any) -> None:
    from spf_lora.adapters.format.adapter_file import read_adapter
    from spf_lora.base.load import load_base
    from spf_lora.draw.sample import Sampling
    from spf_lora.evaluate.gallery import cache_folder
    from spf_lora.evaluate.incremental import Learned, StackProtocol, measure_incremental

    path = RESULTS / f"{method}-{at}-{seed}.json"
    if path.exists():
        return
    learned: list[Known] = []
    seconds = {}
    for attribute in order:
        below = learned if METHODS[method].onto else []
        made, seconds[attribute] = _adapter(method, attribute, below, seed, args)
        learned.append(made)
    result = measure_incremental(
        load_base("embedded"),
        [Learned(one.name, one.name, read_adapter(one.path)) for one in learned],
        StackProtocol(
            prompts=args.prompts,
            seeds=args.noises,
            exact=METHODS[method].exact,
            local=METHODS[method].local,
        ),
        gallery=cache_folder(),
        sampling=Sampling(steps=args.ddim_steps),
        name=f"{method}, order {at}, seed {seed}",
        tell=print,
    )
    run = {
        "method": method,
        "order": at,
        "seed": seed,
        "changes": list(METHODS[method].changes),
        "onto": METHODS[method].onto,
        "training_steps": args.steps,
        "content_ids": {one.name: one.content_id for one in learned},
    }
    measure = {"training_seconds": seconds, **json.loads(result.to_json())}
    write_cell(path, run, measure, environment())


def _adapter(
    method: str, attribute: str, learned: list[Known], seed: int, args: Any
) -> tuple[Known, float | None]:
    """Return an adapter and its training time; one that is there is not trained again."""
    below = "-".join(one.name for one in learned)
    kind = method.split("-")[0]  # what is apart has nothing below; the rest is not trained
    name = f"{kind}-{seed}-{args.steps or 'all'}-{below}-{attribute}.safetensors"
    path = args.work / name
    seconds = None
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"training {attribute} by {method} onto {below or 'the base'}")
        seconds = _train(METHODS[method].changes, attribute, learned, seed, args.steps, path)
    return look(attribute, path), seconds


def _train(
    changes: tuple[str, ...],
    attribute: str,
    learned: list[Known],
    seed: int,
    steps: int | None,
    path: Path,
) -> float:
    from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
    from spf_lora.base.load import load_base
    from spf_lora.data.cache import TensorCache, cache_folder
    from spf_lora.draw.weights import attached
    from spf_lora.recipe.files import find_recipe
    from spf_lora.recipe.load import load_recipe
    from spf_lora.recipe.steps import with_steps
    from spf_lora.training.build import build_trainer
    from spf_lora.training.examples import load_examples
    from spf_lora.training.finish import finished_adapter

    asked = [*changes, f"training.seed={seed}"]
    recipe = load_recipe(find_recipe(attribute), asked)
    if steps is not None:
        recipe = load_recipe(find_recipe(attribute), [*asked, *with_steps(recipe, steps)])
    examples, base = load_examples(recipe, None), load_base("embedded")
    under = Below("learned", tuple((one, 1.0) for one in learned))
    began = time.perf_counter()
    with attached(base.unet, [(read_adapter(one.path), 1.0) for one in learned]):
        trainer = build_trainer(
            recipe,
            base,
            examples,
            checkpoint=path.with_suffix(".none"),
            cache=TensorCache(cache_folder()),
            under=under,
        )
        for _ in trainer.run():
            pass
        write_adapter(finished_adapter(recipe, base, examples, under), path)
    return round(time.perf_counter() - began, 1)


def _table() -> str:
    """Return what is there as Markdown, means over seeds and orders of each method."""
    cells: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        cell = read_cell(path)
        cells.setdefault(cell["method"], []).append(cell)
    columns: dict[str, Callable[[dict[str, Any]], float]] = {
        "response when learned": lambda one: _mean(_ends(one, "response", 0)),
        "at the end": lambda one: _mean(_ends(one, "response", -1)),
        "kept": lambda one: _check(one, "kept"),
        "together": lambda one: _check(one, "together"),
        "clean": lambda one: _check(one, "clean"),
        "P alone": lambda one: _mean([row["value"] for row in one["alone_pollution"]]),
        "P, all on": lambda one: one["orders"][0]["mean_pollution"][-1],
        "base leakage": lambda one: one["orders"][0]["leakage"][-1]["value"],
    }
    lines = [
        "| method | stacks | " + " | ".join(columns) + " |",
        "| --- " * (len(columns) + 2) + "|",
    ]
    for method, rows in cells.items():
        means = (_mean([number(one) for one in rows]) for number in columns.values())
        shown = " | ".join(f"{mean:.2f}" for mean in means)
        lines.append(f"| {method} | {len(rows)} | {shown} |")
    return "\n".join(lines)


def _ends(cell: dict[str, Any], measure: str, at: int) -> list[float]:
    rows = [[one["value"] for one in row if one] for row in cell["orders"][0][measure]]
    return [row[at] for row in rows]


def _check(cell: dict[str, Any], name: str) -> float:
    """Return the worst case of one of the stack's checks; NaN where nothing goes together."""
    values = {one["name"]: one["value"] for one in cell["checks"]}
    return values.get(name, float("nan"))


def _mean(values: list[float]) -> float:
    return statistics.fmean(values)


if __name__ == "__main__":
    main()
