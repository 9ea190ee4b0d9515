"""The loop every stage shares: seeded batches, one-cycle learning rate, checkpoints, resume."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from embedded.device import device
from spf_lora.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)

Loss = Callable[[np.ndarray, int, torch.Generator], torch.Tensor]


def _schedule(
    optimizer: torch.optim.Optimizer, peak: float, steps: int, decay: float | None
) -> torch.optim.lr_scheduler.LRScheduler:
    if decay is None:
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, peak, total_steps=steps, pct_start=0.05, cycle_momentum=False
        )
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 200, (steps - step) / (decay * steps))
    )


def train(
    name: str,
    modules: dict[str, nn.Module],
    loss: Loss,
    *,
    count: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    work: Path,
    seed: int,
    ema: float | None = None,
    decay: float | None = None,
    every: int = 50,
) -> dict[str, dict[str, torch.Tensor]]:
    """Train `modules` and return their weights (averaged ones with `ema`), resuming if it can.

    Args:
        name: of the stage; its checkpoint is `work/<name>.safetensors`.
        modules: what is trained, by name.
        loss: maps (indices, step, generator) to a scalar.
        count: number of examples.
        steps: how many.
        batch_size: examples a step.
        learning_rate: its peak.
        decay: share of the steps in which a constant rate falls to 0; None: one-cycle.
        work: folder of checkpoints.
        seed: everything random follows from it and the step's number.
        ema: decay of the averaged weights, if any.
        every: steps between checkpoints.
    """
    for module in modules.values():
        module.to(device())
    parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    schedule = _schedule(optimizer, learning_rate, steps, decay)
    path, first, seconds = work / f"{name}.safetensors", 0, 0.0
    average = {n: {k: v.clone() for k, v in m.state_dict().items()} for n, m in modules.items()}
    if path.exists():
        groups, facts = load_checkpoint(path)
        first, seconds = facts["step"], facts["seconds"]
        for n, m in modules.items():
            m.load_state_dict(groups[n])
            kept = groups.get(f"ema.{n}", groups[n])
            average[n] = {k: v.to(device()) for k, v in kept.items()}
        restore_optimizer(optimizer, groups["optimizer"], facts["scalars"])
        for _ in range(first):
            schedule.step()
    begun, running = time.time(), 0.0
    for step in range(first, steps):
        order = np.random.default_rng((seed, step))
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        value = loss(order.integers(0, count, batch_size), step, generator)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        running = value.item() if step == first else 0.98 * running + 0.02 * value.item()
        if ema is not None:
            rate = min(ema, (step + 1) / (step + 10))
            for n, m in modules.items():
                for key, tensor in m.state_dict().items():
                    average[n][key].lerp_(tensor, 1 - rate)
        if (step + 1) % 50 == 0:
            speed = (time.time() - begun) / (step + 1 - first)
            print(f"{name} {step + 1}/{steps} loss {running:.4f} {speed:.2f} s/step", flush=True)
        if (step + 1) % every == 0 or step + 1 == steps:
            tensors, scalars = optimizer_tensors(optimizer)
            groups = {n: m.state_dict() for n, m in modules.items()} | {"optimizer": tensors}
            if ema is not None:
                groups |= {f"ema.{n}": average[n] for n in modules}
            spent = seconds + time.time() - begun
            save_checkpoint(path, groups, {"step": step + 1, "scalars": scalars, "seconds": spent})
    return average if ema is not None else {n: m.state_dict() for n, m in modules.items()}
