"""The builder: a recipe and a base become a trainer.

A recipe is seen here, in `stages`, `pairs.teaching_prompts`, `examples`, `finish` and `fit_gpu`;
all other functions take plain arguments.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from spf_lora.adapters.attach import attach_trainable, attach_trainable_text
from spf_lora.base.clip import find_clip, load_clip
from spf_lora.base.load import Base
from spf_lora.data.buckets import Bucket, fit
from spf_lora.data.cache import TensorCache
from spf_lora.data.captions import base_phrases, base_prompt, full_prompt
from spf_lora.data.completion import NO_KINDS, NONE, load_vocabulary
from spf_lora.data.folder import Example, dataset_digest
from spf_lora.draw.trajectories import Given
from spf_lora.errors import BaseModelError, DataError
from spf_lora.recipe.load import recipe_hash
from spf_lora.recipe.schema import Recipe
from spf_lora.registry.onto import NOTHING, Below
from spf_lora.training.baselines import RIVALS, Rival
from spf_lora.training.calibrate import LEAST_PRECISION, calibrate
from spf_lora.training.complete_captions import completed
from spf_lora.training.encoders import Encoders
from spf_lora.training.examples import shapes_of
from spf_lora.training.optim import make_optimizer
from spf_lora.training.pairs import first_seed
from spf_lora.training.precision import set_up
from spf_lora.training.prepare import prepare
from spf_lora.training.processes import Processes
from spf_lora.training.sight import Asked, Sight, make_sight
from spf_lora.training.stages import PAPER, Material, make_stages
from spf_lora.training.trainer import Plan, Tell, Trainer
from spf_lora.training.words import hardly_heard

UNCHOSEN = "all pairs are learned from"  # where no CLIP is


def build_trainer(
    recipe: Recipe,
    base: Base,
    examples: Sequence[Example],
    *,
    checkpoint: Path,
    cache: TensorCache,
    under: Below = NOTHING,
    processes: Processes | None = None,
    tell: Tell = lambda what, done, total: None,
) -> Trainer:
    """Encode the examples, attach the adapter to the base's U-Net and return its trainer.

    Args:
        recipe: what decides the training.
        base: the frozen model, with the adapters of `under` on.
        examples: what is learned.
        checkpoint: where to save, and what to resume from.
        cache: keeps encoded pictures, prompts and the pairs to learn from, for other runs too.
        under: what the new adapter is trained on top of.
        processes: this one and its siblings.
        tell: called with how far the work before a stage is.
    """
    method = recipe.training.method
    rival = RIVALS.get(method)
    paper = load_clip(base, find_clip(base, recipe.data.clip, tell)) if method == PAPER else None
    given = _given(recipe, base, examples, cache, tell)
    clip, remarks = _clip(recipe, base, tell) if given is None else (None, [])
    named, more, details = _completed(recipe, base, examples, cache, under.digest, clip, tell)
    prompts = [base_prompt(e.caption, recipe.attribute) for e in named]
    if recipe.attribute.control == "words" and not recipe.adapter.text_encoder:
        words = hardly_heard(base, prompts, recipe.attribute, cache, below=under.digest, tell=tell)
        more = [*words, *more]
    data = prepare(
        base,
        [e.image for e in examples],
        base_prompts=prompts,
        full_prompts=[full_prompt(e.caption, recipe.attribute) for e in named],
        phrases=[base_phrases(p, recipe.attribute) for p in prompts] if method == PAPER else None,
        target_text=recipe.attribute.target_text,
        own=rival is not None and rival.own_share > 0,
        as_ids=recipe.adapter.text_encoder,
        masks=_masks(rival, examples),
        clip=paper,
        buckets=shapes_of(recipe, base),
        repeats=[e.repeats for e in examples],
        cache=cache,
        below=under.digest,
        tell=tell,
    )
    parameters = attach_adapter(recipe, base)
    sight = _sight(recipe, base, examples, cache, clip, tell)
    asked = [base_prompt(e.caption, recipe.attribute) for e in examples]  # as people ask
    siblings = processes or Processes()
    material = Material(base, data, asked, cache, under, paper, sight, given, siblings)
    return Trainer(
        unet=base.unet,
        parameters=parameters,
        optimizer=optimizer_of(recipe, parameters),
        pictures=len(data),
        stages=make_stages(recipe, material),
        plan=plan_of(recipe),
        checkpoint=checkpoint,
        run_id=run_id(recipe, base, examples, under, blind=bool(remarks)),
        device=base.device,
        processes=siblings,
        remarks=[*remarks, *more],
        details=details,
        tell=tell,
    )


def attach_adapter(recipe: Recipe, base: Base) -> dict[str, torch.nn.Parameter]:
    """Attach a fresh adapter to the base, made ready to train; return its parameters."""
    training, adapter = recipe.training, recipe.adapter
    parameters = attach_trainable(
        base.unet,
        preset=adapter.preset,
        rank=adapter.rank,
        alpha=adapter.alpha,
        seed=training.seed,
    )
    if adapter.text_encoder:
        parameters |= attach_trainable_text(
            base.text_encoder, rank=adapter.rank, alpha=adapter.alpha, seed=training.seed
        )
    set_up(
        base.unet,
        precision=training.precision,
        gradient_checkpointing=training.gradient_checkpointing,
        channels_last=training.channels_last,
        compile_blocks=training.compile,
    )
    return parameters


def optimizer_of(
    recipe: Recipe, parameters: Mapping[str, torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer."""
    chosen = recipe.optimizer
    return make_optimizer(
        chosen.name,
        parameters.values(),
        learning_rate=chosen.learning_rate,
        weight_decay=chosen.weight_decay,
        betas=chosen.betas,
    )


