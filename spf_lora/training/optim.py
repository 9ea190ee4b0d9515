"""Optimizers and the learning-rate schedule; an optimizer is a row in a table."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from spf_lora.errors import TrainingError


def _bitsandbytes(name: str) -> Callable[..., torch.optim.Optimizer]:
    def make(parameters: Iterable[torch.nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
        import bitsandbytes.optim

        made: torch.optim.Optimizer = getattr(bitsandbytes.optim, name)(parameters, **settings)
        return made

    return make


def _prodigy(parameters: Iterable[torch.nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    try:
        from prodigyopt import Prodigy
    except ImportError as error:
        raise TrainingError(
            "the optimizer prodigy needs a package that is not installed",
            hint='pip install "spf-lora[prodigy]"; and set optimizer.learning_rate=1',
        ) from error
    made: torch.optim.Optimizer = Prodigy(parameters, **settings)
    return made


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    # 8-bit moments, block-wise quantised (Dettmers et al., arXiv 2110.02861); on CPU and CUDA.
    "adamw8bit": _bitsandbytes("AdamW8bit"),
    # The same; on CUDA the moments move to main memory when the GPU's runs out.
    "paged-adamw8bit": _bitsandbytes("PagedAdamW8bit"),
    "lion8bit": _bitsandbytes("Lion8bit"),  # one moment, sign of the update (arXiv 2302.06675)
    "adamw": torch.optim.AdamW,  # Loshchilov and Hutter, arXiv 1711.05101
    "prodigy": _prodigy,  # finds the learning rate itself (arXiv 2306.06101); 4 moments
}


def make_optimizer(
    name: str,
    parameters: Iterable[torch.nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
) -> torch.optim.Optimizer:
    """Return the optimizer of a table row.

    Raises:
        TrainingError: there is no such row.
    """
    if name not in OPTIMIZERS:
        raise TrainingError(
            f"there is no optimizer {name!r}", hint=f"choose one of {', '.join(OPTIMIZERS)}"
        )
    return OPTIMIZERS[name](parameters, lr=learning_rate, weight_decay=weight_decay, betas=betas)


def rate_at(step: int, *, steps: int, warmup_steps: int) -> float:
    """Return the learning rate's factor: linear warm-up, then a half cosine to 0.

    Args:
        step: from 0.
        steps: in the whole run, both stages.
        warmup_steps: of them, at the start.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
