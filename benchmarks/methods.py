"""Train every method on the same data, steps and seeds, and measure each: ours and its rivals.

`python benchmarks/methods.py [--methods ours plain ...] [--attributes beard ...] [--seeds 0 1 2]`

One JSON per cell in `benchmarks/results/methods/`; a cell that is there is not run again, so a
stopped run goes on where it was. Methods that share a training, as ours and ours-local do, train
once in one run. `--variant NAME KEY=VALUE ...` measures ours with settings
changed; with `--tuning` it does so on other prompts, for the search of settings, and writes to
`benchmarks/results/search/`. `--table` only prints the tables of what is there; `--page README.md
docs/benchmarks.md` writes them between a page's markers, `--curve docs/methods.svg` draws pollution
over response.
"""

import argparse
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from common import environment, peak_mib, write_cell
from methods_table import write_pages

RESULTS = Path(__file__).parent / "results" / "methods"
SEARCH = RESULTS.with_name("search")
TUNING_PROMPTS = 12  # they follow those of the table
ATTRIBUTES = ("beard", "glasses", "hat", "blonde-hair", "moustache", "sunglasses")
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
# name -> what is changed in the attribute's own recipe; rivals have one stage, all of learn.steps
_RIVAL = (
    "adapter.preset=attention",
    "optimizer.learning_rate=2e-3",
    "data.vocabulary=none",
    "learn.steps=400",
)
METHODS: dict[str, tuple[str, ...]] = {
    "ours": (),
    "ours-local": (),
    "ours-euler": (),
    "ours-ddim-50": (),
    "plain": ("training.method=plain", *_RIVAL),
    "plain-euler": ("training.method=plain", *_RIVAL),
    "plain-local": ("training.method=plain", *_RIVAL),
    "plain-completed": ("training.method=plain", *_RIVAL, "data.vocabulary=portraits"),
    "plain-kv": ("training.method=plain", *_RIVAL, "adapter.preset=kv"),
    "spf-portrait": ("training.method=spf-portrait", *_RIVAL),
    "l2-to-base": ("training.method=l2-to-base", *_RIVAL),
    "prior-preservation": ("training.method=prior-preservation", *_RIVAL),
    "dop": ("training.method=dop", *_RIVAL),
    "dco": ("training.method=dco", *_RIVAL),
    "masked-prior": ("training.method=masked-prior", *_RIVAL),
}
# how pictures are drawn where it is not DDIM in --steps with guidance 3
_EULER = {"sampler": "euler", "steps": 25, "guidance": 7.0}  # as people often draw
SAMPLINGS: dict[str, dict[str, Any]] = {
    "ours-euler": _EULER,
    "plain-euler": _EULER,
    "ours-ddim-50": {"steps": 50},
}
# what a cell found; the rest of it says what was run
MEASURED = ("processor_seconds", "peak_mib", "map_area", "figures", "per_prompt")
LOCAL = ("ours-local", "plain-local")  # drawn by our own runtime where they answer alone


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        args.trained = args.trained or Path(folder)
        args.trained.mkdir(parents=True, exist_ok=True)
        _run(args)
    write_pages(RESULTS, args.page, args.curve)


def _run(args: Any) -> None:
    args.results = SEARCH if args.tuning else RESULTS
    args.recipes = args.pictures = None
    if not args.table:
        changed = {"ours-" + args.variant[0]: tuple(args.variant[1:])} if args.variant else {}
        known = METHODS | changed
        for seed in args.seeds:
            for attribute in args.attributes:
                for method in changed or args.methods:
                    run_cell(method, known[method], attribute, seed, args)


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--attributes", nargs="+", default=list(ATTRIBUTES), choices=ATTRIBUTES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--noises", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15, help="DDIM steps")
    parser.add_argument("--trained", type=Path, help="keeps adapters here, by what they learned")
    parser.add_argument("--tuning", action="store_true")
    parser.add_argument("--variant", nargs="+", metavar="NAME KEY=VALUE")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--page", nargs="+", type=Path, default=[])
    parser.add_argument("--curve", type=Path)
    return parser.parse_args()


def run_cell(method: str, changes: tuple[str, ...], attribute: str, seed: int, args: Any) -> None:
    """Train and measure one cell, unless it is there.

    Args:
        method: its name.
        changes: what is changed in the attribute's recipe.
        attribute: what is learned.
        seed: of training.
        args: of the command line, with `results`, the folder of cells; `recipes`, that of the
            attributes' recipes, or None for the shipped ones; and `pictures`, that of a folder for
            each attribute, or None for the world's.
    """
    path = args.results / f"{method}-{attribute}-{seed}.json"
    claim = path.with_suffix(".running")
    if path.exists() or claim.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    claim.touch()
    try:
        with get_context("spawn").Pool(1) as pool:  # so that the peak of memory is its own
            result = pool.apply(_measure, (method, changes, attribute, seed, args))
        where = result.pop("environment")
        measure = {name: result.pop(name) for name in MEASURED if name in result}
        run = {"method": method, "attribute": attribute, "seed": seed, **result}
        write_cell(path, run, measure, where)
        figures = measure["figures"]
        print(path.stem, *(f"{k}={figures[k]['value']}" for k in ("rho@1", "P@1", "BL@1", "sps")))
    finally:
        claim.unlink()


