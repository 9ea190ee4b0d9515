"""Stage 3: AutoencoderKL, 64 px -> 16x16x4.

The encoder is frozen early: later only the decoder learns (stage `decoder`), so that the U-Net
can start on its latents.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedded.device import device, native_bf16, noise_like
from embedded.loop import train
from embedded.worlds import Pictures


def new() -> Any:
    """Return an untrained VAE."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def _distance(made: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    error = made.float() - pixels
    # Thin dark things (glasses, moustaches) are few pixels: large errors weigh more.
    return error.abs().mean() + 2 * error.square().mean()


def build(
    pictures: Pictures, work: Path, *, seed: int, steps: int, decoder_steps: int, only: str
) -> Any:
    """Train the whole VAE (`only="vae"`), then the decoder alone (`only="decoder"`)."""
    torch.manual_seed(seed)
    vae = new()

    def whole(index: np.ndarray, step: int, generator: torch.Generator) -> torch.Tensor:
        pixels = pictures.batch(index)
        with torch.autocast(device().type, torch.bfloat16, enabled=native_bf16()):
            posterior = vae.encode(pixels).latent_dist
            noise = noise_like(posterior.mean, generator)
            made = vae.decode(posterior.mean + posterior.std * noise).sample
        return _distance(made, pixels) + 3e-4 * posterior.kl().mean() / posterior.mean[0].numel()

    vae.load_state_dict(
        train(
            "vae",
            {"vae": vae},
            whole,
            count=len(pictures.people),
            steps=steps,
            batch_size=16,
            learning_rate=2e-3,
            work=work,
            seed=seed,
            ema=0.99,
        )["vae"]
    )
    if only == "vae":
        return vae
    vae.to(device()).encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)

    def decoder(index: np.ndarray, step: int, generator: torch.Generator) -> torch.Tensor:
        pixels = pictures.batch(index)
        with torch.autocast(device().type, torch.bfloat16, enabled=native_bf16()):
            with torch.no_grad():
                posterior = vae.encode(pixels).latent_dist
                noise = noise_like(posterior.mean, generator)
            made = vae.decode(posterior.mean + posterior.std * noise).sample
        return _distance(made, pixels)

    trained = train(
        "decoder",
        {"decoder": vae.decoder, "post": vae.post_quant_conv},
        decoder,
        count=len(pictures.people),
        steps=decoder_steps,
        batch_size=16,
        learning_rate=1e-3,
        work=work,
        seed=seed + 1,
        ema=0.99,
    )
    vae.decoder.load_state_dict(trained["decoder"])
    vae.post_quant_conv.load_state_dict(trained["post"])
    return vae
