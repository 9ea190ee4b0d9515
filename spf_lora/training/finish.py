"""The end of a training: the adapter with its card and metadata."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from spf_lora import __version__
from spf_lora.adapters.attach import trained_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base
from spf_lora.data.folder import Example, dataset_digest
from spf_lora.recipe.load import recipe_to_dict
from spf_lora.recipe.schema import Attribute, Recipe
from spf_lora.registry.onto import NOTHING, Below

_TOOLS = ("torch", "diffusers", "peft", "transformers", "bitsandbytes")


def tool_versions() -> dict[str, str]:
    """Return the versions that a card tells, by name."""
    return {"spf-lora": __version__, **{name: version(name) for name in _TOOLS}}


def card_of(
    recipe: Recipe, base: Base, examples: Sequence[Example], under: Below = NOTHING
) -> Card:
    """Return the card of what a training makes; it is known before the training."""
    settings = recipe_to_dict(recipe) | ({"onto": under.as_rows()} if under.members else {})
    # A card names no local file, but where anyone finds the base again.
    settings["training"] |= {"base": base.origin, "tokenizer": "own"}
    for section, key in (("data", "vocabulary"), ("distil", "vocabulary"), ("data", "clip")):
        if Path(settings[section][key]).exists():
            settings[section][key] = Path(settings[section][key]).name
    return Card(
        attribute=recipe.attribute.name,
        target_text=recipe.attribute.target_text,
        trigger=recipe.attribute.target_text if recipe.attribute.control == "words" else "",
        base_id=base.id,
        recipe=settings,
        parents=under.content_ids,
        dataset_digest=dataset_digest(examples),
        versions=tool_versions(),
        seed=recipe.training.seed,
    )


def _usage(attribute: Attribute) -> str:
    if attribute.control == "words":
        return f"append to the prompt: {attribute.target_text}"
    return "a slider: the strength is how much, a negative one takes it away; no words"


def finished_adapter(
    recipe: Recipe, base: Base, examples: Sequence[Example], under: Below = NOTHING
) -> Adapter:
    """Take the trained adapter off the base, with its card; it stays on at strength 1."""
    metadata = file_metadata(
        card_of(recipe, base, examples, under),
        rank=recipe.adapter.rank,
        alpha=recipe.adapter.alpha,
        title=recipe.attribute.name,
        description=f"Attribute LoRA: {recipe.attribute.target_text}. Trained to leave the rest of "
        "the picture alone.",
        usage_hint=_usage(recipe.attribute),
    )
    return trained_adapter(base.unet, metadata, text_encoder=base.text_encoder)
