"""The parts of a base, whatever layout they came in."""

from dataclasses import dataclass
from typing import Any

from spf_lora.errors import BaseModelError

_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "rescale_betas_zero_snr": False,
}


@dataclass(frozen=True, eq=False)
class Parts:
    """A base's models, frozen and in evaluation mode, in the dtypes they are stored in."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any


def make_scheduler(config: dict[str, Any]) -> Any:
    """Return a DDIM scheduler; what a config does not say is as in Stable Diffusion 1.5.

    A folder may name any sampler; only its noise schedule is the model's.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(**{key: config.get(key, value) for key, value in _SCHEDULE.items()})


def check_tokenizer(tokenizer: Any, text_encoder: Any, name: str) -> None:
    """Refuse a tokenizer whose tokens the text encoder has no embedding for.

    Raises:
        BaseModelError: it has too many.
    """
    rows = text_encoder.config.vocab_size
    if len(tokenizer) > rows:
        raise BaseModelError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, the text encoder {rows}",
            hint="name the tokenizer that belongs to this model with --tokenizer",
        )
