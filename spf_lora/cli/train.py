"""`spf-lora train`: from a recipe to an adapter file and a picture that shows it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spf_lora.atomic import make_folder
from spf_lora.cli.quiet import hush
from spf_lora.cli.training_run import Job, train_one
from spf_lora.errors import RecipeError
from spf_lora.recipe import Recipe, load_recipe, locate_recipe

if TYPE_CHECKING:
    from spf_lora.adapters.onto import Below


def train(
    attribute: Annotated[
        str | None, typer.Option("--attribute", "-a", help="What to teach: a recipe's name.")
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
        Path | None, typer.Option(help="Folder of pictures with same-stem .txt captions.")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Side of the square, in pixels; else the base's own.")
    ] = None,
    skip_faulty: Annotated[
        bool, typer.Option("--skip-faulty", help="Train on what the check of --data leaves.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; adapters/ATTRIBUTE.safetensors.")
    ] = None,
    onto: Annotated[
        str | None,
        typer.Option(metavar="STACK|ADAPTER", help="Train on top of it: it is on and frozen."),
    ] = None,
    log_dir: Annotated[Path | None, typer.Option(help="Write TensorBoard logs there.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
    plan_only: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its memory; train nothing.")
    ] = False,
    vram: Annotated[
        float | None, typer.Option(min=0.1, help="With --dry-run: settings that fit so many GB.")
    ] = None,
) -> None:
    """Train one attribute as a pollution-free adapter."""
    told = {"seed": seed, "base": base, "tokenizer": tokenizer}
    changes = [*(changes or []), *([] if resolution is None else [f"data.resolution={resolution}"])]
    settings = _recipe(attribute, recipe, changes, steps, told)
    if plan_only:
        _plan(settings, data, vram)
        return
    target = output or Path("adapters") / f"{settings.attribute.name}.safetensors"
    if target.suffix != ".safetensors":
        raise RecipeError(
            f"--out {target} is no .safetensors file", hint=f"write --out {target}.safetensors"
        )
    with _made(target.parent) if output is None else nullcontext():
        under = _under(onto, settings, target)
        job = Job(settings, target, data, log_dir, under, resume, force, skip_faulty)
        job.check()
        _run(job)


def _recipe(
    attribute: str | None, file: Path | None, changes: list[str], steps: int | None,
    told: dict[str, int | str | None],
) -> Recipe:  # fmt: skip
    if file is None and attribute is None:
        raise RecipeError("nothing says what to train", hint="--attribute beard, or --recipe FILE")
    path = file if file is not None else locate_recipe(str(attribute))
    changes += [
        f"training.{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in told.items()
        if value is not None
    ]
    settings = load_recipe(path, changes)
    if steps is not None:
        from spf_lora.training.build import with_steps

        settings = load_recipe(path, [*changes, *with_steps(settings, steps)])
    if attribute is not None and settings.attribute.name != attribute.rpartition("/")[2]:
        raise RecipeError(
            f"{path} is a recipe for {settings.attribute.name}, not for {attribute}",
            hint=f"leave --attribute out, or write --attribute {settings.attribute.name}",
        )
    return settings


def _plan(settings: Recipe, data: Path | None, vram: float | None) -> None:
    from spf_lora.cli.dry_run import dry_run

    pictures = None
    if data is not None:
        from spf_lora.training.build import load_examples

        pictures = len(load_examples(settings, data))
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
    from spf_lora.adapters.onto import NOTHING, below, refuse_cycle

    if onto is None:
        return NOTHING
    under = below(onto)
    refuse_cycle(under, settings.attribute.name, target)
    return under


def _run(job: Job) -> None:
    hush()
    from spf_lora.adapters.attach import attached
    from spf_lora.adapters.file import read_adapter
    from spf_lora.adapters.onto import refuse_other_base
    from spf_lora.base.load import load_base
    from spf_lora.cli.training_data import scan_data
    from spf_lora.training.processes import processes

    scan = scan_data(job.settings, job.data, skip_faulty=job.skip_faulty)
    training = job.settings.training
    tokenizer = None if training.tokenizer == "own" else training.tokenizer
    base = load_base(training.base, tokenizer=tokenizer)
    refuse_other_base(job.under, base.id)
    on = [(read_adapter(known.path), strength) for known, strength in job.under.members]
    with attached(base.unet, on):
        train_one(job, base, scan, processes())
