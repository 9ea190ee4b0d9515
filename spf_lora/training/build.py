"""The builders: a recipe and a base become a trainer, and a trained adapter becomes a file.

Only these functions see a recipe; everything below takes plain arguments.
"""

import hashlib
import random
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from spf_lora import __version__
from spf_lora.adapters.attach import attach_trainable, trained_adapter
from spf_lora.adapters.card import Card, file_metadata
from spf_lora.adapters.file import Adapter
from spf_lora.base.load import Base
from spf_lora.data.captions import base_prompt, full_prompt
from spf_lora.data.folder import Example, dataset_digest, read_folder
from spf_lora.data.portraits import caption, training_set, unbiased
from spf_lora.errors import RecipeError
from spf_lora.recipe import Recipe, recipe_hash, recipe_to_dict
from spf_lora.training.optim import make_optimizer
from spf_lora.training.prepare import prepare
from spf_lora.training.trainer import Plan, Trainer, Weights

_LARGEST_PX = 1024  # larger photographs are shrunk while reading, to spare memory
_TOOLS = ("torch", "diffusers", "peft", "transformers", "bitsandbytes")


def load_examples(recipe: Recipe, folder: Path | None) -> list[Example]:
    """Read the user's folder, or draw the recipe's biased portraits.

    Raises:
        DataError: lists every fault of the folder; or the portrait world lacks the attribute.
    """
    if folder is not None:
        return read_folder(folder, recipe.attribute, shorter_side_px=_LARGEST_PX)
    drawn = training_set(
        recipe.attribute.name, count=recipe.data.count, seed=recipe.data.seed,
        coverage=recipe.data.coverage, bias=recipe.data.bias,
    )  # fmt: skip
    return [Example(picture, text, f"portrait {i}") for i, (picture, text) in enumerate(drawn)]


def _plan(recipe: Recipe) -> Plan:
    return Plan(
        learn_steps=recipe.learn.steps,
        align_steps=recipe.align.steps,
        batch_size=recipe.data.batch_size,
        learning_rate=recipe.optimizer.learning_rate,
        warmup_steps=recipe.optimizer.warmup_steps,
        empty_prompts=recipe.align.empty_prompts,
        base_prompts=recipe.align.base_prompts,
        max_grad_norm=recipe.training.max_grad_norm,
        seed=recipe.training.seed,
        weights=Weights(
            fine_grained=recipe.align.fine_grained,
            text_consistent=recipe.align.text_consistent,
            outside_map=recipe.align.outside_map,
            map_area_cap=recipe.align.map_area_cap,
        ),
    )


def build_trainer(
    recipe: Recipe, base: Base, examples: Sequence[Example], *, checkpoint: Path
) -> Trainer:
    """Encode the examples, attach the adapter to the base's U-Net and return its trainer."""
    prompts = [base_prompt(e.caption, recipe.attribute) for e in examples]
    data = prepare(
        base,
        [e.image for e in examples],
        base_prompts=prompts,
        full_prompts=[full_prompt(e.caption, recipe.attribute) for e in examples],
    )
    parameters = attach_trainable(
        base.unet, preset=recipe.adapter.preset, rank=recipe.adapter.rank,
        alpha=recipe.adapter.alpha, seed=recipe.training.seed,
    )  # fmt: skip
    optimizer = make_optimizer(
        recipe.optimizer.name, parameters.values(),
        learning_rate=recipe.optimizer.learning_rate,
        weight_decay=recipe.optimizer.weight_decay, betas=recipe.optimizer.betas,
    )  # fmt: skip
    return Trainer(
        unet=base.unet, parameters=parameters, optimizer=optimizer, scheduler=base.scheduler,
        data=data, plan=_plan(recipe), checkpoint=checkpoint,
        run_id=run_id(recipe, base, examples),
    )  # fmt: skip


def run_id(recipe: Recipe, base: Base, examples: Sequence[Example]) -> str:
    """Return a digest of all that decides the result: recipe, base and data."""
    parts = f"{recipe_hash(recipe)} {base.id} {dataset_digest(examples)}"
    return hashlib.sha256(parts.encode()).hexdigest()


def finished_adapter(recipe: Recipe, base: Base, examples: Sequence[Example]) -> Adapter:
    """Take the trained adapter off the base's U-Net, with its card."""
    said = recipe_to_dict(recipe)
    if base.name != "embedded":
        said["training"]["base"] = base.id  # not the path: a card names no local file
    card = Card(
        attribute=recipe.attribute.name,
        target_text=recipe.attribute.target_text,
        trigger=recipe.attribute.target_text,
        base_id=base.id,
        recipe=said,
        dataset_digest=dataset_digest(examples),
        versions={"spf-lora": __version__, **{name: version(name) for name in _TOOLS}},
        seed=recipe.training.seed,
    )
    metadata = file_metadata(
        card, rank=recipe.adapter.rank, alpha=recipe.adapter.alpha, title=recipe.attribute.name,
        description=f"Pollution-free attribute LoRA: {recipe.attribute.target_text}",
        usage_hint=f"append to the prompt: {recipe.attribute.target_text}",
    )  # fmt: skip
    return trained_adapter(base.unet, metadata)


def with_steps(recipe: Recipe, steps: int) -> tuple[str, str]:
    """Return the overrides that give a run of `steps` in the recipe's own proportions.

    Raises:
        RecipeError: fewer than 2 steps where both stages are asked for, or fewer than 1.
    """
    both = recipe.align.steps > 0
    if steps < (2 if both else 1):
        raise RecipeError(
            f"--steps {steps} leaves nothing to train",
            hint="give at least 2: the two stages share them",
        )
    share = recipe.learn.steps / (recipe.learn.steps + recipe.align.steps)
    learn = min(max(1, round(steps * share)), steps - both)
    return f"learn.steps={learn}", f"align.steps={steps - learn}"


def preview_prompts(recipe: Recipe, examples: Sequence[Example], count: int) -> list[str]:
    """Return captions to try the adapter on: held-out portraits, or the data's own base prompts.

    The full prompt is made of each by appending or replacing, as in training.
    """
    if recipe.training.base == "embedded":
        rng = random.Random(f"held-out {recipe.attribute.name}")
        captions = [caption(unbiased(rng)) for _ in range(count)]
    else:
        captions = [base_prompt(e.caption, recipe.attribute) for e in examples[:count]]
    return captions
