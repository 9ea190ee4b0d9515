"""Weigh optimizers' states and training steps at SD1.5's full size, for docs/memory.md.

`python benchmarks/memory.py [--out FILE] [--measure]`: each optimizer's state is made by one real
step on tensors of the adapter's shapes, one at a time; the steps are weighed on fake tensors, as
`spf-lora train --dry-run` does. With `--measure`, a step of a random model of the full size is also
run at 256 and 512 px on the CPU, checkpointed (minutes, 6 GB), for what the allocator reports.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from common import command_line, write_result
from diffusers import UNet2DConditionModel

from spf_lora.adapters.attach import attach_trainable
from spf_lora.training.fit_gpu import base_configs
from spf_lora.training.memory import Needs, estimate
from spf_lora.training.optim import make_optimizer

OPTIMIZERS = ("adamw", "adamw8bit", "lion8bit")
SD15 = Needs(side=64, pictures=1, preset="attention", rank=8, optimizer="adamw8bit")
STEPS = {
    "plain, fp32": {"dual": False},
    "dual path, fp32": {},
    "dual path, all terms, fp32": {"watched": True},
    "plain, bf16": {"dual": False, "precision": "bf16"},
    "dual path, all terms, bf16": {"watched": True, "precision": "bf16"},
    "plain, bf16, checkpointing": {
        "dual": False,
        "precision": "bf16",
        "gradient_checkpointing": True,
    },
    "dual path, all terms, bf16, checkpointing": {
        "watched": True,
        "precision": "bf16",
        "gradient_checkpointing": True,
    },
}


def shapes(preset, rank):
    unet, _ = base_configs("owner/sd15")
    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(unet).requires_grad_(False)
    found = attach_trainable(model, preset=preset, rank=rank, alpha=1.0, seed=0)
    return [tuple(p.shape) for p in found.values()]


def state_bytes(name, shape, cache={}):  # noqa: B006 (a cache)
    if (name, shape) not in cache:
        one = torch.nn.Parameter(torch.zeros(shape))
        made = make_optimizer(name, [one], learning_rate=1e-3, weight_decay=0, betas=(0.9, 0.999))
        one.grad = torch.ones_like(one)
        made.step()
        cache[name, shape] = sum(
            tensor.nbytes
            for key, tensor in made.state[one].items()
            if isinstance(tensor, torch.Tensor) and not key.startswith("qmap")
        )
    return cache[name, shape]


def measure(px):
    """Return the bytes of a real step beside the estimated ones."""
    tests = Path(__file__).parent.parent / "tests"
    sys.path[:0] = [str(tests), str(tests / "training")]
    from step import full_unet
    from test_memory import measured, step_of

    needs = replace(SD15, side=px // 8, watched=True, gradient_checkpointing=True)
    begun = time.perf_counter()
    found = measured(full_unet(torch.device("cpu")), needs, 768)
    guess = step_of(estimate(*base_configs("owner/sd15"), needs))
    return {
        "measured": found,
        "estimated": guess,
        "off": round(guess / found - 1, 4),
        "seconds": round(time.perf_counter() - begun),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", action="store_true")
    asked = parser.parse_args()
    states = {}
    for preset in ("kv", "attention", "full"):
        for rank in (8, 128):
            found = shapes(preset, rank)
            weights = sum(torch.Size(shape).numel() for shape in found)
            states[f"{preset}, rank {rank}"] = {"weights": weights} | {
                name: sum(state_bytes(name, shape) for shape in found) for name in OPTIMIZERS
            }
    unet, vae = base_configs("owner/sd15")
    steps = {name: vars(estimate(unet, vae, replace(SD15, **how))) for name, how in STEPS.items()}
    result = {"optimizer_state_bytes": states, "step_bytes_512_px_batch_1": steps}
    if asked.measure:
        result["step_above_weights_bytes_dual_path_all_terms_fp32_checkpointing"] = {
            f"{px} px": measure(px) for px in (256, 512)
        }
    write_result(command_line(), result, asked.out)


if __name__ == "__main__":
    main()
