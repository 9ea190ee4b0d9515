"""What the commands do, as plain functions: each takes and returns values and prints nothing."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spf_lora.adapters.format.card import from_metadata
from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base, load_base
from spf_lora.errors import MeasureError
from spf_lora.recipe.files import locate_recipe
from spf_lora.recipe.load import load_recipe as read_recipe
from spf_lora.recipe.schema import Recipe

if TYPE_CHECKING:
    from PIL import Image

    from spf_lora.evaluate.result import Result
    from spf_lora.merge.execute import MergeOutcome
    from spf_lora.training.trainer import Step

Adapters = Adapter | Sequence[tuple[Adapter, float]] | None  # one at strength 1, or with strengths


def load_recipe(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        name: an attribute, as "beard" or "sd15/beard", or a TOML file.
        changes: settings such as "adapter.rank=8".

    Raises:
        RecipeError: there is none, or something in it is wrong; every fault is listed.
    """
    return read_recipe(locate_recipe(str(name)), changes)


def draw_pictures(
    base: Base,
    prompt: str,
    adapters: Adapters = None,
    *,
    seeds: Sequence[int] = (1,),
    steps: int = 25,
    guidance: float = 3.0,
    exact: bool = False,
    local: bool = False,
) -> "list[Image.Image]":
    """Draw a prompt, one picture for each seed, as `spf-lora generate` does.

    Args:
        base: the model.
        prompt: with the words that ask for the adapters.
        adapters: one, or several with their strengths.
        seeds: the same seed starts from the same noise, with adapters and without.
        steps: DDIM steps.
        guidance: scale of classifier-free guidance.
        exact: adapters act on the words that ask for them alone; no other app draws so.
        local: adapters change the base's picture where they answer alone (docs/drawing.md).

    Raises:
        AdapterFileError: an adapter does not fit the base, or does not say its words.
    """
    from spf_lora.draw.act import acting, draw
    from spf_lora.draw.prompts import asking, taught, words_of

    rows = [(adapters, 1.0)] if isinstance(adapters, Adapter) else list(adapters or ())
    words = [words_of(adapter, "the adapter") for adapter, _ in rows] if exact or local else []
    acts = acting(rows, words=words if exact else (), local=local)
    asks = asking(prompt, [taught(adapter) for adapter, _ in rows], local=local)
    return draw(base, [asks] * len(seeds), seeds, acts, steps=steps, guidance=guidance)


def train_adapter(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    base: Base | None = None,
    on_step: "Callable[[Step], None] | None" = None,
) -> Adapter:
    """Train a recipe and return the adapter with its card; `write_adapter` saves it.

    Args:
        recipe: what decides the training.
        folder: pictures with captions; without it the portrait world's are drawn.
        base: the model, which stays as it is; by default the recipe's is loaded.
        on_step: called after each step.

    Raises:
        DataError: lists every fault of the folder.
        TrainingError: training cannot go on.
    """
    from spf_lora.base.share import shared
    from spf_lora.data.cache import TensorCache, cache_folder
    from spf_lora.data.worlds import world_of
    from spf_lora.training.build import build_trainer
    from spf_lora.training.examples import load_examples
    from spf_lora.training.finish import finished_adapter

    settings = recipe.training
    tokenizer = None if settings.tokenizer == "own" else settings.tokenizer
    model = base or load_base(settings.base, tokenizer=tokenizer)
    cache = TensorCache(cache_folder())
    examples = load_examples(recipe, folder, cache, world_of(model))
    apart = settings.precision != "fp32" or settings.channels_last
    with tempfile.TemporaryDirectory() as scratch, shared(model, apart=apart) as lent:
        trainer = build_trainer(
            recipe,
            lent,
            examples,
            checkpoint=Path(scratch) / "checkpoint.safetensors",
            cache=cache,
        )
        for step in trainer.run():
            if on_step:
                on_step(step)
        return finished_adapter(recipe, lent, examples)


def evaluate_adapter(
    base: Base,
    adapter: Adapter,
    attribute: str | None = None,
    *,
    prompts: int | Sequence[str] = 40,
    seeds: int = 4,
    strengths: Sequence[float] = (0.0, 0.5, 1.0),
    steps: int = 25,
    name: str = "",
) -> "Result":
    """Measure what an adapter does and what it does besides, as `spf-lora evaluate` does.

    Args:
        base: the model it was trained on.
        adapter: at strength 1.
        attribute: what it should add, a recipe's name; its card says it by default.
        prompts: how many held-out people of the portrait world, or prompts without the attribute.
        seeds: pictures of each prompt.
        strengths: of the sweep.
        steps: DDIM steps.
        name: what the result calls the adapter.

    Raises:
        MeasureError: nothing says what it should add, or that cannot be judged.
    """
    from spf_lora.data.worlds import world_of
    from spf_lora.draw.act import acting
    from spf_lora.draw.sample import Sampling
    from spf_lora.evaluate.gallery import cache_folder
    from spf_lora.evaluate.protocol import cases_of, held_out_cases
    from spf_lora.evaluate.run import Measurement, evaluate

    card = from_metadata(adapter.metadata)
    named = attribute or (card.attribute if card else "")
    if not named:
        raise MeasureError("nothing says what the adapter adds", hint='name it: "beard"')
    taught = load_recipe(named).attribute
    if isinstance(prompts, int):
        cases = held_out_cases(taught.name, prompts=prompts, seeds=seeds, world=world_of(base))
    else:
        cases = cases_of(prompts, taught, seeds=seeds)
    return evaluate(
        base,
        acting(adapter),
        Measurement(taught, cases, strengths=strengths),
        gallery=cache_folder(),
        name=name,
        sampling=Sampling(steps=steps),
    )


def merge_adapters(
    files: Sequence[str | Path],
    target: str | Path,
    *,
    weights: Sequence[float] | None = None,
    method: str = "concat",
    rank: int | None = None,
    overwrite: bool = False,
) -> "MergeOutcome":
    """Merge adapter files into one; the default is their exact weighted sum.

    Args:
        files: adapters in any layout we read.
        target: the new file.
        weights: one for each; 1 by default.
        method: concat, svd, average, orthogonal, ties or dare.
        rank: directions to keep in each module; what that cost is in the outcome.
        overwrite: replace the target.

    Raises:
        RecipeError: the settings do not go together.
        AdapterFileError: an adapter cannot be read, or they do not fit each other.
        OutputError: the target is there already, or cannot be written.
    """
    from spf_lora.merge.execute import execute
    from spf_lora.merge.plan import Settings, check_settings, make_plan
    from spf_lora.merge.sources import open_sources

    settings = Settings(method=method, rank=rank)
    check_settings(settings)
    with open_sources([Path(file) for file in files], weights=weights) as sources:
        return execute(make_plan(sources, settings), Path(target), overwrite=overwrite)
