"""Train attributes that neither the base, its CLIP nor the probe has met, and measure each.

`python benchmarks/held_out.py [--attributes hijab ...] [--ways ours plain ...] [--page PAGE]`

They are other parts of the portrait world's drawing style, and a light that changes the whole
picture, named in two ways. A head is added to the probe for each,
learned from the renderer's pictures as the base's autoencoder shows them; its accuracy on pictures
it has not seen is in the result. No setting was chosen on them. One JSON per cell in
`benchmarks/results/held-out/`; a cell that is there is not run again. `--table` only prints the
table of what is there, `--page` writes it between a page's markers.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from blue_light import LIGHTS, LightJudge, lit
from common import attribute_recipe, command_line, peak_mib, write_result
from methods_table import Cell, read_cells, replace_tables
from PIL import Image

from spf_lora.base.load import EMBEDDED, Base, load_base
from spf_lora.base.towers import load_probe
from spf_lora.data.cache import TensorCache
from spf_lora.data.worlds.portraits import ATTRIBUTES, FACTORS, render, unbiased
from spf_lora.data.worlds.world import WorldAttribute
from spf_lora.draw.act import acting
from spf_lora.draw.pixels import pixels_of
from spf_lora.draw.sample import Sampling, decode
from spf_lora.evaluate.gallery import cache_folder
from spf_lora.evaluate.judges.world import WorldJudge, free_heads
from spf_lora.evaluate.protocol import held_out_cases
from spf_lora.evaluate.run import Measurement, evaluate
from spf_lora.recipe.load import load_recipe
from spf_lora.training.build import build_trainer
from spf_lora.training.examples import load_examples
from spf_lora.training.finish import finished_adapter

RESULTS = Path(__file__).parent / "results" / "held-out"
HELD_OUT: dict[str, WorldAttribute] = {
    "hijab": WorldAttribute(
        "a hijab",
        "new",
        {"topVariant": "hijab"},
        {"skin": "brown", "clothes": "blazer", "clothes_colour": "white", "background": "teal"},
        replaces="hair_style",
        hides=("hair_colour",),
        excludes=("hat",),
    ),
    "wayfarers": WorldAttribute(
        "wayfarers",
        "new",
        {"accessoriesVariant": "wayfarers", "accessoriesProbability": 100},
        {"skin": "pale", "hair_style": "quiff", "clothes": "t-shirt", "background": "orange"},
        excludes=("glasses", "sunglasses"),
    ),
    "graphic-shirt": WorldAttribute(
        "a graphic shirt",
        "new",
        {"clothesVariant": "graphicShirt", "clothesGraphicVariant": "skull"},
        {
            "skin": "tan",
            "hair_style": "dreadlocks",
            "clothes_colour": "black",
            "background": "purple",
        },
        replaces="clothes",
    ),
    **LIGHTS,
}
# what is changed in an ordinary recipe of the embedded base
WAYS: dict[str, tuple[str, ...]] = {
    "ours": (),
    "ours-text-encoder": ("adapter.text_encoder=true",),
    "plain": ("training.method=plain", "learn.steps=400", "data.vocabulary=none"),
    "plain-text-encoder": (
        "training.method=plain",
        "learn.steps=400",
        "data.vocabulary=none",
        "adapter.text_encoder=true",
    ),
}
GLOBAL = "attribute.scope=global"
LEARNED, TESTED = 600, 200  # people that a head learns from, and is tested on
STRENGTHS = (0.0, 0.5, 1.0)
COLUMNS = {
    "words alone": "shown@0",
    "shown asked": "shown@1",
    "shown unasked": "unasked@1",
    "P": "P@1",
    "leakage": "BL@1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and measure held-out attributes.")
    parser.add_argument("--attributes", nargs="+", default=list(HELD_OUT), choices=HELD_OUT)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--noises", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15, help="DDIM steps")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for a trial run")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--page", nargs="+", type=Path, default=[])
    args = parser.parse_args()
    wanted = [(w, a, s) for s in args.seeds for a in args.attributes for w in args.ways]
    for way, attribute, seed in [] if args.table else wanted:
        path = args.results / f"{way}-{attribute}-{seed}.json"
        if not path.exists():
            _cell(way, attribute, seed, args, path)
    cells = read_cells(args.results)
    replace_tables(args.page, {"held-out": _table(cells) if cells else "No cells yet."})


def _table(cells: Sequence[Cell]) -> str:
    """Return each cell's figures at strength 1, and how often the words alone show it."""
    lines = [f"| attribute | way | {' | '.join(COLUMNS)} |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for cell in sorted(cells, key=lambda cell: (cell["attribute"], cell["way"], cell["seed"])):
        shown = " | ".join(f"{cell['figures'][name]:.2f}" for name in COLUMNS.values())
        lines.append(f"| {cell['attribute']} | {cell['way']} | {shown} |")
    return "\n".join(lines)


def _cell(way: str, attribute: str, seed: int, args: Any, path: Path) -> None:
    base = load_base("embedded", device=torch.device("cpu"))
    for other in HELD_OUT:  # the probe has a head for this one alone
        ATTRIBUTES.pop(other, None)
    ATTRIBUTES[attribute] = HELD_OUT[attribute]
    judge, accuracy = _judge(attribute, base)
    began = time.process_time()
    settings = [*WAYS[way], *([GLOBAL] if attribute in LIGHTS else []), *args.set]
    recipe, adapter = _trained(attribute, [*settings, f"training.seed={seed}"])
    seconds = time.process_time() - began
    cases = held_out_cases(attribute, prompts=args.prompts, seeds=args.noises)
    result = evaluate(
        base,
        acting(adapter),
        Measurement(recipe.attribute, cases, strengths=STRENGTHS, judge=judge),
        gallery=cache_folder(),
        sampling=Sampling(steps=args.steps),
    )
    figures = {
        name: None if one.value is None else round(float(one.value), 4)
        for name, one in result.figures().items()
    }
    run = command_line(way=way, attribute=attribute, seed=seed, settings=settings)
    measure = {
        "judge_accuracy": round(accuracy, 4),
        "processor_seconds": round(seconds, 1),
        "peak_mib": peak_mib(),
        "figures": figures,
    }
    write_result(run, measure, path)


def _trained(attribute: str, changes: list[str]) -> tuple[Any, Any]:
    row = HELD_OUT[attribute]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        replaced = [said for said, _ in FACTORS[row.replaces].values()] if row.replaces else []
        (folder / "recipe.toml").write_text(attribute_recipe(attribute, row.target_text, replaced))
        recipe = load_recipe(folder / "recipe.toml", changes)
        examples = load_examples(recipe, None)
        if attribute in LIGHTS:
            examples = [replace(one, image=lit(one.image)) for one in examples]
        base = load_base("embedded", device=torch.device("cpu"))
        trainer = build_trainer(
            recipe, base, examples, checkpoint=folder / "none", cache=TensorCache(folder / "cache")
        )
        for step in trainer.run():
            if step.index % 50 == 0:
                print(attribute, step.stage, step.stage_index, round(step.loss, 4), flush=True)
        return recipe, finished_adapter(recipe, base, examples)


@torch.no_grad()
def _through(base: Base, pixels: torch.Tensor) -> torch.Tensor:
    """Return pictures as the base's autoencoder shows them."""
    latents = base.vae.encode(pixels).latent_dist.mean * base.vae.config.scaling_factor
    return torch.stack([pixels_of(one) for one in decode(base, latents)])


def _judge(attribute: str, base: Base) -> tuple[WorldJudge, float]:
    """Return the world's judge with a head for the attribute, and how often the head is right."""
    rng = random.Random(f"{attribute} for a judge")
    if attribute in LIGHTS:
        own = [render(unbiased(rng)) for _ in range(LEARNED + TESTED)]
        return _learned_judge(attribute, base, [(lit(one), one) for one in own], LightJudge)
    others = [name for name in ATTRIBUTES if name not in HELD_OUT]
    pictures = []
    for _ in range(LEARNED + TESTED):
        person = unbiased(rng)
        # who has it not may have something else: a hat is no hijab
        worn = (rng.choice(others),) if rng.random() < 0.5 else ()
        pictures.append((render(person, (attribute,)), render(person, worn)))
    return _learned_judge(attribute, base, pictures)


@torch.no_grad()
def _learned_judge(
    attribute: str,
    base: Base,
    pictures: Sequence[tuple[Image.Image, Image.Image]],
    kind: type[WorldJudge] = WorldJudge,
) -> tuple[WorldJudge, float]:
    """Return the world's judge with a head for the attribute, and how often the head is right.

    Args:
        attribute: one of the world's.
        base: its autoencoder shows the pictures.
        pictures: of each person, with the attribute and without; the last `TESTED` are not learned.
        kind: of judge.
    """
    probe = load_probe(EMBEDDED / "probe")
    rows = torch.stack([pixels_of(one) for both in pictures for one in both])
    shown = torch.cat([_through(base, part) for part in rows.split(64)])
    features = torch.cat([probe.embed(part) for part in shown.split(64)])
    truth = torch.tensor([1, 0]).repeat(len(pictures))
    learned = len(truth) - 2 * TESTED
    probe.heads[attribute] = head = _fitted(features[:learned], truth[:learned])
    found, unseen = head(features[learned:]), truth[learned:]
    accuracy = float((found.argmax(1) == unseen).float().mean())
    positives = float(found.softmax(1)[unseen == 1, 1].mean())
    print(f"{attribute}: the judge is right on {accuracy:.3f} of unseen pictures", flush=True)
    return kind(attribute, probe, positives, free=free_heads(attribute)), accuracy


@torch.enable_grad()
def _fitted(features: torch.Tensor, truth: torch.Tensor) -> torch.nn.Linear:
    """Return a linear head: logistic regression with a small ridge, to the optimum."""
    head = torch.nn.Linear(features.shape[1], 2)
    mean, spread = features.mean(0), features.std(0).clamp(min=1e-3)
    scaled = (features - mean) / spread
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=300)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        error = torch.nn.functional.cross_entropy(head(scaled), truth)
        total = error + 1e-3 * head.weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        head.bias -= head.weight @ (mean / spread)
        head.weight /= spread
    return head.requires_grad_(False)


if __name__ == "__main__":
    main()
