"""Samplers by the names that people know them by; each is a scheduler of diffusers."""

from dataclasses import dataclass
from typing import Any

from spf_lora.errors import PromptError
from spf_lora.strict import did_you_mean

DDIM = "ddim"
_OF_THE_BASE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
)


@dataclass(frozen=True)
class Sampler:
    """One way from noise to a picture.

    Attributes:
        title: what A1111 calls it.
        reference: where it comes from.
        scheduler: name of the class in diffusers.
        settings: of that class, besides the base's own.
        noisy: whether each step adds noise.
    """

    title: str
    reference: str
    scheduler: str
    settings: tuple[tuple[str, Any], ...] = ()
    noisy: bool = False


SAMPLERS: dict[str, Sampler] = {
    DDIM: Sampler("DDIM", "arXiv 2010.02502", "DDIMScheduler"),
    "euler": Sampler("Euler", "arXiv 2206.00364, algorithm 2", "EulerDiscreteScheduler"),
    "euler-a": Sampler(
        "Euler a",
        "arXiv 2206.00364, with ancestral noise",
        "EulerAncestralDiscreteScheduler",
        noisy=True,
    ),
    "dpm++2m": Sampler(
        "DPM++ 2M",
        "arXiv 2211.01095, algorithm 2",
        "DPMSolverMultistepScheduler",
        (("algorithm_type", "dpmsolver++"), ("solver_order", 2)),
    ),
}


def check_sampler(name: str) -> None:
    """Refuse a sampler that there is not.

    Raises:
        PromptError: there is none of that name.
    """
    if name not in SAMPLERS:
        raise PromptError(
            f"there is no sampler {name!r}{did_you_mean(name, SAMPLERS)}",
            hint=f"choose one of: {', '.join(SAMPLERS)}",
        )


def scheduler_of(base_scheduler: Any, name: str) -> Any:
    """Return a scheduler for a base, given the DDIM scheduler that came with it.

    Raises:
        PromptError: there is no sampler of that name.
    """
    check_sampler(name)
    if name == DDIM:
        return base_scheduler
    import diffusers

    row = SAMPLERS[name]
    own = {key: base_scheduler.config[key] for key in _OF_THE_BASE if key in base_scheduler.config}
    return getattr(diffusers, row.scheduler)(**own, **dict(row.settings))
