"""The builders: a recipe and a base become a trainer.

Only these functions and `finish` see a recipe; everything below takes plain arguments.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from spf_lora.adapters.attach import attach_trainable
from spf_lora.base.clip import ClipModel, brings_clip, load_clip
from spf_lora.base.load import Base
from spf_lora.base.outline import picture_step
from spf_lora.base.texts import cut_off
from spf_lora.data.buckets import Bucket, make_buckets
from spf_lora.data.cache import TensorCache
from spf_lora.data.captions import base_phrases, base_prompt, full_prompt, has_target
from spf_lora.data.check import Report, check
from spf_lora.data.completion import NONE, load_vocabulary, varied
from spf_lora.data.folder import LARGEST_PX, Example, Scan, dataset_digest, read_folder, usable
from spf_lora.data.worlds.portraits import training_set
from spf_lora.errors import DataError, RecipeError
from spf_lora.method.protect import LEAST_SELECTIVE, project_, reads_text
from spf_lora.recipe.files import list_recipes
from spf_lora.recipe.load import load_recipe, recipe_hash
from spf_lora.recipe.schema import Recipe
from spf_lora.registry.onto import NOTHING, Below
from spf_lora.training.baselines import RIVALS, Rival, RivalObjective
from spf_lora.training.batch import Mix
from spf_lora.training.complete_captions import completed
from spf_lora.training.objectives import Align, Learn, MapSettings, Weights, time_weights
from spf_lora.training.optim import make_optimizer
from spf_lora.training.precision import set_up
from spf_lora.training.prepare import Prepared, prepare
from spf_lora.training.processes import Processes
from spf_lora.training.protected import protected_prompts, subspace_of_prompts, taught
from spf_lora.training.relevance import relevances
from spf_lora.training.trainer import Plan, Stage, Trainer
from spf_lora.training.witness import combined, surprises

_LARGEST_DECODED = 32  # latents; larger ones are halved before a response loss decodes them


def load_examples(recipe: Recipe, folder: Path | None) -> list[Example]:
    """Read the user's folder, or draw the recipe's biased portraits.

    Raises:
        DataError: lists every fault of the folder; or the portrait world lacks the attribute.
    """
    if folder is not None:
        return read_folder(folder, recipe.attribute, shorter_side_px=LARGEST_PX)
    drawn = training_set(
        recipe.attribute.name, count=recipe.data.count, seed=recipe.data.seed,
        coverage=recipe.data.coverage, bias=recipe.data.bias,
    )  # fmt: skip
    rival = RIVALS.get(recipe.training.method)
    told = rival is not None and rival.masks  # nobody else is told where the attribute is
    return [
        Example(picture, text, f"portrait {i}", mask if told else None)
        for i, (picture, text, mask) in enumerate(drawn)
    ]


def shapes_of(recipe: Recipe, base: Base) -> list[Bucket]:
    """Return the shapes that pictures are trained in, at the recipe's or the base's resolution."""
    levels = (len(model.config.block_out_channels) for model in (base.vae, base.unet))
    return make_buckets(recipe.data.resolution or base.resolution, step=picture_step(*levels))


def checked_examples(
    recipe: Recipe, base: Base, scan: Scan, *, skip_faulty: bool = False
) -> tuple[list[Example], Report]:
    """Check a folder as `data check` does; return what can be trained on, and what was found.

    Raises:
        DataError: lists every fault, unless the user asked to go on without those pictures.
    """
    report = check(
        scan, recipe.attribute, buckets=shapes_of(recipe, base),
        cut_off=lambda prompt: cut_off(base.tokenizer, prompt),
    )  # fmt: skip
    faults = [fault for fault in report.faults if fault not in scan.faults]
    return usable(scan, recipe.attribute, more=faults, skip_faulty=skip_faulty), report


def build_trainer(
    recipe: Recipe, base: Base, examples: Sequence[Example], *, checkpoint: Path,
    under: Below = NOTHING, processes: Processes | None = None, cache: TensorCache | None = None,
) -> Trainer:  # fmt: skip
    """Encode the examples, attach the adapter to the base's U-Net and return its trainer.

    Args:
        recipe: what decides the training.
        base: the frozen model, with the adapters of `under` on.
        examples: what is learned.
        checkpoint: where to save, and what to resume from.
        under: what the new adapter is trained on top of; its prompts are protected.
        processes: this one and its siblings.
        cache: keeps encoded pictures and prompts for other runs.
    """
    rival = None if recipe.training.method == "ours" else RIVALS[recipe.training.method]
    mix = rival.mix if rival else _mix(recipe)
    responds = rival is None and recipe.align.response > 0
    clip = load_clip(base, recipe.align.clip) if responds else None
    asked, told = _completed(recipe, base, examples)
    said = [base_prompt(e.caption, recipe.attribute) for e in examples]  # as people ask
    own_prompts = drawn_prompts(recipe, said)
    prompts = [base_prompt(e.caption, recipe.attribute) for e in asked]
    masks = _masks(rival, examples)
    # a map is wanted, and nobody drew it
    witness = (
        rival is None and masks is None and recipe.attribute.scope == "local"
        and recipe.align.steps > 0 and recipe.align.surprise > 0
    )  # fmt: skip
    own = mix.needs_twins or witness
    data = prepare(
        base,
        [e.image for e in examples],
        base_prompts=prompts,
        full_prompts=[full_prompt(e.caption, recipe.attribute) for e in asked],
        phrases=[base_phrases(p, recipe.attribute) for p in prompts],
        target_text=recipe.attribute.target_text,
        twin_prompts=protected_prompts(own_prompts, recipe.attribute, under) if own else (),
        masks=masks,
        clip=clip,
        buckets=shapes_of(recipe, base),
        cache=cache,
    )
    parameters = attach_trainable(
        base.unet, preset=recipe.adapter.preset, rank=recipe.adapter.rank,
        alpha=recipe.adapter.alpha, seed=recipe.training.seed,
    )  # fmt: skip
    set_up(
        base.unet, precision=recipe.training.precision,
        gradient_checkpointing=recipe.training.gradient_checkpointing,
        channels_last=recipe.training.channels_last, compile_blocks=recipe.training.compile,
    )  # fmt: skip
    optimizer = make_optimizer(
        recipe.optimizer.name, parameters.values(),
        learning_rate=recipe.optimizer.learning_rate,
        weight_decay=recipe.optimizer.weight_decay, betas=recipe.optimizer.betas,
    )  # fmt: skip
    keep, remarks = _subspace(
        recipe, base, list(dict.fromkeys([*said, *own_prompts])), under, parameters
    )
    found = _where(recipe, base, data) if witness else None
    text = frozenset(filter(reads_text, parameters)) if recipe.learn.text_only else None
    stages = _stages(recipe, base, data, rival, clip, mix, found, text)
    return Trainer(
        unet=base.unet, parameters=parameters, optimizer=optimizer, scheduler=base.scheduler,
        data=data, stages=stages, plan=_plan(recipe),
        checkpoint=checkpoint, run_id=run_id(recipe, base, examples, under), after_step=keep,
        processes=processes, remarks=(*told, *remarks),
    )  # fmt: skip


def _completed(
    recipe: Recipe, base: Base, examples: Sequence[Example]
) -> tuple[Sequence[Example], list[str]]:
    """Complete the captions; return the examples and what to tell."""
    if not brings_clip(base, recipe.align.clip):
        return examples, _without_clip(recipe)
    if recipe.data.vocabulary == NONE:
        return examples, []
    vocabulary = load_vocabulary(recipe.data.vocabulary)
    clip = load_clip(base, recipe.align.clip)
    found, remark = completed(examples, recipe.attribute, vocabulary, base, clip)
    return found, [remark]


def _without_clip(recipe: Recipe) -> list[str]:
    """Return what to tell where a recipe would ask a CLIP and there is none."""
    lost = {
        "captions stay as they are": recipe.data.vocabulary != NONE,
        "no relevance in the control map": recipe.align.relevance,
        "strength 1 is all that was trained": recipe.training.calibrate,
    }
    told = ", ".join(what for what, asked in lost.items() if asked)
    why = "that needs a CLIP, and this base brings none"
    return [f"{told}: {why} (--set align.clip=openai/clip-vit-large-patch14)"] if told else []


def _where(recipe: Recipe, base: Base, data: Prepared) -> torch.Tensor:
    """Return where witnesses that need no trained adapter see the attribute, (n, 1, h, w)."""
    seed = recipe.training.seed
    witnesses = [surprises(base.unet, data, base.scheduler, seed=seed)]
    if recipe.align.relevance and brings_clip(base, recipe.align.clip):
        clip = load_clip(base, recipe.align.clip)
        witnesses.append(relevances(base, clip, data, recipe.attribute.target_text, seed=seed))
    return combined(witnesses, data.sizes)


def drawn_prompts(recipe: Recipe, said: list[str]) -> list[str]:
    """Return what the base draws its own pictures from: of all kinds, not the captions' alone."""
    wanted = said * recipe.align.own_pictures
    if recipe.align.vocabulary == NONE:
        return wanted
    vocabulary = load_vocabulary(recipe.align.vocabulary)
    rng = random.Random(recipe.training.seed)
    return [varied(prompt, recipe.attribute, vocabulary, rng) for prompt in wanted]


