"""Measure a base on pictures of its world it has not seen, write the figures into its card.

`python scripts/check_embedded_base.py --work DIR [--folder F] [--sheet sheet.png] [--write]`
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from embedded.clip import phrase_table, truth
from embedded.worlds import Pictures, labels, make_pictures
from spf_lora.base.load import EMBEDDED, Base, load_base
from spf_lora.base.towers import Clip, Probe, load_probe
from spf_lora.data.worlds import world_of
from spf_lora.data.worlds.world import World
from spf_lora.draw.act import draw
from spf_lora.draw.pixels import pixels_of
from spf_lora.draw.sample import GUIDANCE, STEPS


@torch.no_grad()
def check_vae(base: Base, probe: Probe, pictures: Pictures) -> tuple[dict[str, Any], torch.Tensor]:
    """PSNR, and the probe's recall of each attribute on reconstructions."""
    pixels = pictures.batch(np.arange(len(pictures.people)))
    made = torch.cat(
        [
            base.vae.decode(base.vae.encode(p).latent_dist.mean).sample.clamp(-1, 1)
            for p in pixels.split(64)
        ]
    )
    mse = ((made - pixels) / 2).square().mean(dim=(1, 2, 3))
    heads, wanted = probe(made), labels(pictures)
    recall = {
        a: round(float((heads[a].argmax(1) == 1)[wanted[a] == 1].float().mean()), 4)
        for a in pictures.world.attributes
    }
    psnr = float((-10 * mse.log10()).mean())
    return {"psnr_db": round(psnr, 2), "probe_recall": recall, "n": len(pixels)}, made


@torch.no_grad()
def check_clip(clip: Clip, pictures: Pictures) -> dict[str, Any]:
    """Zero-shot area under the ROC curve of every phrase."""
    image = clip.embed_image(pictures.batch(np.arange(len(pictures.people))))
    table = phrase_table(pictures.world)
    scores = image @ clip.embed_text([p for p, _, _ in table]).T
    true, areas = truth(pictures), {}
    for column, (phrase, _, _) in enumerate(table):
        seen = true[:, column] >= 0
        rank = scores[seen, column].argsort().argsort().double() + 1
        yes = true[seen, column] == 1
        n, m = int(yes.sum()), int((~yes).sum())
        areas[phrase] = round(float((rank[yes].sum() - n * (n + 1) / 2) / (n * m)), 4)
    targets = set(pictures.world.caption_targets(list(pictures.world.attributes)))
    base = [v for k, v in areas.items() if k not in targets]
    return {
        "auc_attributes": {k: v for k, v in areas.items() if k in targets},
        "auc_base_mean": round(float(np.mean(base)), 4),
        "auc_base_min": min(base),
        "n": len(pictures.people),
    }


@torch.no_grad()
def check_probe(probe: Probe, pixels: torch.Tensor, pictures: Pictures) -> dict[str, float]:
    """Accuracy per head."""
    logits, wanted = probe(pixels), labels(pictures)
    return {
        name: round(
            float((logits[name].argmax(1) == wanted[name])[wanted[name] >= 0].float().mean()), 4
        )
        for name in logits
    }


@torch.no_grad()
def check_unet(base: Base, probe: Probe, count: int) -> tuple[dict[str, Any], list[Image.Image]]:
    """Agreement with captions, and how often each attribute shows when asked and when not."""
    world = world_of(base)
    rng = random.Random("held-out captions")
    people = [world.unbiased(rng) for _ in range(count)]
    seeds = list(range(10_000, 10_000 + count))
    pictures = draw(base, [world.caption(p) for p in people], seeds)
    logits = probe(torch.stack([pixels_of(one) for one in pictures]))
    agreement = {
        name: round(
            float(
                np.mean(
                    [
                        list(values)[int(logits[name][i].argmax())] == getattr(p, name)
                        for i, p in enumerate(people)
                    ]
                )
            ),
            4,
        )
        for name, values in world.factors.items()
    }
    asked = {}
    for name in world.attributes:
        asking = draw(base, [world.caption(p, (name,)) for p in people], seeds)
        shown = probe(torch.stack([pixels_of(one) for one in asking]))
        asked[name] = round(float((shown[name].argmax(1) == 1).float().mean()), 4)
    unasked = {
        a: round(float((logits[a].argmax(1) == 1).float().mean()), 4) for a in world.attributes
    }
    figures = {
        "agreement": agreement,
        "shown_when_asked": asked,
        "shown_unasked": unasked,
        "n": count,
        "ddim_steps": STEPS,
        "guidance": GUIDANCE,
    }
    return figures, pictures


