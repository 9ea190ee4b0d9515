"""Build the embedded base: `python scripts/build_embedded_base.py --work DIR STAGE...`.

Stages, in order: tokenizer, clip, vae, unet, decoder, probe, pack. Each resumes from its
checkpoint in the work folder after a kill; `pack` writes fp16 weights and checksums into
`--out`. `--world personas` builds the base of the second world. `scripts/check_embedded_base.py`
then measures what was built and writes the figures into its card.
"""

import argparse
import platform
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from embedded import clip, pack, probe, tokenizer, unet, vae
from embedded.device import device, native_bf16
from embedded.worlds import Pictures, make_pictures
from spf_lora.base.load import EMBEDDED
from spf_lora.data.worlds import WORLDS
from spf_lora.data.worlds.world import World
from spf_lora.training.checkpoint import load_checkpoint

COUNTS = {"world": 16_000, "unet": 20_000}
STEPS = {"clip": 1600, "vae": 2000, "unet": 5000, "decoder": 3000, "probe": 2500}
STAGES = ("tokenizer", "clip", "vae", "unet", "decoder", "probe", "pack")


class Builder:
    """Runs stages; each can ask for what the ones before it made."""

    def __init__(
        self, world: World, work: Path, seed: int, out: Path, start: Path | None = None
    ) -> None:
        self.world, self.work, self.seed, self.out, self.start = world, work, seed, out, start

    def pictures(self, kind: str) -> Pictures:
        """Return the pictures of one kind."""
        return make_pictures(self.world, kind, COUNTS[kind], self.seed, self.work)

    def read_tokenizer(self) -> Any:
        """Return the tokenizer that its stage wrote."""
        from transformers import CLIPTokenizer

        return CLIPTokenizer.from_pretrained((self.start or self.work / "base") / "tokenizer")

    def tokenizer(self) -> None:
        """Train the tokenizer."""
        folder = self.work / "base" / "tokenizer"
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{tokenizer.build(self.world, folder, seed=self.seed)} tokens")

    def clip(self) -> clip.Clip:
        """Train CLIP, or read it back."""
        return clip.build(
            self.pictures("world"),
            self.read_tokenizer(),
            self.work,
            seed=self.seed,
            steps=STEPS["clip"],
        ).eval()

    def text_encoder(self) -> Any:
        """Return the text encoder of CLIP, or of the base to go on from."""
        if not self.start:
            return self.clip().text.text_model
        from transformers import CLIPTextModel

        return CLIPTextModel.from_pretrained(self.start / "text_encoder").eval().to(device())

    def vae(self, *, only: str = "vae") -> Any:
        """Train the VAE, or read it back, or that of the base to go on from."""
        if self.start:
            from diffusers import AutoencoderKL

            return AutoencoderKL.from_pretrained(self.start / "vae").eval().to(device())
        return vae.build(
            self.pictures("world"),
            self.work,
            seed=self.seed,
            steps=STEPS["vae"],
            decoder_steps=STEPS["decoder"],
            only=only,
        ).eval()

    def decoder(self) -> Any:
        """Go on with the decoder alone."""
        return self.vae(only="decoder")

    def unet(self) -> tuple[Any, float]:
        """Train the U-Net on the VAE's latents and the text encoder's states."""
        return unet.build(
            self.pictures("unet"),
            self.vae(),
            self.text_encoder(),
            self.read_tokenizer(),
            self.work,
            seed=self.seed,
            steps=STEPS["unet"],
            start=self.start,
        )

    def probe(self) -> torch.nn.Module:
        """Train the probe on renders and reconstructions."""
        return probe.build(
            self.pictures("world"), self.decoder(), self.work, seed=self.seed, steps=STEPS["probe"]
        )

    def pack(self) -> None:
        """Write the folder that ships."""
        trained, factor = self.unet()
        if self.start:
            pack.replace_unet(self.start, self.out, trained)
            return
        coder = self.decoder()
        coder.register_to_config(scaling_factor=factor)
        pack.write_folder(
            self.out,
            clip=self.clip(),
            vae=coder,
            unet=trained,
            tokenizer=self.read_tokenizer(),
            scheduler=unet.scheduler(),
        )
        pack.write_probe(self.out, self.probe(), probe.heads(self.world))
        spent = {}
        for stage in STEPS:
            facts = load_checkpoint(self.work / f"{stage}.safetensors")[1]
            spent[stage] = {"steps": facts["step"], "seconds": round(facts["seconds"])}
        pack.write_card(
            self.out,
            {
                "world": self.world.name,
                "credit": self.world.credit,
                "seed": self.seed,
                "stages": spent,
                "pictures": COUNTS,
                "word_truth_from_step": unet.TRUTH,
                "vae_trained_in": "bf16" if native_bf16() else "fp32",
                "torch": torch.__version__,
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            },
        )


def main() -> None:
    """Run the stages asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", choices=STAGES)
    parser.add_argument("--world", choices=WORLDS, default="portraits")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and pictures")
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    parser.add_argument("--start", type=Path, help="a packed base whose U-Net to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.world != "portraits" and arguments.out == EMBEDDED:
        parser.error("name --out: the embedded base draws the world portraits")
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    world = WORLDS[arguments.world]
    builder = Builder(world, arguments.work, arguments.seed, arguments.out, arguments.start)
    for stage in arguments.stages:
        getattr(builder, stage)()


if __name__ == "__main__":
    main()