def _plan(recipe: Recipe) -> Plan:
    return Plan(
        batch_size=recipe.data.batch_size,
        learning_rate=recipe.optimizer.learning_rate,
        warmup_steps=recipe.optimizer.warmup_steps,
        max_grad_norm=recipe.training.max_grad_norm,
        seed=recipe.training.seed,
        passes=recipe.data.passes,
        scaled=recipe.training.precision == "fp16",
    )


def _mix(recipe: Recipe) -> Mix:
    if recipe.align.steps == 0:
        return Mix()
    return Mix(recipe.align.twins, recipe.align.base_prompts, recipe.align.empty_prompts)


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


def _stages(
    recipe: Recipe, base: Base, data: Prepared, rival: Rival | None, clip: ClipModel | None,
    mix: Mix, witnessed: torch.Tensor | None, trains: frozenset[str] | None,
) -> list[Stage]:  # fmt: skip
    align = recipe.align
    if rival is not None:
        objective = RivalObjective(
            base.unet, data, rival, weight=recipe.training.rival_weight or rival.weight
        )
        return [
            Stage(recipe.training.method, recipe.learn.steps + align.steps, objective, rival.mix)
        ]
    times = time_weights(base.scheduler, recipe.training.x0_weight_cap)
    weights = Weights(
        denoise=align.denoise, outside_map=align.outside_map, fine_grained=align.fine_grained,
        text_consistent=align.text_consistent, response=align.response,
        response_max_t=align.response_max_t, phrases=align.phrases,
    )  # fmt: skip
    settings = MapSettings(
        area_cap=align.map_area_cap,
        decay=align.map_decay, everywhere=recipe.attribute.scope == "global",
        surprise=align.surprise,
    )  # fmt: skip
    aligned = Align(
        base.unet, data, weights=weights, settings=settings, times=times,
        alphas=base.scheduler.alphas_cumprod, embed=_embedder(base, clip),
        witnessed=witnessed,
    )  # fmt: skip
    learned = Learn(base.unet, data, times, witnessed, align.map_area_cap)
    learn = Stage("learn", recipe.learn.steps, learned, trains=trains)
    return [learn, Stage("align", align.steps, aligned, mix)]


