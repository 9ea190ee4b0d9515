"""Stage 6: the probe, a classifier of every choice, for measuring only.

It learns from renders and from VAE reconstructions, blurred, shifted and noisy, so that a soft
picture is read like a sharp one.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from embedded.device import device, noise_like
from embedded.loop import train
from embedded.worlds import Pictures, keep, labels
from spf_lora.base.towers import Probe
from spf_lora.data.worlds.world import World

REBUILT = 6000


def heads(world: World) -> dict[str, int]:
    """Return head name -> number of classes."""
    sizes = {name: len(values) for name, values in world.factors.items()}
    return sizes | dict.fromkeys(world.attributes, 2)


@torch.no_grad()
def rebuild(vae: Any, pictures: Pictures, count: int) -> torch.Tensor:
    """Return VAE reconstructions of the first `count` pictures, (count, 3, 64, 64)."""
    parts = []
    for i in range(0, count, 64):
        pixels = pictures.batch(np.arange(i, min(i + 64, count)))
        parts.append(
            vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1).half().cpu()
        )
    return torch.cat(parts)


def _augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    dx, dy = torch.randint(-2, 3, (2,), generator=generator).tolist()
    pixels = torch.roll(nn.functional.pad(pixels, (2, 2, 2, 2), "replicate"), (dx, dy), (3, 2))
    pixels = pixels[:, :, 2:-2, 2:-2]
    blurred = nn.functional.avg_pool2d(pixels, 3, 1, 1, count_include_pad=False)
    share = torch.rand(len(pixels), 1, 1, 1, generator=generator).to(pixels.device) * 0.7
    noise = torch.rand(len(pixels), 1, 1, 1, generator=generator).to(pixels.device) * 0.1
    pixels = torch.lerp(pixels, blurred, share)
    return pixels + noise * noise_like(pixels, generator)


def build(pictures: Pictures, vae: Any, work: Path, *, seed: int, steps: int) -> Probe:
    """Train the probe."""
    cache = work / f"rebuilt-{REBUILT}.npy"
    if not cache.exists():
        keep(cache, rebuild(vae, pictures, REBUILT).numpy())
    rebuilt = torch.from_numpy(np.load(cache))
    torch.manual_seed(seed + 7)  # its own start: nothing shared with CLIP's image tower
    probe = Probe(heads(pictures.world))
    wanted = {name: row.to(device()) for name, row in labels(pictures).items()}

    def loss(index: np.ndarray, step: int, generator: torch.Generator) -> torch.Tensor:
        half = len(index) // 2
        second = index[half:] % REBUILT
        rows = np.concatenate([index[:half], second])
        pixels = torch.cat([pictures.batch(index[:half]), rebuilt[second].float().to(device())])
        logits = probe(_augment(pixels, generator))
        losses = [
            nn.functional.cross_entropy(logits[name], wanted[name][rows], ignore_index=-100)
            for name in wanted
        ]
        return torch.stack(losses).sum()

    probe.load_state_dict(
        train(
            "probe",
            {"probe": probe},
            loss,
            count=len(pictures.people),
            steps=steps,
            batch_size=64,
            learning_rate=2e-3,
            work=work,
            seed=seed + 7,
            ema=0.99,
        )["probe"]
    )
    return probe
