"""`spf-lora clean`: teach a fresh adapter what another one adds, and not what else it changes."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spf_lora.atomic import make_folder
from spf_lora.cli import out
from spf_lora.cli.any_lora import Source, prompts_of, recipe_of, source_of, teacher_of
from spf_lora.cli.phases import Phases, showing_phases
from spf_lora.cli.quiet import hush
from spf_lora.cli.run_lock import locked_for_the_run
from spf_lora.cli.train_loop import resumable, run_trainer
from spf_lora.cli.train_one import Job
from spf_lora.errors import OutputError, TeacherError, TrainingError
from spf_lora.recipe.schema import Recipe

if TYPE_CHECKING:
    from spf_lora.data.cache import TensorCache
    from spf_lora.data.folder import Example
    from spf_lora.training.clean import Task
    from spf_lora.training.trainer import Trainer

_ROWS = 6  # of the picture
_CANNOT = (
    "what it does to faces, colours or light within the picture cannot be told from what is wanted"
)


def clean(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="A file or a name.")],
    target: Annotated[
        str | None, typer.Option(help='What asks for it, as "a beard"; the file says by default.')
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
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS", help='Of a style or character: what stays, as "face, background".'
        ),
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
        Path | None, typer.Option("--out", "-o", help="File; else out/NAME-cleaned.safetensors.")
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--dry-run", help="Print time, memory and disk; clean nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
) -> None:
    """Clean any LoRA: keep what it adds where it answers, undo what else it changes."""
    from spf_lora.registry.names import resolve

    path = resolve(adapter)
    file = output or out.OUT / f"{path.stem}-cleaned.safetensors"
    if file.exists() and file.samefile(path):
        raise OutputError(f"{file} is the adapter itself", hint="choose another file with --out")
    source = source_of(path)
    more = [f"distil.steps={steps}"] if steps else []
    more += [] if seed is None else [f"training.seed={seed}"]
    recipe, wordless = recipe_of(
        source,
        [*more, *(changes or [])],
        target=target,
        attribute=attribute,
        base=base,
        rank=rank,
        keep=keep,
    )
    lines = prompts_of(prompts, recipe)
    if plan_only:
        from spf_lora.cli.dry_run import dry_run_cleaning

        hush()
        dry_run_cleaning(recipe, path.name)
        return
    if output is None:
        make_folder(file.parent)
    job = _job(recipe, file, resume=resume, force=force)
    job.check()
    with locked_for_the_run([job]), showing_phases() as phases:
        _clean(job, source, lines, phases, wordless=wordless)


def _job(recipe: Recipe, file: Path, *, resume: bool, force: bool) -> Job:
    from spf_lora.registry.onto import NOTHING

    return Job(recipe, file, None, None, NOTHING, resume, force)


def _clean(job: Job, source: Source, prompts: list[str], phases: Phases, *, wordless: bool) -> None:
    phases("load the base")
    hush()
    from spf_lora.adapters.format.base_match import refuse_other_base
    from spf_lora.base.load import load_base
    from spf_lora.data.cache import TensorCache, cache_folder
    from spf_lora.training.clean import Task, build_cleaner

    base = load_base(job.settings.training.base)
    refuse_other_base(source.card, source.path, base.id, of=base.name)
    task = Task(base, teacher_of(source, base), prompts, wordless)
    cache = TensorCache(cache_folder())
    with _explained(task, job.settings, source.path.name):
        job = replace(job, settings=_with_scope(job.settings, task, cache, phases, source))
        trainer = build_cleaner(
            job.settings, task, checkpoint=job.checkpoint, cache=cache, tell=phases
        )
        phases.end()
        _start(job, trainer, source, wordless=wordless)
        with resumable():
            every = job.settings.training.checkpoint_every_steps
            run_trainer(trainer, phases, every=every, logs=None)
            phases("draw both previews")
            said = _write(job, task, cache, trainer)
            phases.end()
    out.say(f"adapter: {job.target}")
    out.say(f"picture: {job.picture} (base | before | cleaned, asked and not)")
    for line in said:
        out.say(line)
    if not wordless:  # the first file's card says what is looked for
        named = job.settings.training.base
        on = [] if named == "embedded" else ["--base", named]
        words = ["compare", str(job.target), str(source.path), "--quick", *on]
        out.say(f"measure both: {shlex.join(['spf-lora', *words])}")
    out.show(str(job.target))


@contextmanager
def _explained(task: "Task", recipe: Recipe, name: str) -> Iterator[None]:
    """Tell of an adapter that teaches nothing what to ask instead."""
    try:
        yield
    except TeacherError as error:
        target = recipe.attribute.target_text
        asked = "every prompt" if task.wordless else repr(target)
        raise TeacherError(
            error.message,
            hint=f"does {name} answer to {asked}? Say other words with --target; a style or a "
            "light needs --set attribute.scope=global",
        ) from error


def _refuse_other_words(task: "Task", recipe: Recipe, name: str) -> None:
    """Refuse words that an adapter reacts to no more than to any others.

    Raises:
        TrainingError: it does not draw them; its hint tells the best guess of what it draws.
    """
    from spf_lora.evaluate.reactions import answers_to, best_guess

    target, subject = recipe.attribute.target_text, task.prompts[0]
    if not answers_to(task.base, task.teacher, target, subject=subject):
        guess = ", ".join(best_guess(task.base, task.teacher, subject=subject))
        raise TrainingError(
            f"{name} does not react to {target!r} more than to any other words",
            hint=f"of common words it reacts most to {guess}: say with --target what asks for it; "
            "a file without a card and without --target is taken to act on every prompt",
        )


def _with_scope(
    recipe: Recipe, task: "Task", cache: "TensorCache", phases: Phases, source: Source
) -> Recipe:
    """Return the recipe; of an adapter that covers the picture, one that knows it.

    Raises:
        TrainingError: it hardly changes a picture, or does not draw the target.
    """
    from spf_lora.training.clean import changes_everywhere

    if not task.wordless:
        phases("look for the target")
        _refuse_other_words(task, recipe, source.path.name)
    if recipe.attribute.scope == "global":
        return recipe
    if changes_everywhere(recipe, task, cache, phases):
        recipe = replace(recipe, attribute=replace(recipe.attribute, scope="global"))
    return recipe


def _start(job: Job, trainer: "Trainer", source: Source, *, wordless: bool) -> None:
    """Say what begins; go on from a checkpoint, or forget it."""
    recipe, name = job.settings, source.path.name
    if job.resume and job.checkpoint.exists():
        out.say(f"resuming after step {trainer.resume()}")
    else:
        job.checkpoint.unlink(missing_ok=True)
    kept = "what it changes most" if wordless else repr(recipe.attribute.target_text)
    out.say(
        f"cleaning {name}: {kept} stays, from {recipe.distil.pairs} pairs of pictures, in "
        f"{recipe.distil.steps} steps"
    )
    if recipe.attribute.scope == "global":
        places = ", ".join(recipe.distil.keep)
        out.say(
            f"{name} changes the whole picture, as a style or a character does: the base's layout "
            f"stays{f', and its {places}' if places else ''}; {_CANNOT}"
        )
        if not places:
            out.say('--keep "face, background" holds what those words draw')
    for remark in trainer.remarks:
        out.say(remark)


def _write(job: Job, task: "Task", cache: "TensorCache", trainer: "Trainer") -> tuple[str, ...]:
    """Write the picture, then the adapter, then give up the checkpoint; return what to say."""
    from spf_lora.adapters.format.adapter_file import write_adapter
    from spf_lora.cli.preview import before_after, write_png
    from spf_lora.cli.verdict import cleaned_verdict
    from spf_lora.training.clean import cleaned_adapter

    recipe = job.settings
    examples = _examples(task.teaching(recipe, cache).held[:_ROWS])
    drawn = before_after(recipe, task, examples)
    adapter = cleaned_adapter(recipe, task, drawn.before.metrics("before_") | drawn.after.metrics())
    write_png(drawn.picture, job.picture)
    write_adapter(adapter, job.target, overwrite=job.force)
    trainer.checkpoint.unlink(missing_ok=True)
    return cleaned_verdict(drawn, recipe, job.picture)


def _examples(prompts: "Sequence[str]") -> "list[Example]":
    """Return prompts as a preview takes them."""
    from PIL import Image

    from spf_lora.data.folder import Example

    blank = Image.new("RGB", (1, 1))
    return [Example(blank, prompt, "prompt") for prompt in prompts]
