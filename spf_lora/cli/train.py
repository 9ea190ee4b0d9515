"""`spf-lora train`: from a recipe to an adapter file and a picture that shows it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spf_lora.atomic import make_folder
from spf_lora.cli.quiet import hush
from spf_lora.cli.run_lock import locked_for_the_run
from spf_lora.cli.train_one import Job
from spf_lora.cli.train_several import check_together, data_folders, split_names, train_all
from spf_lora.cli.train_watch import MOST_PROMPTS, Watch
from spf_lora.errors import DataError, RecipeError
from spf_lora.recipe.files import locate_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.recipe.schema import Recipe
from spf_lora.recipe.steps import as_slider, with_steps

if TYPE_CHECKING:
    from spf_lora.registry.onto import Below


def train(
    attribute: Annotated[
        str | None,
        typer.Option(
            "--attribute", "-a", help="What to teach: a recipe's name, or several: a,b,c."
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe file; without it, the attribute's own.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe's key; repeatable."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps in all, shared by the stages as in the recipe.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same recipe and seed, same file.")] = None,
    base: Annotated[
        str | None, typer.Option(help="`embedded`, a diffusers folder, a .safetensors, a hub id.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or hub id of the base's tokenizer, if it has none.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures with same-stem .txt captions; of several attributes, a "
            "folder for each, or one for all."
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Instead: pictures before and after, as a/NAME.png and b/NAME.png, or "
            "NAME_before.png and NAME_after.png; captions are optional.",
        ),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Side of the square, in pixels; else the base's own.")
    ] = None,
    skip_faulty: Annotated[
        bool, typer.Option("--skip-faulty", help="Train on what the check of --data leaves.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File or folder; else adapters/NAME.safetensors."),
    ] = None,
    onto: Annotated[
        str | None,
        typer.Option(metavar="STACK|ADAPTER", help="Train on top of it: it is on and frozen."),
    ] = None,
    slider: Annotated[
        bool,
        typer.Option("--slider", help="No words: the strength is how much, negative takes away."),
    ] = False,
    log_dir: Annotated[Path | None, typer.Option(help="Write TensorBoard logs there.")] = None,
    keep_every: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Keep the adapter of every N-th step, for `compare` to pick."
        ),
    ] = 0,
    sample_every: Annotated[
        int, typer.Option(min=0, metavar="N", help="Draw --sample-prompts every N steps.")
    ] = 0,
    sample_prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What to draw on the way, one a line.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
    plan_only: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its memory; train nothing.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Tell details, as captions before and after.")
    ] = False,
    vram: Annotated[
        float | None, typer.Option(min=0.1, help="With --dry-run: settings that fit so many GB.")
    ] = None,
) -> None:
    """Train an attribute as an adapter that leaves the rest alone, or several, one by one."""
    options = {"seed": seed, "base": base, "tokenizer": tokenizer}
    changes = [*(changes or []), *([] if resolution is None else [f"data.resolution={resolution}"])]
    changes += ["learn.steps=0"] if pairs else []
    if pairs and data:
        raise DataError(
            "--pairs and --data are two ways to teach", hint="give one of them; pairs teach alone"
        )
    recipes = [
        _recipe(name, recipe, changes, steps, options, slider=slider)
        for name in split_names(attribute, recipe)
    ]
    check_together(recipes)
    folders = data_folders(pairs or data, recipes)
    if plan_only:
        for settings, folder in zip(recipes, folders, strict=True):
            _plan(settings, folder, vram, paired=pairs is not None)
        return
    watch = _watch(keep_every, sample_every, sample_prompts)
    targets = [_target(output, one, several=len(recipes) > 1) for one in recipes]
    with _made(targets[0].parent) if output is None else nullcontext():
        jobs = []
        for settings, folder, target in zip(recipes, folders, targets, strict=True):
            under = _under(onto, settings, target)
            logs = log_dir / settings.attribute.name if log_dir and len(recipes) > 1 else log_dir
            job = Job(
                settings,
                target,
                folder,
                logs,
                under,
                resume,
                force,
                skip_faulty,
                watch,
                verbose,
                paired=pairs is not None,
            )
            job.check()
            jobs.append(job)
        with locked_for_the_run(jobs):
            train_all(jobs)


def _watch(keep_every: int, sample_every: int, prompts: Path | None) -> Watch:
    """Return what the training leaves on its way.

    Raises:
        RecipeError: pictures are wanted, but nobody says of what; or the other way round.
        DataError: the file cannot be read, or holds too many prompts.
    """
    if bool(sample_every) != (prompts is not None):
        raise RecipeError(
            "--sample-every and --sample-prompts belong together",
            hint="write both: --sample-every 100 --sample-prompts prompts.txt",
        )
    if prompts is None:
        return Watch(keep_every)
    from spf_lora.data.prompt_file import read_prompt_lines

    lines = [line for _, line in read_prompt_lines(prompts)]
    if len(lines) > MOST_PROMPTS:
        raise DataError(
            f"{prompts} holds {len(lines)} prompts, and training waits for each of them",
            hint=f"at most {MOST_PROMPTS}",
        )
    return Watch(keep_every, sample_every, tuple(lines))


def _target(output: Path | None, settings: Recipe, *, several: bool) -> Path:
    """Return the adapter's file: the one told, or one of the attribute's name in a folder."""
    name = f"{settings.attribute.name}.safetensors"
    if output is None:
        return Path("adapters") / name
    if output.is_dir():
        return output / name
    if several:
        raise RecipeError(
            f"--out {output} is no folder, and several adapters cannot share a file",
            hint=f"name a folder that is there (mkdir -p {output.with_suffix('')}), or leave "
            "--out out: they go to adapters/",
        )
    if output.suffix != ".safetensors":
        raise RecipeError(
            f"--out {output} is no .safetensors file", hint=f"write --out {output}.safetensors"
        )
    return output


def _recipe(
    attribute: str | None,
    file: Path | None,
    changes: list[str],
    steps: int | None,
    options: dict[str, int | str | None],
    *,
    slider: bool,
) -> Recipe:
    if file is None and attribute is None:
        raise RecipeError("nothing says what to train", hint="--attribute beard, or --recipe FILE")
    path = file if file is not None else locate_recipe(str(attribute))
    changes = changes + [
        f"training.{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in options.items()
        if value is not None
    ]
    settings = load_recipe(path, changes)
    if slider:
        changes = [*as_slider(settings), *changes]  # what the user set wins
        settings = load_recipe(path, changes)
    if steps is not None:
        settings = load_recipe(path, [*changes, *with_steps(settings, steps)])
    if attribute is not None and settings.attribute.name != attribute.rpartition("/")[2]:
        raise RecipeError(
            f"{path} is a recipe for {settings.attribute.name}, not for {attribute}",
            hint=f"leave --attribute out, or write --attribute {settings.attribute.name}",
        )
    return settings


def _plan(settings: Recipe, data: Path | None, vram: float | None, *, paired: bool) -> None:
    from spf_lora.cli.dry_run import dry_run
    from spf_lora.cli.train_data import scan_data

    scan = scan_data(settings, data, paired=paired, skip_faulty=False)
    pictures = len(scan.examples) if scan else None
    hush()
    dry_run(settings, pictures, vram)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder; one that is still empty when the block fails is taken away again."""
    make_folder(folder)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it is not empty, or was never ours to take away
            folder.rmdir()
        raise


def _under(onto: str | None, settings: Recipe, target: Path) -> "Below":
    from spf_lora.registry.onto import NOTHING, below, refuse_cycle

    if onto is None:
        return NOTHING
    under = below(onto)
    refuse_cycle(under, settings.attribute.name, target)
    return under
