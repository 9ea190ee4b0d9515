"""Measure the paper's table on Stable Diffusion 1.5: plain LoRA, SPF-Portrait, and ours.

`python benchmarks/sd15_paper.py --base BASE --data DIR [--attribute sd15/beard] [--dry-run]`

It says first which models it needs, from where, and how many hours it will take. A stopped run goes
on where it was: checkpoints, adapters and pictures are kept. The result is one JSON of run, measure
and environment. SPF-Portrait (arXiv 2504.00396) has no code and names no settings, so `CHOSEN` says
what we chose, and the numbers can be compared with each other, not with the paper's.
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from common import command_line, write_result
from methods import figures_of

METHODS: dict[str, tuple[str, ...]] = {
    "plain": ("training.method=plain", "data.vocabulary=none"),
    "spf-portrait": ("training.method=spf-portrait", "data.vocabulary=none"),
    "ours": (),
}
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
# the paper's column -> our scorer
SCORES = {
    "FID": "fid",
    "LPIPS": "lpips",
    "ID": "identity",
    "CLIP-T": "clip-t",
    "SegCons": "parsing",
}
CHOSEN = (
    "prompts: a person each, of words of distil.vocabulary drawn anew",
    "pictures: the adapter's at strength 1, against the base's own from the same noise",
    "FID: on DINOv2's features, to the base's own pictures; not an Inception figure",
    "LPIPS: VGG-16, of whole pictures",
    "ID: cosine in AdaFace IR-50; pictures in which the base drew no face do not count",
    "CLIP-T: with the attribute's words, in LAION's CLIP ViT-B/32, which no training sees",
    "SegCons: mean IoU of 19 parts of the face, of whole pictures",
    "SPF-Portrait: its losses with our weights; steps of one-stage methods: both stages' of ours",
)
SUBJECT = "a photo of a person"
_FIRST_SEED = 700_000  # of the prompts' words


def main() -> None:
    args = _arguments()
    print("\n".join(needed()))
    recipes = {name: recipe_of(name, args) for name in args.methods}
    print(f"about {hours(recipes, args):.1f} hours here")
    if args.dry_run:
        return
    sources = dict(one.split("=", 1) for one in args.scorer)
    scorers = open_scorers(sources)  # before the long work
    measure = {name: _row(name, recipe, scorers, sources, args) for name, recipe in recipes.items()}
    write_result(
        command_line(
            chosen=CHOSEN,
            prompts=args.prompts,
            noises=args.noises,
            steps=args.steps,
            scorers=weights_of(sources),
        ),
        measure,
        args.out,
        device=environment_device(),
    )


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--base", required=True, help="a folder, a .safetensors or a hub id")
    parser.add_argument("--data", type=Path, required=True, help="photographs with captions")
    parser.add_argument("--attribute", default="sd15/beard")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--noises", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25, help="DDIM steps")
    parser.add_argument("--guidance", type=float, default=7.0)
    parser.add_argument("--batch", type=int, default=4, help="pictures drawn at once")
    parser.add_argument("--scorer", action="append", default=[], metavar="MODEL=FOLDER")
    parser.add_argument("--mask", type=Path, help="where the attribute may act; see `evaluate`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--work", type=Path, default=Path("out/sd15-paper"))
    parser.add_argument("--out", type=Path, default=Path("out/sd15-paper/result.json"))
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse_args()


def needed() -> list[str]:
    """Return a line for each model: its size, licence and the command that fetches it."""
    from spf_lora.evaluate.judges.photographs.scorers import needs

    return list(dict.fromkeys(line for name in SCORES.values() for line in needs(name)))


def recipe_of(method: str, args: Any) -> Any:
    """Return a method's recipe; of one stage, with the steps of both of ours."""
    from spf_lora.api import load_recipe

    changes = [f"training.base={args.base}", *METHODS[method], *args.set]
    recipe = load_recipe(args.attribute, changes)
    if method == "ours":
        return recipe
    steps = recipe.learn.steps + recipe.distil.steps
    return load_recipe(args.attribute, [*changes, f"learn.steps={steps}"])


def hours(recipes: Mapping[str, Any], args: Any) -> float:
    """Return how long all of it takes on this machine, roughly."""
    from spf_lora.data.listing import list_folder
    from spf_lora.training.duration import estimate_seconds, seconds_a_pass

    pictures = len(list_folder(args.data).pictures)
    training = sum(sum(estimate_seconds(one, pictures).values()) for one in recipes.values())
    a_pass = seconds_a_pass(next(iter(recipes.values())))
    # the base's: with and without the words, two other noises; of each adapter two a strength
    kinds = 4 + 2 * (len(STRENGTHS) - 1) * len(recipes)
    drawing = args.prompts * args.noises * kinds * 2 * args.steps * a_pass
    return float(training + drawing) / 3600


def _models() -> list[str]:
    """Return the models that the columns need."""
    from spf_lora.evaluate.judges.photographs.scorers import SCORERS

    return list(dict.fromkeys(m for scorer in SCORES.values() for m in SCORERS[scorer].models))


