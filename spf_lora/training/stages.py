"""The stages of each method, made of a recipe: ours, the paper's, or a rival's one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.nn.functional import avg_pool2d

from spf_lora.adapters.attach import adapter_at, adapter_off
from spf_lora.adapters.module import Adapter
from spf_lora.base.clip import ClipModel
from spf_lora.base.load import Base
from spf_lora.data.cache import TensorCache
from spf_lora.data.captions import asking_prompt, base_prompt
from spf_lora.draw.trajectories import Drawing, Given, check_room
from spf_lora.errors import RecipeError
from spf_lora.recipe.schema import Recipe
from spf_lora.registry.onto import NOTHING, Below
from spf_lora.training.baselines import RIVALS, Rival, RivalObjective
from spf_lora.training.batch import Batch, draw_batch
from spf_lora.training.distil import Distil, Shares
from spf_lora.training.encoders import ReadingUnet
from spf_lora.training.objectives import Learn, SpfPortrait, Weights, time_weights
from spf_lora.training.pairs import HELD, Teaching, protected_prompts, teaching_prompts
from spf_lora.training.prepare import Prepared, Size
from spf_lora.training.processes import Processes
from spf_lora.training.sight import Sight
from spf_lora.training.trainer import Stage

PAPER = "spf-portrait"
GLOBAL_START = 0.3  # share of the time steps that keep the base's layout
_LARGEST_DECODED = 32  # latents; larger ones are halved before a response loss decodes them
_TIME_CAP = 5.0  # of `time_weights`


@dataclass(frozen=True)
class Material:
    """What stages are made of, beside the recipe.

    Attributes:
        base: the frozen model with the adapter on.
        data: what is learned.
        asked: the base prompts as people wrote them.
        cache: keeps the pairs that teach our second stage.
        under: what the new adapter is trained on top of.
        clip: embeds pictures for the paper's response loss, or None.
        sight: chooses our second stage's pairs, or None.
        given: pairs of pictures that somebody has; then there is no first stage.
        processes: this one and its siblings.
    """

    base: Base
    data: Prepared
    asked: Sequence[str]
    cache: TensorCache
    under: Below
    clip: ClipModel | None
    sight: Sight | None = None
    given: Given | None = None
    processes: Processes = field(default_factory=Processes)


def reading_unet(recipe: Recipe, base: Base) -> Any:
    """Return the U-Net, which reads token ids where the text encoder is trained too."""
    trained = recipe.adapter.text_encoder
    return ReadingUnet(base.unet, base.text_encoder) if trained else base.unet


def make_stages(recipe: Recipe, material: Material) -> list[Stage]:
    """Return the stages of the recipe's method.

    Raises:
        RecipeError: nothing is learned and no pairs are given; or they are, and are not learned.
    """
    ours, learns = recipe.training.method == "ours", recipe.learn.steps > 0
    if material.given is not None and not (ours and recipe.distil.steps):
        raise RecipeError(
            "pairs of pictures are what stage 2 of the method ours learns from, which is left out",
            hint="leave training.method and distil.steps as they are, or give --data instead",
        )
    if material.given is None and not learns:
        raise RecipeError(
            "learn.steps = 0 leaves nothing to learn from", hint="that is for --pairs DIR alone"
        )
    rival = RIVALS.get(recipe.training.method)
    if rival is not None:
        return [_rival(recipe, material, rival)]
    if recipe.training.method == PAPER:
        return _paper(recipe, material)
    return _ours(recipe, material)


def _samples(
    recipe: Recipe, material: Material, own_share: float = 0.0
) -> Callable[[int, int], Batch]:
    """Return what draws a step's samples of the pictures."""
    data, scheduler, seed = material.data, material.base.scheduler, recipe.training.seed

    def batch(index: int, size: int) -> Batch:
        return draw_batch(data, scheduler, index=index, size=size, seed=seed, own_share=own_share)

    return batch


def _rival(recipe: Recipe, material: Material, rival: Rival) -> Stage:
    weight = recipe.training.rival_weight or rival.weight
    objective = RivalObjective(
        reading_unet(recipe, material.base), material.data, rival, weight=weight
    )
    batch = _samples(recipe, material, rival.own_share)
    return Stage(recipe.training.method, recipe.learn.steps, objective, batch)


