"""The plan of a training without training: its memory, and the settings that fit a GPU."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spf_lora.base.load import EMBEDDED
from spf_lora.documents import read_json
from spf_lora.recipe.schema import Recipe
from spf_lora.training.memory import GPU_OWN, Estimate, Needs, estimate

_GB = 1e9
_PARTS = ("unet", "vae")
_ESTIMATED: dict[str, Estimate] = {}  # several attributes are trained alike; one takes seconds
_SD15_UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
}
_SD15_VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
}
_SD15_TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}


@dataclass(frozen=True)
class Fit:
    """Settings that fit, as `--set` takes them, and what they need."""

    changes: tuple[str, ...]
    needs: Estimate


def base_configs(spec: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configs of a base's U-Net and VAE; SD1.5's where no folder here tells them."""
    folder = EMBEDDED if spec == "embedded" else Path(spec)
    try:
        configs = [read_json(folder / p / "config.json", most_bytes=1 << 20) for p in _PARTS]
    except (OSError, ValueError):
        return _SD15_UNET, _SD15_VAE
    return configs[0], configs[1]


def text_config(spec: str) -> dict[str, Any]:
    """Return the config of a base's text encoder; SD1.5's where no folder here tells it."""
    folder = EMBEDDED if spec == "embedded" else Path(spec)
    try:
        return dict(read_json(folder / "text_encoder" / "config.json", most_bytes=1 << 20))
    except (OSError, ValueError):
        return _SD15_TEXT


def trained_text(recipe: Recipe) -> dict[str, Any] | None:
    """Return the config of the text encoder where the recipe trains it; else None."""
    return text_config(recipe.training.base) if recipe.adapter.text_encoder else None


def needs_of(recipe: Recipe, unet: dict[str, Any], vae: dict[str, Any]) -> Needs:
    """Return what a recipe's step needs; the largest of its stages decides.

    Pictures of other shapes have about as many pixels as the square one.
    """
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    side = recipe.data.resolution // factor or unet["sample_size"]
    training = recipe.training
    paper = training.method == "spf-portrait"
    return Needs(
        side=side,
        pictures=recipe.data.batch_size // recipe.data.passes,
        preset=recipe.adapter.preset,
        rank=recipe.adapter.rank,
        optimizer=recipe.optimizer.name,
        precision=training.precision,
        gradient_checkpointing=training.gradient_checkpointing,
        dual=training.method not in ("ours", "plain"),
        watched=paper,
        response=paper,
    )


def estimate_recipe(recipe: Recipe) -> Estimate:
    """Estimate the memory of a recipe's steps."""
    unet, vae = base_configs(recipe.training.base)
    text, needs = trained_text(recipe), needs_of(recipe, unet, vae)
    key = f"{unet} {vae} {text} {needs}"
    if key not in _ESTIMATED:
        _ESTIMATED[key] = estimate(unet, vae, needs, text)
    return _ESTIMATED[key]


def fit(recipe: Recipe, vram_gb: float) -> Fit | None:
    """Return the first settings that fit a GPU, from the fastest to the slowest; None if none do.

    What CUDA itself takes is set aside.
    """
    if vram_gb * _GB <= GPU_OWN:
        return None
    unet, vae = base_configs(recipe.training.base)
    text = trained_text(recipe)
    known: dict[Needs, Estimate] = {}
    for changes, needs in _ladder(recipe, needs_of(recipe, unet, vae)):
        one = replace(needs, pictures=1)
        if one not in known:
            known[one] = estimate(unet, vae, one, text)
        needed = _times(known[one], needs.pictures)
        if needed.total + GPU_OWN <= vram_gb * _GB:
            return Fit(changes, needed)
    return None


def _times(one: Estimate, pictures: int) -> Estimate:
    """Return the estimate for several pictures: what belongs to each is there once for each."""
    return replace(
        one,
        activations=one.activations * pictures + (pictures - 1) * one.gradients,
        reference_targets=one.reference_targets * pictures,
        response_loss=one.response_loss * pictures,
    )


def _ladder(recipe: Recipe, needs: Needs) -> Iterator[tuple[tuple[str, ...], Needs]]:
    batch = recipe.data.batch_size
    halves = [n for n in range(1, batch + 1) if batch % n == 0 and n >= recipe.data.passes]
    changes: tuple[str, ...] = ()
    yield changes, needs
    if needs.precision == "fp32":
        changes, needs = (*changes, "training.precision=bf16"), replace(needs, precision="bf16")
        yield changes, needs
    if needs.optimizer in ("adamw", "prodigy"):
        changes = (*changes, "optimizer.name=adamw8bit")
        needs = replace(needs, optimizer="adamw8bit")
        yield changes, needs
    for passes in halves[1:]:
        yield (*changes, f"data.passes={passes}"), replace(needs, pictures=batch // passes)
    if not needs.gradient_checkpointing:
        changes = (*changes, "training.gradient_checkpointing=true")
        needs = replace(needs, gradient_checkpointing=True)
        for passes in halves:
            more = (f"data.passes={passes}",) if passes != recipe.data.passes else ()
            yield (*changes, *more), replace(needs, pictures=batch // passes)