def _given(
    recipe: Recipe, base: Base, examples: Sequence[Example], cache: TensorCache, tell: Tell
) -> Given | None:
    """Return the pairs of pictures that examples are, or None."""
    side = recipe.data.resolution or base.resolution
    encoders, square = Encoders(base, cache), Bucket(side, side)
    rows: list[torch.Tensor] = []
    for before, after in ((e.before, e.image) for e in examples):
        if before is None:
            return None
        tell("encode pairs", len(rows), len(examples))
        both = [encoders.latents(fit(picture, square)) for picture in (before, after)]
        rows.append(torch.stack(both))
    own, local = torch.stack(rows).unbind(dim=1)
    return Given(own, local, first_seed(recipe.training.seed))


def _chooses(recipe: Recipe) -> bool:
    """Tell whether there are pairs to choose from."""
    return recipe.training.method == "ours" and recipe.distil.steps > 0


def _clip(recipe: Recipe, base: Base, tell: Tell) -> tuple[str | None, list[str]]:
    """Return the CLIP to ask, if any; where there is none, what is lost without it."""
    lost = ["captions stay as they are"] if recipe.data.vocabulary != NONE else []
    lost += [UNCHOSEN] if _chooses(recipe) else []
    return clip_or_remark(base, recipe.data.clip, lost, tell) if lost else (None, [])


def clip_or_remark(
    base: Base, spec: str, lost: Sequence[str], tell: Tell
) -> tuple[str | None, list[str]]:
    """Return what `load_clip` is to load; where there is none, what to tell.

    Args:
        base: the model that is adapted.
        spec: the recipe's `data.clip`.
        lost: what happens without one.
        tell: called before anything is fetched, with its size.
    """
    try:
        return find_clip(base, spec, tell), []
    except BaseModelError as error:
        how = f"for less pollution {error.hint}"
        return None, [f"nobody sees the pictures, so {' and '.join(lost)}: {error.message}; {how}"]


def _completed(
    recipe: Recipe,
    base: Base,
    examples: Sequence[Example],
    cache: TensorCache,
    below: str,
    clip: str | None,
    tell: Tell,
) -> tuple[Sequence[Example], list[str], Sequence[str]]:
    """Complete the captions; return the examples, what to tell, and its details."""
    if recipe.data.vocabulary == NONE or clip is None:
        return examples, [], ()
    without = [base_prompt(e.caption, recipe.attribute) for e in examples]
    vocabulary = load_vocabulary(recipe.data.vocabulary, without)
    if not vocabulary.groups:
        return examples, [f"captions stay as they are: {NO_KINDS}"], ()
    asked, remarks = Asked(load_clip(base, clip), cache), []
    least = [asked.clip.certain or 0.0] * len(vocabulary.groups)
    if asked.clip.certain is None:
        guidance = recipe.distil.guidance
        sure = calibrate(asked, base, vocabulary, guidance=guidance, below=below, tell=tell)
        if sure.precision < LEAST_PRECISION:
            why = f"{sure}; {LEAST_PRECISION:.0%} is needed"
            return examples, [f"captions stay as they are: {why}"], ()
        least, remarks = list(sure.least), [str(sure)]
    done = completed(examples, recipe.attribute, vocabulary, base, asked, least, tell)
    return done.examples, [*remarks, done.remark], done.details


def _sight(
    recipe: Recipe,
    base: Base,
    examples: Sequence[Example],
    cache: TensorCache,
    clip: str | None,
    tell: Tell,
) -> Sight | None:
    """Return what chooses the pairs of our second stage, where there are any and a CLIP is."""
    if clip is None or not _chooses(recipe):
        return None
    load = partial(load_clip, base, clip)
    return make_sight(load, examples, recipe.attribute, base, cache, tell)


def plan_of(recipe: Recipe) -> Plan:
    """Return what the training loop needs to know."""
    return Plan(
        batch_size=recipe.data.batch_size,
        learning_rate=recipe.optimizer.learning_rate,
        warmup_steps=recipe.optimizer.warmup_steps,
        max_grad_norm=recipe.training.max_grad_norm,
        seed=recipe.training.seed,
        passes=recipe.data.passes,
        scaled=recipe.training.precision == "fp16",
    )


def _masks(rival: Rival | None, examples: Sequence[Example]) -> list[Image.Image] | None:
    """Return a mask per picture, white where it has none; None if nobody drew any."""
    drawn = sum(e.mask is not None for e in examples)
    if rival is not None and rival.masks and drawn < len(examples):
        raise DataError(
            f"{len(examples) - drawn} of {len(examples)} pictures have no mask, and "
            "training.method masked-prior needs one for each",
            hint="add masks to the data, or choose another method",
        )
    if not drawn or (rival is not None and not rival.masks):
        return None
    return [e.mask or Image.new("L", e.image.size, 255) for e in examples]


def run_id(
    recipe: Recipe,
    base: Base,
    examples: Sequence[Example],
    under: Below = NOTHING,
    *,
    blind: bool = False,
) -> str:
    """Return a digest of all that decides the result: recipe, base, what is on, and data.

    Args:
        recipe: what is trained.
        base: what is adapted.
        examples: the pictures and captions.
        under: what the new adapter is trained on top of.
        blind: whether the recipe asks a CLIP and there was none.
    """
    parts = f"{recipe_hash(recipe)} {base.id} {dataset_digest(examples)}"
    for vocabulary in (recipe.data.vocabulary, recipe.distil.vocabulary):
        if vocabulary != NONE:  # a file may say something else the next time
            parts += f" {load_vocabulary(vocabulary)}"
    parts += f" {under.digest}" + (" blind" if blind else "")
    return hashlib.sha256(parts.encode()).hexdigest()
