"""Time and weigh one training step on a random model of Stable Diffusion 1.5's full size.

`python benchmarks/step.py [--px 256] [--out FILE]`: diffusers' text-to-image LoRA example's step
(VAE and text encoder inside it), our steps of both stages, and SPF-Portrait's with and without its
response loss, in turn, so that a busy moment hits all. Peak memory is above the weights: the
allocator's own count, of torch's CPU allocator or of CUDA's.
"""

import argparse
import gc
import statistics
import time
from functools import partial
from pathlib import Path

import torch
from common import command_line, write_result
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch.nn.functional import avg_pool2d, interpolate
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

from spf_lora.adapters.attach import adapter_off, attach_trainable
from spf_lora.training.batch import Batch
from spf_lora.training.distil import Distil, Lesson
from spf_lora.training.objectives import Learn, SpfPortrait, Weights, time_weights
from spf_lora.training.optim import make_optimizer
from spf_lora.training.peak_memory import allocated_peak
from spf_lora.training.precision import set_up
from spf_lora.training.prepare import Prepared


def random_model(make, device, dtype=torch.float32):
    with torch.device("meta"):
        model = make()
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        parameter.data.fill_(1.0) if "norm" in name and name.endswith("weight") else (
            parameter.data.uniform_(-0.02, 0.02, generator=generator)
        )
    for _, buffer in model.named_buffers():
        buffer.copy_(torch.arange(buffer.numel(), device=device).reshape(buffer.shape))
    return model.requires_grad_(False).eval().to(dtype)


def full_unet(device):
    """Return a random U-Net of SD1.5's size."""
    return random_model(
        lambda: UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            cross_attention_dim=768,
            attention_head_dim=8,
        ),
        device,
    )


def models(device):
    return (
        full_unet(device),
        random_model(
            lambda: AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                latent_channels=4,
                sample_size=512,
            ),
            device,
        ),
        random_model(
            lambda: CLIPTextModel(
                CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
            ),
            device,
        ),
        random_model(
            lambda: CLIPVisionModel(
                CLIPVisionConfig(
                    hidden_size=768,
                    intermediate_size=3072,
                    num_hidden_layers=12,
                    num_attention_heads=12,
                    patch_size=32,
                )
            ),
            device,
        ),
    )


def one_batch(side, device):
    def noise(*shape):
        return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(device)

    eye, one = torch.eye(77, device=device)[None], torch.ones(1, device=device)
    latents, states = noise(1, 4, side, side), noise(1, 77, 768)
    zero = torch.zeros(1, dtype=torch.long, device=device)
    batch = Batch(
        noise=latents.flip(3),
        noisy=latents,
        t=zero + 200,
        rows=zero,
        base_states=states,
        full_states=states.flip(1),
        base_groups=eye,
        full_groups=eye,
        real=one,
    )
    data = Prepared(
        latents=latents,
        sizes=((side, side),) * len(latents),
        base_states=states,
        full_states=states,
        base_groups=eye,
        full_groups=eye,
        phrases=torch.rand(1, 77).to(device),
        target=noise(768),
        embeddings=noise(1, 768),
    )
    return batch, data


def rows(px, device, precision, checkpointing):
    unet, vae, text, vision = models(device)
    parameters = attach_trainable(unet, preset="attention", rank=8, alpha=8.0, seed=0)
    set_up(unet, precision=precision, gradient_checkpointing=checkpointing)
    optimizer = make_optimizer(
        "adamw8bit", parameters.values(), learning_rate=1e-4, weight_decay=0.01, betas=(0.9, 0.999)
    )
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    batch, data = one_batch(px // 8, device)
    pixels = torch.rand(1, 3, px, px, device=device)
    ids = torch.arange(77, device=device)[None]
    learn, distil = (
        Learn(unet, data),
        Distil(unet, time_weights(scheduler, 5.0), partial(adapter_off, unet)),
    )
    places = torch.ones_like(batch.noise[:, :1])
    lesson = Lesson(
        noisy=batch.noisy,
        t=batch.t,
        states=batch.full_states,
        wanted=batch.noise,
        asks=batch.real,
        weights=places,
        away=0 * batch.real,
    )

    def embed(latents):
        decoded = (
            vae.decode(avg_pool2d(latents, 2)).sample if px > 256 else vae.decode(latents).sample
        )
        return vision(interpolate(decoded, size=(224, 224))).pooler_output

    def paper(clip):
        alphas = scheduler.alphas_cumprod
        return SpfPortrait(unet, data, weights=Weights(), alphas=alphas, embed=clip)

    def example():
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.sample() * 0.18215
            states = text(input_ids=ids).last_hidden_state
        eps = unet(scheduler.add_noise(latents, batch.noise, batch.t), batch.t, states).sample
        return (eps.float() - batch.noise).square().mean()

    def whole(loss):
        def step():
            optimizer.zero_grad()
            loss().backward()
            torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()

        return step

    published = {
        "SPF-Portrait without its response loss": paper(None),
        "SPF-Portrait": paper(embed),
    }
    return {
        "diffusers example": whole(example),
        "learn": whole(lambda: learn(batch).loss),
        "distil": whole(lambda: distil(lesson).loss),
        **{name: whole(lambda made=made: made(batch).loss) for name, made in published.items()},
    }


def peak_of(step, device):
    gc.collect()
    if device.type == "cpu":
        return allocated_peak(step)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def seconds_of(step, device):
    begun = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = rows(asked.px, device, asked.precision, asked.checkpointing)
    for step in steps.values():  # the optimizer's state is made; nothing is measured yet
        step()
        break
    peaks = {name: peak_of(step, device) for name, step in steps.items()}
    times = {name: [] for name in steps}
    for _ in range(asked.repeats):
        for name, step in steps.items():
            times[name].append(seconds_of(step, device))
    run = command_line(
        px=asked.px,
        batch=1,
        precision=asked.precision,
        gradient_checkpointing=asked.checkpointing,
        repeats=asked.repeats,
    )
    measured = {
        name: {
            "seconds": round(statistics.median(times[name]), 3),
            "all_seconds": [round(one, 3) for one in times[name]],
            "peak_mb_above_weights": round(peaks[name] / 1e6, 1),
        }
        for name in steps
    }
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
    write_result(run, measured, asked.out, device=device.type, gpu=gpu)


if __name__ == "__main__":
    main()