def _paper(recipe: Recipe, material: Material) -> list[Stage]:
    base, data, steps = material.base, material.data, recipe.learn.steps
    batch = _samples(recipe, material)
    align = SpfPortrait(
        base.unet,
        data,
        weights=Weights(),
        alphas=base.scheduler.alphas_cumprod,
        embed=_embedder(base, material.clip),
        everywhere=recipe.attribute.scope == "global",
    )
    first = max(1, steps // 2)
    return [
        Stage("learn", first, Learn(base.unet, data), batch),
        Stage("align", steps - first, align, batch),
    ]


def _ours(recipe: Recipe, material: Material) -> list[Stage]:
    base, data = material.base, material.data
    stages, size = [], data.commonest_size
    if material.given is None:
        learn = Learn(reading_unet(recipe, base), data)
        stages = [Stage("learn", recipe.learn.steps, learn, _samples(recipe, material))]
    else:
        size = material.given.size
    if recipe.distil.steps == 0:
        return stages
    teaching = teaching_of(
        recipe,
        base,
        material.asked,
        size,
        material.cache,
        under=material.under,
        teacher=material.given,
        sight=material.sight,
        processes=material.processes,
    )
    return [*stages, distil_stage(recipe, teaching)]


def distil_stage(recipe: Recipe, teaching: Teaching) -> Stage:
    """Return the stage that teaches a fresh adapter from pairs.

    Args:
        recipe: what decides it.
        teaching: draws the pairs.

    Raises:
        OutputError: the cache cannot keep pairs.
    """
    check_room(teaching.cache, len(teaching.prompts), teaching.how)  # before the long work
    base = teaching.base
    frozen = partial(adapter_off, base.unet, base.text_encoder)
    weights = time_weights(base.scheduler, _TIME_CAP)
    back = partial(adapter_at, -1.0, base.unet, base.text_encoder)
    student = Distil(reading_unet(recipe, base), weights, frozen, back)
    return Stage("distil", recipe.distil.steps, student, teaching.batch, teaching.begin, fresh=True)


def teaching_of(
    recipe: Recipe,
    base: Base,
    prompts: Sequence[str],
    size: Size,
    cache: TensorCache,
    *,
    under: Below = NOTHING,
    teacher: Adapter | Given | None = None,
    sight: Sight | None = None,
    wordless: bool = False,
    processes: Processes | None = None,
) -> Teaching:
    """Return what draws pairs and makes lessons of them.

    Args:
        recipe: what decides it.
        base: the frozen model with the adapter on.
        prompts: base prompts, as people write them.
        size: height and width of the pairs' latents.
        cache: keeps the pairs.
        under: what the new adapter is trained on top of.
        teacher: draws the pairs, or is the pictures that somebody has, in the order of `prompts`;
            without one, the adapter of the stage before.
        sight: chooses pairs that show the target; without one all are learned from.
        wordless: whether the teacher acts on every prompt, and no words ask for it.
        processes: this one and its siblings, which share the drawing.
    """
    distil, attribute = recipe.distil, recipe.attribute
    late = GLOBAL_START if attribute.scope == "global" else None
    if isinstance(teacher, Given):  # what these pictures show, each once or more
        count = max(distil.pairs, len(prompts))
        shown = [prompts[i % len(prompts)] for i in range(count)]
        pairs = protected_prompts(shown, attribute, under)
    else:
        pairs = teaching_prompts(recipe, prompts, under, distil.pairs)
    asked = [asking_prompt(own, attribute) for own, _ in pairs]
    if attribute.control == "words" and not isinstance(teacher, Given):
        # what the target takes the place of is not asked for any more, so nobody could learn it
        pairs = [(base_prompt(full, attribute), full) for _, full in pairs]
    # where strength alone brings it, a prompt without the words is no reason to hold still
    base_prompts = distil.base_prompts if attribute.control == "words" else 0.0
    return Teaching(
        base,
        [(own, own) for own, _ in pairs] if wordless else pairs,
        list(dict.fromkeys(own for own, _ in teaching_prompts(recipe, prompts, under, HELD))),
        Drawing(distil.sampler_steps, distil.guidance, size, late, distil.keep),
        cache,
        alpha=recipe.adapter.alpha,
        shares=Shares(base_prompts, distil.empty_prompts),
        below=under.digest,
        seed=recipe.training.seed,
        as_ids=recipe.adapter.text_encoder,
        teacher=teacher,
        sight=sight,
        asked=asked,
        slider=attribute.control == "strength" and not wordless,
        processes=processes or Processes(),
    )


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