def _measure(
    method: str, changes: tuple[str, ...], attribute: str, seed: int, args: Any
) -> dict[str, Any]:
    import torch

    from spf_lora.base.load import load_base
    from spf_lora.data.worlds import world_of
    from spf_lora.draw.act import acting
    from spf_lora.draw.sample import Sampling
    from spf_lora.evaluate.gallery import cache_folder
    from spf_lora.evaluate.protocol import held_out_cases
    from spf_lora.evaluate.run import Measurement, evaluate
    from spf_lora.recipe.files import find_recipe
    from spf_lora.recipe.load import load_recipe, recipe_hash
    from spf_lora.training.examples import load_examples

    file = args.recipes / f"{attribute}.toml" if args.recipes else find_recipe(attribute)
    recipe = load_recipe(file, [*changes, f"training.seed={seed}"])
    base = load_base(recipe.training.base, device=torch.device("cpu"))
    world = world_of(base)
    folder = args.pictures / attribute if args.pictures else None
    trained = train_once(recipe, load_examples(recipe, folder, world=world), args.trained)
    count = args.prompts + (TUNING_PROMPTS if args.tuning else 0)
    cases = held_out_cases(attribute, prompts=count, seeds=args.noises, world=world)
    sampling = Sampling(**({"steps": args.steps} | SAMPLINGS.get(method, {})))
    result = evaluate(
        base,
        acting(trained.pop("adapter"), local=method in LOCAL),
        Measurement(
            recipe.attribute, cases[args.prompts :] if args.tuning else cases, strengths=STRENGTHS
        ),
        gallery=cache_folder(),
        sampling=sampling,
    )
    return {
        "changes": list(changes),
        "recipe_hash": recipe_hash(recipe),
        "base_id": base.id,
        **trained,
        "prompts": TUNING_PROMPTS if args.tuning else args.prompts,
        "noises": args.noises,
        **({"pictures": args.pictures.name} if args.pictures else {}),
        "sampler": sampling.sampler,
        "sampler_steps": sampling.steps,
        "guidance": sampling.guidance,
        "figures": figures_of(result),
        "per_prompt": _per_prompt(result),
        "environment": environment(),
    }


def figures_of(result: Any) -> dict[str, dict[str, float | None]]:
    """Return every figure of a result with its interval."""
    return {
        name: {
            key: None if number is None else round(float(number), 4)
            for key, number in (
                ("value", f.value),
                ("low", f.low),
                ("high", f.high),
                ("reached", f.reached),
            )
        }
        for name, f in result.figures().items()
    }


def train_once(recipe: Any, examples: Any, folder: Path) -> dict[str, Any]:
    """Return the adapter and what its training cost, which is not told of one in the folder."""
    import torch

    from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
    from spf_lora.base.load import load_base
    from spf_lora.data.cache import TensorCache
    from spf_lora.training.build import build_trainer, run_id
    from spf_lora.training.finish import finished_adapter

    base = load_base(recipe.training.base, device=torch.device("cpu"))
    kept = folder / f"{run_id(recipe, base, examples)}.safetensors"
    if kept.exists():
        return {"adapter": read_adapter(kept)}
    with tempfile.TemporaryDirectory() as own:
        cache = TensorCache(Path(own))  # pairs are drawn anew, or their time would not be counted
        checkpoint = Path(own) / "none"
        trainer = build_trainer(recipe, base, examples, checkpoint=checkpoint, cache=cache)
        began = time.process_time()
        areas = [step.map_area for step in trainer.run() if step.map_area is not None]
        seconds, peak = time.process_time() - began, peak_mib()
    adapter = finished_adapter(recipe, base, examples)
    write_adapter(adapter, kept, dtype="fp32")
    return {
        "adapter": adapter,
        "steps": trainer.steps,
        "batch_size": trainer.plan.batch_size,
        "processor_seconds": round(seconds, 1),
        "peak_mib": peak,
        "map_area": round(sum(areas[-50:]) / len(areas[-50:]), 4) if areas else None,
    }


def _per_prompt(result: Any) -> dict[str, list[float]]:
    """Return pollution at each strength by prompt, so that cells can be compared in pairs."""
    out: dict[str, list[float]] = {}
    for strength in result.strengths:
        rows: dict[int, list[float]] = {}
        for draw in result.at(strength):
            rows.setdefault(draw.case, []).append(draw.numbers["P"])
        out[f"P@{strength:g}"] = [round(sum(v) / len(v), 4) for _, v in sorted(rows.items())]
    return out


if __name__ == "__main__":
    main()