def _embedder(base: Base, clip: ClipModel | None) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return scaled latents -> CLIP embeddings; large latents are halved before decoding."""
    if clip is None:
        return None

    def embed(latents: torch.Tensor) -> torch.Tensor:
        if latents.shape[-1] > _LARGEST_DECODED:
            latents = avg_pool2d(latents, 2)  # decoding 512 px with gradient holds 6 GB
        pixels = base.vae.decode(latents / base.vae.config.scaling_factor).sample
        return clip.embed_image(pixels.clamp(-1, 1))

    return embed


def _subspace(
    recipe: Recipe, base: Base, prompts: Sequence[str], under: Below,
    parameters: Mapping[str, torch.nn.Parameter],
) -> tuple[Callable[[], None], tuple[str, ...]]:  # fmt: skip
    """Choose what keys and values may read; return what keeps them to it, and what to tell."""
    if recipe.adapter.subspace == 0:
        return lambda: None, ()
    chosen = subspace_of_prompts(
        base, prompts, [full_prompt(p, recipe.attribute) for p in prompts],
        others=_other_prompts(recipe, prompts, under), door=recipe.adapter.door,
        rank=recipe.adapter.subspace,
    )  # fmt: skip
    found = (
        f"keys and values read what asks for it {chosen.selectivity:.0f} times as strongly as "
        f"what does not; at most {chosen.leak:.2%} of a state that does not ask gets through"
    )
    if chosen.selectivity < LEAST_SELECTIVE:
        return lambda: None, (f"{found}: too little to choose by, so they read everything",)
    project_(parameters, chosen.basis, lengths=True)
    return lambda: project_(parameters, chosen.basis), (found,)


def _other_prompts(recipe: Recipe, prompts: Sequence[str], under: Below) -> list[str]:
    """Return prompts that ask for other attributes: those of the other recipes and of `under`."""
    others = []
    known = [load_recipe(path).attribute for path in list_recipes(shipped_only=True).values()]
    for other in {one.target_text: one for one in (*known, *taught(under))}.values():
        if other.name != recipe.attribute.name:
            others += [full_prompt(p, other) for p in prompts[::4]]
    return [p for p in others if not has_target(p, recipe.attribute)]


def run_id(recipe: Recipe, base: Base, examples: Sequence[Example], under: Below = NOTHING) -> str:
    """Return a digest of all that decides the result: recipe, base, what is on, and data."""
    parts = f"{recipe_hash(recipe)} {base.id} {dataset_digest(examples)}"
    for vocabulary in (recipe.data.vocabulary, recipe.align.vocabulary):
        if vocabulary != NONE:  # a file may say something else the next time
            parts += f" {load_vocabulary(vocabulary)}"
    parts += "".join(f" {known.content_id}:{strength!r}" for known, strength in under.members)
    return hashlib.sha256(parts.encode()).hexdigest()


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
