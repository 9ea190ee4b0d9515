"""Train a slider and measure it over its strengths, negative ones too, beside the worded file.

`python benchmarks/sliders.py [--attribute beard] [--pairs 64] [--set KEY=VALUE ...] [--out FILE]`

With `--pairs` both files learn from so many people drawn without the attribute and with it, biased
as the training pictures are, instead of from those. With `--tuning` the prompts are others than
those of docs/sliders.md, for the choice of settings.

Three kinds of pictures, each drawn at every strength: of held-out people whose prompt has not the
attribute's words; of prompts with them, from which a negative strength should take it away; and of
prompts without a face, which should not move.
"""

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import command_line, peak_mib, write_result
from methods import TUNING_PROMPTS, train_once

from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base, load_base
from spf_lora.data.folder import Example
from spf_lora.data.worlds.portraits import biased, partial_caption, render
from spf_lora.draw.act import acting, draw
from spf_lora.draw.pixels import pixels_of
from spf_lora.evaluate.judges.judge import Judge
from spf_lora.evaluate.judges.world import world_judge
from spf_lora.evaluate.protocol import held_out_cases, other_seed
from spf_lora.evaluate.result import CHANNELS
from spf_lora.evaluate.statistics import at_response
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.recipe.steps import as_slider
from spf_lora.training.examples import load_examples

STRENGTHS = (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
NO_FACE = ("a purple background", "an orange background", "a teal background", "a white background")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a slider over its strengths.")
    parser.add_argument("--attribute", default="beard")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--noises", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15, help="DDIM steps")
    parser.add_argument("--tuning", action="store_true")
    parser.add_argument("--trained", type=Path, default=Path("out/trained"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.trained.mkdir(parents=True, exist_ok=True)
    made, given = {}, pairs_of(args.attribute, args.pairs) if args.pairs else None
    more = ["learn.steps=0"] if given else []
    asked, file = [*more, *args.changes], find_recipe(args.attribute)
    worded = load_recipe(file, asked)
    slider = load_recipe(file, [*as_slider(worded), *asked])
    for name, recipe in (("slider", slider), ("worded", worded)):
        made[name] = train_once(recipe, given or load_examples(recipe, None), args.trained)
    base, judge = load_base("embedded", device=torch.device("cpu")), world_judge(args.attribute)
    measure: dict[str, Any] = {"peak_mib": peak_mib()}
    for name, trained in made.items():
        measure[name] = _measured(base, judge, trained.pop("adapter"), args, words=name == "worded")
        measure[name] |= {key: trained[key] for key in ("processor_seconds",) if key in trained}
    run = command_line(
        attribute=args.attribute,
        pairs=args.pairs,
        changes=args.changes,
        prompts=TUNING_PROMPTS if args.tuning else args.prompts,
        noises=args.noises,
    )
    write_result(run, measure, args.out)


def pairs_of(attribute: str, count: int) -> list[Example]:
    """Draw people without the attribute and with it."""
    rng = random.Random(0)
    people = [biased(rng, attribute) for _ in range(count)]
    return [
        Example(
            render(person, (attribute,)),
            partial_caption(person, (attribute,), rng, coverage=0.5),
            f"pair {i}",
            before=render(person),
        )
        for i, person in enumerate(people)
    ]


@torch.no_grad()
def _measured(
    base: Base, judge: Judge, adapter: Adapter, args: Any, *, words: bool
) -> dict[str, Any]:
    """Return each measure by strength, in the order of `STRENGTHS`."""
    count = args.prompts + (TUNING_PROMPTS if args.tuning else 0)
    cases = held_out_cases(args.attribute, prompts=count, seeds=args.noises)
    cases = cases[args.prompts :] if args.tuning else cases
    plain = [case.base_prompt for case in cases for _ in case.seeds]
    worded = [case.prompt for case in cases for _ in case.seeds]
    seeds = [seed for case in cases for seed in case.seeds]
    others = [other_seed(case.seeds, i) for case in cases for i in range(len(case.seeds))]
    faceless = [NO_FACE[i % len(NO_FACE)] for i in range(len(cases))]

    def pixels(prompts: list[str], noises: list[int], strength: float) -> torch.Tensor:
        acts = acting([(adapter, strength)] if strength else None)
        drawn = draw(base, prompts, noises, acts, steps=args.steps)
        return torch.stack([pixels_of(one) for one in drawn])

    own, far = pixels(plain, seeds, 0.0), pixels(plain, others, 0.0)
    outside = torch.stack([pixels_of(t.region)[:1] < 0 for t in judge.truths(own)]).float()
    ceiling = judge.distances(far, own, outside, asked=True)
    still, moved = pixels(faceless, seeds[: len(cases)], 0.0), []
    rows: dict[str, list[float]] = {name: [] for name in ("response", "P", "identity", "has")}
    for strength in STRENGTHS:
        asked = pixels(worded if words else plain, seeds, strength)
        rows["response"].append(float((judge.belief(asked) > 0.5).float().mean()))
        apart = judge.distances(asked, own, outside, asked=True)
        shares = {name: float(apart[name].mean() / ceiling[name].mean()) for name in CHANNELS}
        rows["P"].append(sum(shares.values()) / len(shares))
        rows["identity"].append(shares["identity"])
        with_words = asked if words else pixels(worded, seeds, strength)
        rows["has"].append(float((judge.belief(with_words) > 0.5).float().mean()))
        new = pixels(faceless, seeds[: len(cases)], strength)
        moved.append(float((new - still).abs().mean() / (far - own).abs().mean()))
    found = {name: [round(value, 4) for value in row] for name, row in rows.items()}
    found["no_face"] = [round(value, 4) for value in moved]
    up = [i for i, strength in enumerate(STRENGTHS) if strength >= 0]
    curve = [np.array([[rows[name][i] for i in up]]) for name in ("response", "P")]
    return {"strengths": list(STRENGTHS), **found, "P at response 0.8": _at(curve)}


def _at(curve: list[np.ndarray]) -> float | None:
    value = float(at_response(*curve, 0.8)[0])
    return round(value, 4) if np.isfinite(value) else None


if __name__ == "__main__":
    main()
