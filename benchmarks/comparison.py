"""Draw README's picture: people by the base, a plain LoRA, ours, and ours drawn locally.

`python benchmarks/comparison.py PLAIN.safetensors OURS.safetensors docs/comparison.png`

Each row of one person starts from one noise. The people are the first of the measured prompts, so
nobody chose them.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.base.load import load_base
from spf_lora.draw.act import acting, draw
from spf_lora.draw.prompts import Prompt
from spf_lora.evaluate.protocol import held_out_cases

PEOPLE, SIDE, GAP, HEAD = 6, 128, 6, 34
ROWS = (
    "base, without the words",
    "plain LoRA, captions completed",
    "ours, as any app draws it",
    "ours, --local",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("plain", type=Path)
    parser.add_argument("ours", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--attribute", default="beard")
    args = parser.parse_args()
    base = load_base("embedded", device=torch.device("cpu"))
    cases = held_out_cases(args.attribute, prompts=PEOPLE, seeds=1)
    seeds = [case.seeds[0] for case in cases]
    full = [case.prompt for case in cases]
    local = [Prompt(case.prompt, within=case.base_prompt) for case in cases]
    plain, ours = read_adapter(args.plain), read_adapter(args.ours)
    rows = (
        draw(base, [case.base_prompt for case in cases], seeds),
        draw(base, full, seeds, acting(plain)),
        draw(base, full, seeds, acting(ours)),
        draw(base, local, seeds, acting(ours, local=True)),
    )
    _sheet(rows).save(args.out)


def _sheet(rows: tuple[list[Image.Image], ...]) -> Image.Image:
    """Lay people out from left to right, methods below each other with their names above."""
    font = ImageFont.load_default(18)
    width = PEOPLE * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, len(rows) * (SIDE + HEAD) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for y, (name, row) in enumerate(zip(ROWS, rows, strict=True)):
        top = y * (SIDE + HEAD)
        pen.text((GAP, top + 8), name, fill="black", font=font)
        for x, picture in enumerate(row):
            large = picture.resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(large, (GAP + x * (SIDE + GAP), top + HEAD))
    return sheet


if __name__ == "__main__":
    main()
