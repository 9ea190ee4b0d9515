"""Stage 4: the U-Net, SD1.5's block layout at a sixteenth of its size.

It sees weak attributes rarely, half of the time unnamed, and their words often untrue; new ones
never. So, as with SD1.5 and a beard, it answers a weak word now and then and in its own way.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from embedded.device import device, noise_like
from embedded.loop import train
from embedded.worlds import Pictures, keep, unet_caption

CAPTIONS = 2  # variants per picture
# step -> from there on, the share of captions with a weak word whose picture has the attribute.
# At 0.3 (step 2400) and 0.45 (step 3800) the U-Net showed weak attributes in 4 to 12 % of pictures
# when asked; the aim is 20 to 60 %.
TRUTH = {0: 0.3, 3200: 0.45, 4200: 0.7}


def new(text_width: int) -> Any:
    """Return an untrained U-Net with SD1.5's four levels of two layers each."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=2,
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def scheduler() -> Any:
    """Return SD1.5's noise schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@torch.no_grad()
def encode_pictures(vae: Any, pictures: Pictures) -> torch.Tensor:
    """Return the posterior means, (n, 4, 16, 16), unscaled."""
    parts = [
        vae.encode(
            pictures.batch(np.arange(i, min(i + 64, len(pictures.people))))
        ).latent_dist.mean.cpu()
        for i in range(0, len(pictures.people), 64)
    ]
    return torch.cat(parts)


@torch.no_grad()
def encode_texts(text_encoder: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Return text states, (n, 77, width), in half precision."""
    parts = []
    for i in range(0, len(texts), 128):
        ids = tokenizer(
            texts[i : i + 128],
            padding="max_length",
            max_length=77,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        parts.append(text_encoder(input_ids=ids.to(device())).last_hidden_state.half().cpu())
    return torch.cat(parts)


def _states(
    pictures: Pictures, text_encoder: Any, tokenizer: Any, work: Path, *, seed: int, truth: float
) -> np.ndarray:
    cache = work / f"texts-{len(pictures.people)}-{seed}-{truth}.npy"
    if not cache.exists():
        rng = random.Random(seed)
        pairs = list(zip(pictures.people, pictures.attributes, strict=True))
        texts = [
            unet_caption(pictures.world, p, a, rng, truth=truth)
            for p, a in pairs
            for _ in range(CAPTIONS)
        ]
        keep(cache, encode_texts(text_encoder, tokenizer, texts).numpy())
    return np.load(cache, mmap_mode="r")


def build(
    pictures: Pictures,
    vae: Any,
    text_encoder: Any,
    tokenizer: Any,
    work: Path,
    *,
    seed: int,
    steps: int,
    start: Path | None = None,
) -> tuple[Any, float]:
    """Train the U-Net; return it (averaged weights) and the latents' scaling factor.

    With `start`, the folder of a packed base, training goes on from that base's weights.
    """
    cache = work / f"latents-{len(pictures.people)}-{seed}.npy"
    if not cache.exists():
        keep(cache, encode_pictures(vae, pictures).numpy())
    latents = torch.from_numpy(np.load(cache))
    factor = round(1 / latents.std().item(), 5)
    latents = latents * factor
    captions = {
        first: _states(pictures, text_encoder, tokenizer, work, seed=seed, truth=truth)
        for first, truth in TRUTH.items()
    }
    empty = encode_texts(text_encoder, tokenizer, [""])[0].float()
    torch.manual_seed(seed)
    unet, noise_schedule = new(empty.shape[-1]), scheduler()
    if start:
        weights = load_file(start / "unet" / "diffusion_pytorch_model.safetensors")
        unet.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    alphas = noise_schedule.alphas_cumprod
    snr = alphas / (1 - alphas)
    weights = snr.clamp(max=5.0) / snr  # min-SNR-5 for epsilon prediction, arXiv 2303.09556 eq. 5
    print(f"latents scaled by {factor}, {sum(p.numel() for p in unet.parameters()):,} parameters")

    def loss(index: np.ndarray, step: int, generator: torch.Generator) -> torch.Tensor:
        variant = torch.randint(0, CAPTIONS, (len(index),), generator=generator).numpy()
        rows = np.sort(index * CAPTIONS + variant)  # sorted: the file is read in order
        clean = latents[rows // CAPTIONS].to(device())
        states = captions[max(first for first in captions if first <= step)]
        text = torch.from_numpy(states[rows]).float()
        drop = torch.rand(len(rows), generator=generator) < 0.1
        text[drop] = empty
        text = text.to(device())
        noise = noise_like(clean, generator)
        t = torch.randint(0, 1000, (len(rows),), generator=generator).to(device())
        guess = unet(noise_schedule.add_noise(clean, noise, t), t, text, return_dict=False)[0]
        error = (guess - noise).square().mean(dim=(1, 2, 3))
        return (error * weights.to(device())[t]).mean()

    averaged = train(
        "unet",
        {"unet": unet},
        loss,
        count=len(pictures.people),
        steps=steps,
        batch_size=32,
        learning_rate=1e-3,
        work=work,
        seed=seed,
        ema=0.9985,
        decay=0.25,
    )
    unet.load_state_dict(averaged["unet"])
    return unet, factor
