"""Build the embedded base: `python scripts/build_embedded_base.py --work DIR STAGE...`.

Stages, in order: tokenizer, clip, vae, unet, decoder, probe, pack. Each resumes from its
checkpoint in the work folder after a kill; `pack` writes fp16 weights and checksums into
`spf_lora/base/embedded/`. `scripts/check_embedded_base.py` then measures what was built.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from embedded import clip, tokenizer, vae  # noqa: E402
from embedded.worlds import make_world  # noqa: E402

COUNTS = {"world": 16_000, "unet": 20_000}
STEPS = {"clip": 1600, "vae": 2000, "unet": 12_000, "decoder": 3000, "probe": 2500}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", metavar="STAGE")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def load_tokenizer(work: Path) -> object:
    """Read the tokenizer that its stage wrote."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(work / "base" / "tokenizer")


def run(stage: str, work: Path, seed: int) -> None:
    """Run one stage."""
    if stage == "tokenizer":
        folder = work / "base" / "tokenizer"
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{tokenizer.build(folder, seed=seed)} tokens")
    elif stage == "clip":
        world = make_world("world", COUNTS["world"], seed, work)
        clip.build(world, load_tokenizer(work), work, seed=seed, steps=STEPS["clip"])
    elif stage in ("vae", "decoder"):
        world = make_world("world", COUNTS["world"], seed, work)
        vae.build(
            world, work, seed=seed, steps=STEPS["vae"], decoder_steps=STEPS["decoder"], only=stage
        )
    else:
        raise SystemExit(f"unknown stage {stage}")


def main() -> None:
    """Run the stages asked for."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    for stage in arguments.stages:
        run(stage, arguments.work, arguments.seed)


if __name__ == "__main__":
    main()
