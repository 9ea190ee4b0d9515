"""Cleaning an adapter: what it draws locally is taught to a fresh one, with no training picture.

It is stage 2 of a training with another teacher, anybody's LoRA (see docs/method.md). What the
teacher changes besides its target is cut off by the control maps, so the student never sees it.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from spf_lora.adapters.attach import trained_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.format.hashes import content_id
from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base
from spf_lora.data.cache import TensorCache
from spf_lora.data.completion import NONE, load_vocabulary
from spf_lora.recipe.load import recipe_hash, recipe_to_dict
from spf_lora.recipe.schema import Recipe
from spf_lora.training.build import attach_adapter, optimizer_of, plan_of
from spf_lora.training.finish import tool_versions
from spf_lora.training.stages import distil_stage
from spf_lora.training.trainer import Tell, Trainer


def build_cleaner(
    recipe: Recipe,
    base: Base,
    teacher: Adapter,
    prompts: Sequence[str],
    *,
    checkpoint: Path,
    cache: TensorCache,
    tell: Tell = lambda what, done, total: None,
) -> Trainer:
    """Attach a fresh adapter to the base's U-Net and return what teaches it.

    Args:
        recipe: its `distil` and `adapter` sections and its attribute decide the work.
        base: the frozen model.
        teacher: the adapter to clean, at strength 1.
        prompts: without the target; `distil.vocabulary` varies them.
        checkpoint: where to save, and what to resume from.
        cache: keeps the pairs.
        tell: called with how far the drawing is.

    Raises:
        OutputError: the cache cannot keep pairs.
    """
    parameters = attach_adapter(recipe, base)
    side = base.unet.config.sample_size
    stage = distil_stage(recipe, base, prompts, (side, side), cache, teacher=teacher)
    parts = [recipe_hash(recipe), base.id, content_id(teacher), *prompts]
    if recipe.distil.vocabulary != NONE:  # a file may say something else the next time
        parts.append(f"{load_vocabulary(recipe.distil.vocabulary)}")
    return Trainer(
        unet=base.unet,
        parameters=parameters,
        optimizer=optimizer_of(recipe, parameters),
        pictures=recipe.distil.pairs,
        stages=[stage],
        plan=plan_of(recipe),
        checkpoint=checkpoint,
        run_id=hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        device=base.device,
        tell=tell,
    )


def cleaned_adapter(recipe: Recipe, base: Base, teacher: Adapter) -> Adapter:
    """Take the cleaned adapter off the base; its card names the teacher."""
    said = recipe_to_dict(recipe)
    said["training"] |= {"base": base.origin, "tokenizer": "own", "method": "clean"}
    said["distil"]["vocabulary"] = Path(recipe.distil.vocabulary).name
    target = recipe.attribute.target_text
    parent = content_id(teacher)
    card = Card(
        attribute=recipe.attribute.name,
        target_text=target,
        trigger=target,
        base_id=base.id,
        recipe={key: said[key] for key in ("attribute", "adapter", "distil", "training")},
        parents=(parent,),
        versions=tool_versions(),
        seed=recipe.training.seed,
    )
    metadata = file_metadata(
        card,
        rank=recipe.adapter.rank,
        alpha=recipe.adapter.alpha,
        title=f"{recipe.attribute.name}, cleaned",
        description=f"Attribute LoRA: {target}. Taught from what another LoRA, {parent[:12]}, "
        "changes where it answers.",
        usage_hint=f"append to the prompt: {target}",
    )
    return trained_adapter(base.unet, metadata, text_encoder=base.text_encoder)
