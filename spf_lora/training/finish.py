"""The end of a training: how strongly an adapter acts at strength 1, its card, its metadata."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from spf_lora import __version__
from spf_lora.adapters.attach import trained_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.module import Adapter
from spf_lora.base.clip import brings_clip, load_clip
from spf_lora.base.load import Base
from spf_lora.data.captions import base_prompt
from spf_lora.data.folder import Example, dataset_digest
from spf_lora.recipe.load import recipe_to_dict
from spf_lora.recipe.schema import Recipe
from spf_lora.registry.onto import NOTHING, Below
from spf_lora.training.build import drawn_prompts
from spf_lora.training.calibrate import find_dose, find_start
from spf_lora.training.protected import protected_prompts

_TOOLS = ("torch", "diffusers", "peft", "transformers", "bitsandbytes")


def card_of(
    recipe: Recipe, base: Base, examples: Sequence[Example], under: Below = NOTHING
) -> Card:
    """Return the card of what a training makes; it is known before the training."""
    said = recipe_to_dict(recipe) | ({"onto": under.as_rows()} if under.members else {})
    # A card names no local file, but where anyone finds the base again.
    said["training"] |= {"base": base.origin, "tokenizer": "own"}
    for section, key in (("data", "vocabulary"), ("align", "vocabulary"), ("align", "clip")):
        if Path(said[section][key]).exists():
            said[section][key] = Path(said[section][key]).name
    return Card(
        attribute=recipe.attribute.name,
        target_text=recipe.attribute.target_text,
        trigger=recipe.attribute.target_text,
        base_id=base.id,
        recipe=said,
        parents=under.content_ids,
        dataset_digest=dataset_digest(examples),
        versions={"spf-lora": __version__, **{name: version(name) for name in _TOOLS}},
        seed=recipe.training.seed,
    )


def finished_adapter(
    recipe: Recipe, base: Base, examples: Sequence[Example], under: Below = NOTHING
) -> Adapter:
    """Take the trained adapter off the base's U-Net, with its card; it stays on at strength 1."""
    dose, start = _calibrated(recipe, base, examples, under)
    metrics = {"dose": dose, "start_percent": start}
    card = replace(card_of(recipe, base, examples, under), metrics=metrics)
    metadata = file_metadata(
        card, rank=recipe.adapter.rank, alpha=recipe.adapter.alpha * dose,
        title=recipe.attribute.name,
        description=f"Pollution-free attribute LoRA: {recipe.attribute.target_text}",
        usage_hint=f"append to the prompt: {recipe.attribute.target_text}" + _late(start),
    )  # fmt: skip
    return trained_adapter(base.unet, metadata)


def _late(start: float) -> str:
    return (
        f"; adapter and words may begin at start_percent {start:g}, which moves less"
        if start
        else ""
    )


def _calibrated(
    recipe: Recipe, base: Base, examples: Sequence[Example], under: Below
) -> tuple[float, float]:
    """Return the share of what was trained that is strength 1, and when it may begin to act.

    The adapter is left at that strength, acting all the time.
    """
    if not recipe.training.calibrate or not brings_clip(base, recipe.align.clip):
        return 1.0, 0.0
    said = [base_prompt(e.caption, recipe.attribute) for e in examples]
    asked = protected_prompts(drawn_prompts(recipe, said), recipe.attribute, under)
    clip = load_clip(base, recipe.align.clip)
    dose = find_dose(base, clip, asked, alpha=recipe.adapter.alpha)
    return dose, find_start(base, clip, asked, alpha=recipe.adapter.alpha * dose)
