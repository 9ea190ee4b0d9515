"""`spf-lora train`: from a recipe to an adapter file and a picture that shows it."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spf_lora.atomic import check_writable, make_folder
from spf_lora.cli import out
from spf_lora.cli.live import live_view
from spf_lora.cli.quiet import hush
from spf_lora.errors import RecipeError
from spf_lora.recipe import Recipe, load_recipe, locate_recipe

if TYPE_CHECKING:
    from spf_lora.adapters.onto import Below
    from spf_lora.base.load import Base
    from spf_lora.training.trainer import Trainer

_PREVIEWS = 6


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
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
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
        for path in (target, target.with_suffix(".png")):
            check_writable(path, overwrite=force)
        under = _under(onto, settings, target)
        if not _train(settings, data, target, under, log_dir, resume, skip_faulty):
            return
    out.say(f"adapter: {target}")
    out.say(f"picture: {target.with_suffix('.png')} (base | adapter | difference)")
    out.show(str(target))


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


def _train(
    settings: Recipe, data: Path | None, target: Path, under: "Below", log_dir: Path | None,
    resume: bool, skip_faulty: bool,
) -> bool:  # fmt: skip
    """Train; tell whether this process is the one that writes and talks."""
    hush()
    from spf_lora.adapters.attach import attached
    from spf_lora.adapters.file import read_adapter, write_adapter
    from spf_lora.adapters.onto import refuse_other_base
    from spf_lora.base.load import load_base
    from spf_lora.cli.training_data import checked_examples, scan_data, tell_of
    from spf_lora.data.cache import TensorCache, cache_folder
    from spf_lora.training.build import build_trainer, finished_adapter
    from spf_lora.training.processes import processes
    from spf_lora.training.speed import resting

    scan = scan_data(settings, data, skip_faulty=skip_faulty)
    own = settings.training.tokenizer == "own"
    base = load_base(settings.training.base, tokenizer=None if own else settings.training.tokenizer)
    refuse_other_base(under, base.id)
    checkpoint = target.with_name(f".{target.stem}.checkpoint.safetensors")
    siblings = processes()
    examples = checked_examples(settings, base, scan, skip_faulty=skip_faulty, talk=siblings.first)
    cache = TensorCache(cache_folder())
    on = [(read_adapter(known.path), strength) for known, strength in under.members]
    with attached(base.unet, on):
        trainer = build_trainer(
            settings, base, examples, checkpoint=checkpoint, under=under, processes=siblings,
            cache=cache,
        )  # fmt: skip
        tell_of(cache)
        done = trainer.resume() if resume else 0
        if siblings.first:
            if resume:
                out.say(f"resuming after step {done}")
            out.say(_announcement(settings, trainer, [known.name for known, _ in under.members]))
            for remark in trainer.remarks:
                out.say(remark)
        asleep = [base.text_encoder] + ([] if settings.align.response else [base.vae])
        with resting(*asleep):
            _loop(trainer, every=settings.training.checkpoint_every_steps, log_dir=log_dir)
        if siblings.first:
            adapter = finished_adapter(settings, base, examples, under)
            picture = _preview(settings, base, examples)
    if siblings.first:
        write_adapter(adapter, target, overwrite=True)
        _write_png(picture, target.with_suffix(".png"))
        checkpoint.unlink(missing_ok=True)
    siblings.wait()
    return siblings.first


def _announcement(settings: Recipe, trainer: "Trainer", onto: list[str]) -> str:
    stages = ", ".join(f"{stage.steps} steps to {stage.name}" for stage in trainer.stages)
    count = trainer.processes.count
    below = f" onto {', '.join(onto)}" if onto else ""
    more = f", in {count} processes" if count > 1 else ""
    pictures = len(trainer.data)
    return f"training {settings.attribute.name}{below}: {pictures} pictures, {stages}{more}"


def _loop(trainer: "Trainer", *, every: int, log_dir: Path | None) -> None:
    """Run the trainer; show, log and save what it does. Ctrl-C ends it between two steps."""
    first = trainer.processes.first
    log = _tensorboard(log_dir if first else None)
    with live_view() as view, _interruptible() as interrupted:
        for step in trainer.run():
            if first:
                view(step)
                log(step)
            if trainer.processes.any(interrupted()):
                trainer.save()
                break
            if step.index % every == 0 or step.index == step.steps:
                trainer.save()
    if trainer.done < trainer.steps:
        if first:
            out.say(f"stopped after step {trainer.done}; the same command with --resume goes on")
        raise KeyboardInterrupt


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C into a question to ask between steps, so that no step is cut in half."""
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: asked.append(number))
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def _tensorboard(log_dir: Path | None) -> Any:
    if log_dir is None:
        return lambda step: None
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(log_dir))

    def log(step: Any) -> None:
        values = {f"loss/{k}": v for k, v in step.terms.items()}
        values |= {"loss/total": step.loss, "seconds_per_step": step.seconds}
        if step.map_area is not None:
            values["control_map/mean_area"] = step.map_area
        for name, value in values.items():
            writer.add_scalar(name, value, step.index)
        writer.flush()

    return log


def _preview(settings: Recipe, base: "Base", examples: Any) -> Any:
    """Draw base | adapter | difference for held-out prompts, same noise in a row."""
    from PIL import ImageChops

    from spf_lora.adapters.attach import adapter_off
    from spf_lora.base.sample import contact_sheet, sample
    from spf_lora.data.captions import full_prompt
    from spf_lora.training.build import preview_prompts

    prompts = preview_prompts(settings, examples, _PREVIEWS)
    seeds = list(range(len(prompts)))
    with adapter_off(base.unet):
        before = sample(base, prompts, seeds)
    after = sample(base, [full_prompt(p, settings.attribute) for p in prompts], seeds)
    return contact_sheet(
        [(a, b, ImageChops.difference(a, b)) for a, b in zip(before, after, strict=True)]
    )


def _write_png(picture: Any, path: Path) -> None:
    import io

    from spf_lora.atomic import write_bytes

    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue(), overwrite=True)
