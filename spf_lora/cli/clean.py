"""`spf-lora clean`: teach a fresh adapter what another one adds, and not what else it changes."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spf_lora.atomic import make_folder
from spf_lora.cli import out
from spf_lora.cli.phases import Phases, showing_phases
from spf_lora.cli.quiet import hush
from spf_lora.cli.run_lock import locked_for_the_run
from spf_lora.cli.train_loop import resumable, run_trainer
from spf_lora.cli.train_one import Job
from spf_lora.errors import AdapterFileError, OutputError, RecipeError, TrainingError
from spf_lora.recipe.schema import Recipe

if TYPE_CHECKING:
    from spf_lora.adapters.module import Adapter
    from spf_lora.base.load import Base
    from spf_lora.data.folder import Example
    from spf_lora.training.trainer import Trainer

_MOST_RANK = 32
_SUBJECTS = {"embedded": "a portrait of a person", "sd15": "a photo of a person"}


def clean(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="A file or a name.")],
    target: Annotated[
        str | None, typer.Option(help='What asks for it, as "a beard"; its card says by default.')
    ] = None,
    attribute: Annotated[
        str | None,
        typer.Option("--attribute", "-a", help="Or a recipe that says what asks for it."),
    ] = None,
    base: Annotated[
        str, typer.Option(help="`embedded`, a diffusers folder, a .safetensors, a hub id.")
    ] = "embedded",
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What to draw pairs of, one a line, without the target."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, max=256, help="The adapter's own, at most 32, by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="To distil.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same settings and seed, same file.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key; repeatable."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="File; else out/ADAPTER-cleaned.safetensors.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
) -> None:
    """Clean any LoRA: keep what it adds where it answers, undo what else it changes."""
    from spf_lora.registry.names import resolve

    path = resolve(adapter)
    file = output or out.OUT / f"{path.stem}-cleaned.safetensors"
    if file.exists() and file.samefile(path):
        raise OutputError(f"{file} is the adapter itself", hint="choose another file with --out")
    teacher = _teacher(path)
    words = {"target": target, "attribute": attribute, "base": base, "rank": rank}
    more = [f"distil.steps={steps}"] if steps else []
    more += [] if seed is None else [f"training.seed={seed}"]
    recipe = _recipe(path, teacher, words, [*more, *(changes or [])])
    lines = _prompts(prompts, recipe)
    if output is None:
        make_folder(file.parent)
    job = _job(recipe, file, resume=resume, force=force)
    job.check()
    with locked_for_the_run([job]), showing_phases() as phases:
        _clean(job, path, teacher, lines, phases)


def _job(recipe: Recipe, file: Path, *, resume: bool, force: bool) -> Job:
    from spf_lora.registry.onto import NOTHING

    return Job(recipe, file, None, None, NOTHING, resume, force)


def _teacher(path: Path) -> "Adapter":
    """Return the adapter to clean.

    Raises:
        AdapterFileError: it cannot be read, or changes nothing.
    """
    from spf_lora.adapters.format.adapter_file import read_adapter

    adapter = read_adapter(path)
    if not any(module.up.any() and module.down.any() for module in adapter.modules.values()):
        raise AdapterFileError(
            f"{path} changes nothing: all its factors are zero", hint="clean one that was trained"
        )
    return adapter


def _recipe(path: Path, teacher: "Adapter", words: dict[str, Any], changes: list[str]) -> Recipe:
    """Return what decides the cleaning, from the card, a recipe, or the words alone.

    Raises:
        RecipeError: nobody says what asks for it, or a value cannot be used.
    """
    import dataclasses

    from spf_lora.adapters.format.card import attribute_of, from_metadata
    from spf_lora.recipe.files import find_recipe
    from spf_lora.recipe.load import load_recipe, make_recipe

    card = from_metadata(teacher.metadata, path=path)
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "cleaned"
    if words["attribute"] is not None:
        known = load_recipe(find_recipe(words["attribute"])).attribute
        attribute = dataclasses.asdict(known)
    elif card is not None and card.target_text:
        attribute = dataclasses.asdict(attribute_of(card))
    elif words["target"] is not None:
        attribute = {"name": name}
    else:
        raise RecipeError(
            f"{path} has no card that says what asks for it",
            hint='say so: --target "a beard", or --attribute with a recipe\'s name',
        )
    if words["target"] is not None:
        attribute["target_text"] = words["target"]
    plain = {
        key: list(value) if isinstance(value, tuple) else value for key, value in attribute.items()
    }
    base = words["base"]
    largest = max(module.rank for module in teacher.modules.values())
    rank = words["rank"] or min(largest, _MOST_RANK)
    own = [f"training.base={base}", f"adapter.rank={rank}", f"adapter.alpha={rank}"]
    profile = "embedded" if base == "embedded" else "sd15"
    if profile == "sd15":
        own.append("distil.vocabulary=photographs")
    table = {"profile": profile, "attribute": plain}
    return make_recipe(table, [*own, *changes], path)


def _prompts(file: Path | None, recipe: Recipe) -> list[str]:
    """Return what pairs are drawn of; the vocabulary varies it.

    Raises:
        DataError: the file cannot be read, or nothing is left of a line without the target.
    """
    if file is None:
        return [_SUBJECTS[recipe.profile]]
    from spf_lora.data.captions import base_prompt
    from spf_lora.data.prompt_file import read_prompt_lines
    from spf_lora.errors import DataError

    lines = [base_prompt(line, recipe.attribute) for _, line in read_prompt_lines(file)]
    if not all(lines):
        raise DataError(
            f"a prompt of {file} is nothing but the target",
            hint="write what else the picture shows, as: a photo of a man, in a street",
        )
    return lines


def _clean(job: Job, path: Path, teacher: "Adapter", prompts: list[str], phases: Phases) -> None:
    phases("load the base")
    hush()
    from spf_lora.adapters.format.base_match import refuse_other_base
    from spf_lora.adapters.format.card import from_metadata
    from spf_lora.base.load import load_base
    from spf_lora.data.cache import TensorCache, cache_folder
    from spf_lora.training.clean import build_cleaner

    recipe = job.settings
    base = load_base(recipe.training.base)
    card = from_metadata(teacher.metadata, path=path)
    refuse_other_base(card, path, base.id, of=base.name)
    trainer = build_cleaner(
        recipe,
        base,
        teacher,
        prompts,
        checkpoint=job.checkpoint,
        cache=TensorCache(cache_folder()),
        tell=phases,
    )
    phases.end()
    begun = job.resume and job.checkpoint.exists()
    if begun:
        out.say(f"resuming after step {trainer.resume()}")
    else:
        job.checkpoint.unlink(missing_ok=True)
    out.say(
        f"cleaning {path.name}: {recipe.attribute.target_text!r} stays, from "
        f"{recipe.distil.pairs} pairs of pictures, in {recipe.distil.steps} steps"
    )
    with resumable():
        try:
            run_trainer(trainer, phases, every=recipe.training.checkpoint_every_steps, logs=None)
        except TrainingError as error:
            raise TrainingError(
                error.message,
                hint=f"does {path.name} answer to {recipe.attribute.target_text!r}? Say other "
                "words with --target; a style or a light needs --set attribute.scope=global",
            ) from error
        phases("draw the preview")
        _write(job, base, teacher, prompts, trainer)
        phases.end()
    out.say(f"adapter: {job.target}")
    out.say(f"picture: {job.picture} (base | adapter | difference)")
    out.say(f"measure both: spf-lora compare {path} {job.target} --quick")
    out.show(str(job.target))


def _write(
    job: Job, base: "Base", teacher: "Adapter", prompts: list[str], trainer: "Trainer"
) -> None:
    from spf_lora.adapters.format.adapter_file import write_adapter
    from spf_lora.cli.preview import preview, write_png
    from spf_lora.training.clean import cleaned_adapter

    adapter = cleaned_adapter(job.settings, base, teacher)
    write_png(preview(job.settings, base, _examples(prompts)).picture, job.picture)
    write_adapter(adapter, job.target, overwrite=job.force)
    trainer.checkpoint.unlink(missing_ok=True)


def _examples(prompts: list[str]) -> "list[Example]":
    """Return prompts as a preview takes them."""
    from PIL import Image

    from spf_lora.data.folder import Example

    blank = Image.new("RGB", (1, 1))
    return [Example(blank, prompt, "prompt") for prompt in prompts]
