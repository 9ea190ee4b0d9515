"""How well the control map finds the attribute: IoU with the renderer's own region, and a picture.

    python benchmarks/maps.py [--attributes beard ...] [--out FILE.json] [--picture docs/maps.png]

The maps are those of a finished training: a trained adapter from `adapters/demo` answers on its
training pictures, averaged over draws of noise; the frozen base's surprise and CLIP's relevance
need no adapter. A place counts as found where an answer is above its own mean, and where a map is
above 0.5.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from files import environment
from PIL import Image, ImageDraw
from torch.nn.functional import adaptive_max_pool2d

from spf_lora.adapters.attach import adapter_off
from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.base.clip import load_clip
from spf_lora.base.load import load_base
from spf_lora.method.control_map import answer, control_map
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.training.build import build_trainer, load_examples
from spf_lora.training.relevance import relevances
from spf_lora.training.witness import surprises

DEMO = Path(__file__).parents[1] / "adapters" / "demo"
TIMES = (100, 300, 500, 700)
DRAWS, BATCH, CELL_PX, LABEL_PX = 2, 16, 96, 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--attributes", nargs="+", default=["beard", "glasses", "moustache", "hat"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    found, strips = {}, []
    for attribute in args.attributes:
        found[attribute], strip = _measure(attribute)
        strips.append(strip)
        print(attribute, found[attribute], flush=True)
    text = json.dumps({"iou": found, "times": TIMES, "draws": DRAWS, **environment()}, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    if args.picture:
        _page(args.attributes, strips).save(args.picture, optimize=True)


def _measure(attribute: str) -> tuple[dict[str, float], list[Image.Image]]:
    recipe = load_recipe(find_recipe(attribute))
    told = load_recipe(find_recipe(attribute), ["training.method=masked-prior"])
    base, examples = load_base("embedded"), load_examples(recipe, None)
    trainer = build_trainer(recipe, base, examples, checkpoint=Path("none"))
    witnessed: Any = trainer.stages[1].objective.witnessed  # type: ignore[attr-defined]
    side = witnessed.shape[-1]
    surprise = surprises(base.unet, trainer.data, base.scheduler, seed=recipe.training.seed)
    text = recipe.attribute.target_text
    relevance = relevances(base, load_clip(base), trainer.data, text, seed=recipe.training.seed)
    masks = [np.array(one.mask.convert("L")) for one in load_examples(told, None) if one.mask]
    wide = torch.from_numpy(np.stack(masks)).float()[:, None] / 255
    true = adaptive_max_pool2d(wide, side) > 0
    cap = recipe.align.map_area_cap
    alone = {"surprise": surprise, "relevance": relevance, "witnesses": witnessed}
    seen = {name: control_map(one, area_cap=cap) for name, one in alone.items()}
    answers = _answers(trainer, attribute)
    share = recipe.align.surprise
    mixed = (1 - share) * torch.stack(list(answers.values())).mean(dim=0) + share * witnessed
    used = control_map(mixed, area_cap=cap)
    at = {t: _iou(_above_mean(one), true) for t, one in answers.items()}
    figures = {
        "true area": true.float().mean().item(),
        "answer": sum(at.values()) / len(at),
        **{f"answer, t = {t}": value for t, value in at.items()},
        **{name: _iou(one > 0.5, true) for name, one in seen.items()},
        "map": _iou(used > 0.5, true),
        "map's area": used.mean().item(),
    }
    shown = [true.float(), *(one / 4 for one in answers.values()), *seen.values(), used]
    strip = [examples[0].image, *(_grey(one[0, 0]) for one in shown)]
    return {name: round(value, 3) for name, value in figures.items()}, strip


@torch.no_grad()
def _answers(trainer: Any, attribute: str) -> dict[int, torch.Tensor]:
    """Return the trained adapter's answer at each time on all pictures, (n, 1, h, w)."""
    for name, module in read_adapter(DEMO / f"{attribute}.safetensors").modules.items():
        path = name.removeprefix("unet.")
        for factor, values in (("A", module.down), ("B", module.up * module.scale)):
            parameter = trainer.parameters[f"{path}.lora_{factor}.default.weight"]
            parameter.copy_(torch.from_numpy(np.asarray(values, np.float32)))
    data, generator, found = trainer.data, torch.Generator().manual_seed(0), {}
    for t in TIMES:
        total = torch.zeros_like(data.latents[:, :1])
        for _ in range(DRAWS):
            noise = torch.randn(data.latents.shape, generator=generator)
            for i in range(0, len(data), BATCH):
                rows = slice(i, i + BATCH)
                times = torch.full((len(data.latents[rows]),), t)
                noisy = trainer.scheduler.add_noise(data.latents[rows], noise[rows], times)
                with adapter_off(trainer.unet):
                    reference = trainer.unet(noisy, times, data.base_states[rows]).sample
                response = trainer.unet(noisy, times, data.full_states[rows]).sample
                total[rows] += answer(response, reference) / DRAWS
        found[t] = total
    return found


def _above_mean(places: torch.Tensor) -> torch.Tensor:
    return places > places.mean(dim=(1, 2, 3), keepdim=True)


def _iou(found: torch.Tensor, true: torch.Tensor) -> float:
    both, either = ((one).sum(dim=(1, 2, 3)) for one in (found & true, found | true))
    return (both / either.clamp(min=1)).mean().item()


def _grey(places: torch.Tensor) -> Image.Image:
    return Image.fromarray((places.clamp(0, 1) * 255).byte().numpy())


def _page(attributes: list[str], strips: list[list[Image.Image]]) -> Image.Image:
    """Return one row an attribute: picture, true region, answers over t, witnesses, map."""
    times = (f"t = {t}" for t in TIMES)
    heads = ["picture", "true", *times, "surprise", "relevance", "both", "map"]
    size = (len(heads) * CELL_PX, LABEL_PX + len(strips) * CELL_PX)
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    for column, head in enumerate(heads):
        pen.text((column * CELL_PX + 4, 1), head, fill="black")
        for row, strip in enumerate(strips):
            cell = strip[column].convert("RGB").resize((CELL_PX - 2, CELL_PX - 2), 0)
            page.paste(cell, (column * CELL_PX, LABEL_PX + row * CELL_PX))
    return page


if __name__ == "__main__":
    main()