def table(world: World, figures: dict[str, Any]) -> str:
    """Return the figures beside their targets as a Markdown table."""
    vae, clip, unet = figures["vae"], figures["clip"], figures["unet"]
    rows = [("VAE, PSNR on new portraits, dB", ">= 27", vae["psnr_db"])]
    recall = vae["probe_recall"]
    rows.append(
        ("VAE, probe's recall on reconstructions, worst attribute", ">= 0.95", min(recall.values()))
    )
    areas = clip["auc_attributes"]
    rows.append(("CLIP, zero-shot AUC, worst attribute", ">= 0.97", min(areas.values())))
    rows.append(("CLIP, zero-shot AUC, mean of base phrases", ">= 0.95", clip["auc_base_mean"]))
    for kind, accuracy in figures["probe_accuracy"].items():
        small = ("eyes", "mouth")
        others = min(v for k, v in accuracy.items() if k not in small)
        rows.append((f"probe, accuracy on {kind}, worst head", ">= 0.97", others))
        rows.append(("probe, the same, eyes and mouth", ">= 0.85", min(accuracy[k] for k in small)))
    for name, share in unet["agreement"].items():
        target = {"hair_style": ">= 0.75", "clothes": ">= 0.75"}.get(name, ">= 0.90")
        target = "-" if name in ("mouth", "eyes", "brows") else target
        rows.append((f"U-Net, probe agrees with the caption: {name}", target, share))
    for name, share in unet["shown_when_asked"].items():
        target = "0.20 to 0.60" if world.attributes[name].kind == "weak" else "<= 0.05"
        unasked = unet["shown_unasked"][name]
        rows.append((f"U-Net, shows {name} when asked (not asked: {unasked})", target, share))
    lines = ["| figure | target | measured |", "| --- | --- | --- |"]
    lines += [f"| {what} | {target} | {value} |" for what, target, value in rows]
    lines.append("")
    lines.append(
        f"VAE, CLIP, probe: {vae['n']} portraits. U-Net: {unet['n']} captions, "
        f"{unet['ddim_steps']} DDIM steps, guidance {unet['guidance']}."
    )
    return "\n".join(lines)


def write_figures(world: World, figures: dict[str, Any], folder: Path) -> None:
    """Put the figures into the card and the table into docs/embedded-base.md, between markers."""
    path = folder / "card.json"
    card = json.loads(path.read_text("utf-8")) | {"figures": figures}
    path.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    page = Path(__file__).parent.parent / "docs" / "embedded-base.md"
    begin, end = (f"<!-- {world.name}: {edge} -->" for edge in ("begin", "end"))
    head, rest = page.read_text("utf-8").split(begin)
    block = f"{begin}\n{table(world, figures)}\n{end}"
    page.write_text(head + block + rest.split(end)[1], encoding="utf-8")


def contact_sheet(rows: Sequence[Sequence[Image.Image]], gap: int = 2) -> Image.Image:
    """Lay rows of equally large pictures out on white."""
    width, height = rows[0][0].size
    across = max(len(row) for row in rows)
    size = (across * (width + gap) + gap, len(rows) * (height + gap) + gap)
    out = Image.new("RGB", size, "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            out.paste(picture, (gap + x * (width + gap), gap + y * (height + gap)))
    return out


def main() -> None:
    """Measure and print; with --write, put the figures into the card and the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=EMBEDDED)
    parser.add_argument("--captions", type=int, default=64)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    spec = "embedded" if arguments.folder == EMBEDDED else str(arguments.folder)
    base = load_base(spec)
    probe = load_probe(arguments.folder / "probe")
    clip = Clip(base, arguments.folder / "clip")
    world = world_of(base)
    pictures = make_pictures(world, "held", 2000, 0, arguments.work)
    vae, rebuilt = check_vae(base, probe, pictures)
    figures: dict[str, Any] = {"vae": vae, "clip": check_clip(clip, pictures)}
    figures["probe_accuracy"] = {
        "renders": check_probe(probe, pictures.batch(np.arange(2000)), pictures),
        "reconstructions": check_probe(probe, rebuilt, pictures),
    }
    figures["unet"], pictures = check_unet(base, probe, arguments.captions)
    print(json.dumps(figures, indent=2))
    if arguments.sheet:
        contact_sheet([pictures[i : i + 8] for i in range(0, 32, 8)]).save(arguments.sheet)
    if arguments.write:
        write_figures(world, figures, arguments.folder)


if __name__ == "__main__":
    main()
