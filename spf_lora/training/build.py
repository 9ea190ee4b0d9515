"""The builders: a recipe and a base become a trainer.

Only these functions, `examples` and `finish` see a recipe; everything below takes plain arguments.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from spf_lora.adapters.attach import attach_trainable
from spf_lora.base.clip import ClipModel, brings_clip, load_clip
from spf_lora.base.load import Base
from spf_lora.data.cache import TensorCache
from spf_lora.data.captions import base_phrases, base_prompt, full_prompt
from spf_lora.data.completion import NONE, load_vocabulary
from spf_lora.data.folder import Example, dataset_digest
from spf_lora.draw.trajectories import Drawing, check_room
from spf_lora.errors import DataError
from spf_lora.recipe.load import recipe_hash
from spf_lora.recipe.schema import Recipe
from spf_lora.registry.onto import NOTHING, Below
from spf_lora.training.baselines import RIVALS, Rival, RivalObjective
from spf_lora.training.batch import Batch, draw_batch
from spf_lora.training.complete_captions import completed
from spf_lora.training.distil import Distil, Shares
from spf_lora.training.examples import shapes_of
from spf_lora.training.objectives import Learn, SpfPortrait, Weights, time_weights
from spf_lora.training.optim import make_optimizer
from spf_lora.training.precision import set_up
from spf_lora.training.prepare import Prepared, prepare
from spf_lora.training.processes import Processes
from spf_lora.training.teach import Teaching, teaching_prompts
from spf_lora.training.trainer import Plan, Stage, Tell, Trainer

_LARGEST_DECODED = 32  # latents; larger ones are halved before a response loss decodes them
GLOBAL_START = 0.3  # share of the time steps that keep the base's layout
_TIME_CAP = 5.0  # of `time_weights`
PAPER = "spf-portrait"


def build_trainer(
    recipe: Recipe, base: Base, examples: Sequence[Example], *, checkpoint: Path,
    cache: TensorCache, under: Below = NOTHING, processes: Processes | None = None,
    tell: Tell = lambda what, done, total: None,
) -> Trainer:  # fmt: skip
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
    method, training = recipe.training.method, recipe.training
    rival = RIVALS.get(method)
    clip = load_clip(base, recipe.data.clip) if method == PAPER else None
    asked, remarks, details = _completed(recipe, base, examples, cache, tell)
    prompts = [base_prompt(e.caption, recipe.attribute) for e in asked]
    data = prepare(
        base,
        [e.image for e in examples],
        base_prompts=prompts,
        full_prompts=[full_prompt(e.caption, recipe.attribute) for e in asked],
        phrases=[base_phrases(p, recipe.attribute) for p in prompts] if method == PAPER else None,
        target_text=recipe.attribute.target_text,
        own=rival is not None and rival.own_share > 0,
        masks=_masks(rival, examples),
        clip=clip,
        buckets=shapes_of(recipe, base),
        repeats=[e.repeats for e in examples],
        cache=cache,
        below=under.digest,
        tell=tell,
    )
    parameters = attach_trainable(
        base.unet, preset=recipe.adapter.preset, rank=recipe.adapter.rank,
        alpha=recipe.adapter.alpha, seed=training.seed,
    )  # fmt: skip
    set_up(
        base.unet, precision=training.precision,
        gradient_checkpointing=training.gradient_checkpointing,
        channels_last=training.channels_last, compile_blocks=training.compile,
    )  # fmt: skip
    optimizer = make_optimizer(
        recipe.optimizer.name, parameters.values(),
        learning_rate=recipe.optimizer.learning_rate,
        weight_decay=recipe.optimizer.weight_decay, betas=recipe.optimizer.betas,
    )  # fmt: skip
    said = [base_prompt(e.caption, recipe.attribute) for e in examples]  # as people ask
    return Trainer(
        unet=base.unet, parameters=parameters, optimizer=optimizer, pictures=len(data),
        stages=_stages(recipe, base, data, said, clip, under, cache), plan=_plan(recipe),
        checkpoint=checkpoint, run_id=run_id(recipe, base, examples, under),
        device=base.device, processes=processes, remarks=remarks, details=details, tell=tell,
    )  # fmt: skip


def _stages(
    recipe: Recipe, base: Base, data: Prepared, said: Sequence[str], clip: ClipModel | None,
    under: Below, cache: TensorCache,
) -> list[Stage]:  # fmt: skip
    """Return the method's stages."""
    method, seed, steps = recipe.training.method, recipe.training.seed, recipe.learn.steps
    rival = RIVALS.get(method)

    def batch(index: int, size: int) -> Batch:
        share = rival.own_share if rival else 0.0
        return draw_batch(data, base.scheduler, index=index, size=size, seed=seed, own_share=share)

    if rival is not None:
        weight = recipe.training.rival_weight or rival.weight
        return [Stage(method, steps, RivalObjective(base.unet, data, rival, weight=weight), batch)]
    learn = Learn(base.unet, data)
    if method == PAPER:
        objective = SpfPortrait(
            base.unet, data, weights=Weights(), alphas=base.scheduler.alphas_cumprod,
            embed=_embedder(base, clip), everywhere=recipe.attribute.scope == "global",
        )  # fmt: skip
        first = max(1, steps // 4)
        return [
            Stage("learn", first, learn, batch),
            Stage("align", steps - first, objective, batch),
        ]
    distil = recipe.distil
    late = GLOBAL_START if recipe.attribute.scope == "global" else None
    teaching = Teaching(
        base, teaching_prompts(recipe, said, under),
        Drawing(distil.sampler_steps, distil.guidance, data.commonest_size, late), cache,
        alpha=recipe.adapter.alpha, shares=Shares(distil.base_prompts, distil.empty_prompts),
        below=under.digest, seed=seed,
    )  # fmt: skip
    stages = [Stage("learn", steps, learn, batch)]
    if distil.steps == 0:
        return stages
    check_room(cache, distil.pairs, teaching.how)  # before the long work
    student = Distil(base.unet, time_weights(base.scheduler, _TIME_CAP))
    return [
        *stages,
        Stage("distil", distil.steps, student, teaching.batch, teaching.begin, fresh=True),
    ]


def _completed(
    recipe: Recipe, base: Base, examples: Sequence[Example], cache: TensorCache, tell: Tell
) -> tuple[Sequence[Example], list[str], Sequence[str]]:
    """Complete the captions; return the examples, what to tell, and its details."""
    if recipe.data.vocabulary == NONE:
        return examples, [], ()
    if not brings_clip(base, recipe.data.clip):
        why = "completing them takes a CLIP that sees, and this base brings none"
        how = "for less pollution name one: --set data.clip=openai/clip-vit-large-patch14"
        return examples, [f"captions stay as they are: {why}; {how}"], ()
    vocabulary = load_vocabulary(recipe.data.vocabulary)
    clip = load_clip(base, recipe.data.clip)
    done = completed(examples, recipe.attribute, vocabulary, base, clip, tell, cache)
    return done.examples, [done.remark], done.details


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


def run_id(recipe: Recipe, base: Base, examples: Sequence[Example], under: Below = NOTHING) -> str:
    """Return a digest of all that decides the result: recipe, base, what is on, and data."""
    parts = f"{recipe_hash(recipe)} {base.id} {dataset_digest(examples)}"
    for vocabulary in (recipe.data.vocabulary, recipe.distil.vocabulary):
        if vocabulary != NONE:  # a file may say something else the next time
            parts += f" {load_vocabulary(vocabulary)}"
    parts += f" {under.digest}"
    return hashlib.sha256(parts.encode()).hexdigest()
