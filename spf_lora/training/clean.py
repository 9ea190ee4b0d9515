"""Cleaning an adapter: what it draws locally is taught to a fresh one, with no training picture.

It is stage 2 of a training with another teacher, anybody's LoRA (see docs/method.md). What the
teacher changes besides its target is cut off by the control maps, so the student never sees it.
Pairs are chosen as in a training; what the teacher draws in any app stands in for the user's
pictures.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from spf_lora.adapters.attach import trained_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.format.hashes import content_id
from spf_lora.adapters.module import Adapter
from spf_lora.base.clip import load_clip
from spf_lora.base.load import Base
from spf_lora.data.cache import TensorCache, content_key
from spf_lora.data.completion import NONE, load_vocabulary
from spf_lora.draw.act import acting, draw_latents
from spf_lora.draw.prompts import Prompt
from spf_lora.draw.trajectories import CHUNK
from spf_lora.recipe.load import recipe_hash, recipe_to_dict
from spf_lora.recipe.schema import Recipe
from spf_lora.training.build import (
    UNCHOSEN,
    attach_adapter,
    clip_or_remark,
    optimizer_of,
    plan_of,
)
from spf_lora.training.finish import tool_versions
from spf_lora.training.pairs import Teaching, covers, first_seed, refuse_alike
from spf_lora.training.sight import Asked, Sight, likeness
from spf_lora.training.stages import distil_stage, teaching_of
from spf_lora.training.trainer import Tell, Trainer

SHOWN = 24  # pictures of the teacher that stand in for the user's
SHOWING = "draw with the LoRA as it is"


@dataclass(frozen=True)
class Task:
    """What is cleaned.

    Attributes:
        base: the frozen model.
        teacher: the adapter to clean, at strength 1.
        prompts: without the target; `distil.vocabulary` varies them.
        wordless: whether the teacher acts on every prompt, and no words ask for it.
    """

    base: Base
    teacher: Adapter
    prompts: Sequence[str]
    wordless: bool = False

    def teaching(self, recipe: Recipe, cache: TensorCache) -> Teaching:
        """Return what draws the pairs."""
        size = (self.base.unet.config.sample_size,) * 2
        return teaching_of(
            recipe,
            self.base,
            self.prompts,
            size,
            cache,
            teacher=self.teacher,
            wordless=self.wordless,
        )


def changes_everywhere(recipe: Recipe, task: Task, cache: TensorCache, tell: Tell) -> bool:
    """Tell by the first pairs whether the teacher has no place of its own, as a style has none.

    The pairs stay in the cache for the cleaning.

    Raises:
        TrainingError: the teacher hardly changes a picture.
        OutputError: the cache cannot keep pairs.
    """
    first = task.teaching(recipe, cache).drawn(task.teacher, tell, range(CHUNK))
    refuse_alike(first.changes().max() * 2)
    return covers(first)


def build_cleaner(
    recipe: Recipe,
    task: Task,
    *,
    checkpoint: Path,
    cache: TensorCache,
    tell: Tell = lambda what, done, total: None,
) -> Trainer:
    """Attach a fresh adapter to the base's U-Net and return what teaches it.

    Args:
        recipe: its `distil` and `adapter` sections and its attribute decide the work.
        task: what is cleaned.
        checkpoint: where to save, and what to resume from.
        cache: keeps the pairs.
        tell: called with how far the drawing is.

    Raises:
        OutputError: the cache cannot keep pairs.
    """
    base = task.base
    teaching = task.teaching(recipe, cache)
    teaching.sight, remarks = _sight(recipe, task, teaching, tell)
    parameters = attach_adapter(recipe, base)
    parts = [recipe_hash(recipe), base.id, content_id(task.teacher), f"{task.wordless}"]
    parts += task.prompts
    if recipe.distil.vocabulary != NONE:  # a file may say something else the next time
        parts.append(f"{load_vocabulary(recipe.distil.vocabulary)}")
    parts += remarks and ["blind"]
    return Trainer(
        unet=base.unet,
        parameters=parameters,
        optimizer=optimizer_of(recipe, parameters),
        pictures=recipe.distil.pairs,
        stages=[distil_stage(recipe, teaching)],
        plan=plan_of(recipe),
        checkpoint=checkpoint,
        run_id=hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        device=base.device,
        remarks=remarks,
        tell=tell,
    )


def _sight(
    recipe: Recipe, task: Task, teaching: Teaching, tell: Tell
) -> tuple[Sight | None, list[str]]:
    """Return what chooses the pairs, where words ask for the target, and what to tell.

    It knows the target by what the teacher draws of the first pairs' prompts and noises, added to
    the weights as in any app.
    """
    if task.wordless:
        return None, []
    base, cache = task.base, teaching.cache
    clip, remarks = clip_or_remark(base, recipe.data.clip, [UNCHOSEN], tell)
    if clip is None:
        return None, remarks
    pairs, how, rows = list(teaching.prompts[:SHOWN]), teaching.how, list[torch.Tensor]()
    for first in range(0, len(pairs), CHUNK):
        tell(SHOWING, first, len(pairs))
        texts = [Prompt(full) for _, full in pairs[first : first + CHUNK]]
        noise = first_seed(teaching.seed) + first
        make = partial(
            draw_latents,
            base,
            texts,
            range(noise, noise + len(texts)),
            acting(task.teacher),
            steps=how.steps,
            guidance=how.guidance,
            size=how.size,
        )
        key = content_key("teacher", base.id, content_id(task.teacher), f"{how} {noise} {texts}")
        rows.append(cache.get(key, make).float().cpu())
    load = partial(load_clip, base, clip)
    asked = Asked(load(), cache)
    return Sight(load, likeness(asked, asked.latents(base, torch.cat(rows)), pairs), cache), []


def cleaned_adapter(recipe: Recipe, task: Task, metrics: Mapping[str, float]) -> Adapter:
    """Take the cleaned adapter off the base; its card names the teacher.

    Args:
        recipe: what decided the work.
        task: what was cleaned.
        metrics: measured before and after, by name.
    """
    base, said = task.base, recipe_to_dict(recipe)
    said["training"] |= {"base": base.origin, "tokenizer": "own", "method": "clean"}
    said["distil"]["vocabulary"] = Path(recipe.distil.vocabulary).name
    name, parent = recipe.attribute.name, content_id(task.teacher)
    words = recipe.attribute.control == "words"
    target = "" if task.wordless else recipe.attribute.target_text
    card = Card(
        attribute=name,
        target_text=target,
        trigger=target if words else "",
        base_id=base.id,
        recipe={key: said[key] for key in ("attribute", "adapter", "distil", "training")},
        parents=(parent,),
        metrics=metrics,
        versions=tool_versions(),
        seed=recipe.training.seed,
    )
    metadata = file_metadata(
        card,
        rank=recipe.adapter.rank,
        alpha=recipe.adapter.alpha,
        title=f"{name}, cleaned",
        description=f"Attribute LoRA: {target or name}. Taught from what another LoRA, "
        f"{parent[:12]}, changes where it answers.",
        usage_hint=f"append to the prompt: {target}" if words else "it acts on every prompt",
    )
    return trained_adapter(base.unet, metadata, text_encoder=base.text_encoder)