def weights_of(sources: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return whose weights looked at the pictures: each model's name, licence and sha256."""
    from spf_lora.adapters.format.hashes import file_sha256
    from spf_lora.evaluate.judges.photographs.weights import WEIGHTS, locate

    found = {}
    for name in _models():
        weights = WEIGHTS[name]
        sha256 = file_sha256(locate(name, sources) / "model.safetensors", 0)
        found[name] = {"repo": weights.repo, "licence": weights.licence, "sha256": sha256}
    return found


def open_scorers(sources: Mapping[str, str], device: Any = None) -> dict[str, Any]:
    """Return the paper's columns and their scorers; all that is absent is told at once."""
    from spf_lora.evaluate.judges.photographs.scorers import open_scorer
    from spf_lora.evaluate.judges.photographs.weights import locate_all

    locate_all(_models(), sources)
    return {
        column: open_scorer(scorer, sources=sources, device=device)
        for column, scorer in SCORES.items()
    }


def _row(
    method: str, recipe: Any, scorers: Mapping[str, Any], sources: Mapping[str, str], args: Any
) -> dict[str, Any]:
    """Train one method and measure it."""
    from spf_lora.base.load import load_base
    from spf_lora.draw.act import acting
    from spf_lora.draw.sample import Sampling
    from spf_lora.evaluate.gallery import cache_folder
    from spf_lora.evaluate.judges.photographs.judge import photograph_judge
    from spf_lora.evaluate.run import Measurement, evaluate

    print(f"{method}: train")
    adapter, trained = train(method, recipe, args)
    base = load_base(args.base)
    judge = photograph_judge(
        recipe.attribute.name,
        recipe.attribute.target_text,
        text_encoder=base.text_encoder,
        sources=sources,
        device=base.device,
        mask=args.mask,
    )
    print(f"{method}: draw and look")
    result = evaluate(
        base,
        acting(adapter),
        Measurement(recipe.attribute, cases(recipe, args), strengths=STRENGTHS, judge=judge),
        gallery=cache_folder(),
        name=method,
        sampling=Sampling(args.steps, args.guidance, batch_size=args.batch),
    )
    return {
        **trained,
        "paper": paper_numbers(result, recipe.attribute.target_text, scorers, args.batch),
        "response_matched": figures_of(result),
        "selftests": {one.name: one.passed for one in result.selftests},
        "remarks": list(result.remarks),
    }


def train(method: str, recipe: Any, args: Any) -> tuple[Any, dict[str, Any]]:
    """Return a method's adapter and what was told of its training, from where it stopped."""
    from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
    from spf_lora.base.load import load_base
    from spf_lora.data.cache import TensorCache, cache_folder
    from spf_lora.training.build import build_trainer, run_id
    from spf_lora.training.examples import load_examples
    from spf_lora.training.finish import finished_adapter
    from spf_lora.training.precision import resting

    base, examples = load_base(args.base), load_examples(recipe, args.data)
    name = f"{method}-{run_id(recipe, base, examples)[:12]}"
    path, checkpoint = (args.work / f"{name}{end}.safetensors" for end in ("", ".checkpoint"))
    facts = {"run": name, "steps": recipe.learn.steps, "pictures": len(examples)}
    if path.exists():
        return read_adapter(path), facts
    args.work.mkdir(parents=True, exist_ok=True)
    cache = TensorCache(cache_folder())
    trainer = build_trainer(recipe, base, examples, checkpoint=checkpoint, cache=cache)
    if checkpoint.exists():
        print(f"{method}: from step {trainer.resume()}")
    decodes = recipe.training.method == "spf-portrait"
    with nullcontext() if decodes else resting(base.text_encoder, base.vae):
        for step in trainer.run():
            if step.index % recipe.training.checkpoint_every_steps == 0:
                trainer.save()
    adapter = finished_adapter(recipe, base, examples)
    write_adapter(adapter, path, dtype="fp32")
    checkpoint.unlink(missing_ok=True)
    return adapter, facts | {"told": trainer.remarks}


def cases(recipe: Any, args: Any) -> Any:
    """Return prompts of people that no caption is of."""
    from spf_lora.data.completion import load_vocabulary, varied
    from spf_lora.evaluate.protocol import cases_of

    rng = random.Random(_FIRST_SEED)
    vocabulary = load_vocabulary(recipe.distil.vocabulary)
    lines: dict[str, None] = {}
    while len(lines) < args.prompts:
        lines[varied(SUBJECT, recipe.attribute, vocabulary, rng)] = None
    return cases_of(list(lines), recipe.attribute, seeds=args.noises)


def paper_numbers(
    result: Any, target_text: str, scorers: Mapping[str, Any], batch: int
) -> dict[str, Any]:
    """Return the paper's columns at strength 1, each with how many pictures are behind it."""
    import torch

    from spf_lora.draw.pixels import pixels_of
    from spf_lora.evaluate.gallery import read_picture
    from spf_lora.evaluate.judges.photographs.scorers import SCORERS, Pictures

    def pixels(draws: Sequence[Any], kind: str) -> Any:
        rows = [pixels_of(read_picture(result.gallery, d.pictures[kind])) for d in draws]
        return torch.stack(rows)

    draws = result.at(1.0)
    found = {}
    for column, score in scorers.items():
        size = batch if SCORERS[SCORES[column]].each else len(draws)
        rows = []
        for first in range(0, len(draws), size):
            some = draws[first : first + size]
            asked = (target_text,) * len(some)
            rows.append(score(Pictures(pixels(some, "I0"), pixels(some, "I1"), asked)).cpu())
        values = torch.cat(rows)
        count = len(draws) if size == len(draws) else int((~values.isnan()).sum())
        mean = None if values.isnan().all() else round(values.nanmean().item(), 4)
        found[column] = {"value": mean, "pictures": count}
    return found


def environment_device() -> str:
    """Return the name of the GPU, or of none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


if __name__ == "__main__":
    main()
