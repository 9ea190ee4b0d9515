"""One attribute's training as the command runs it: resumed, shown, saved, written.

The checkpoint is there until the adapter is, and the picture is written before it. So whenever a
run is killed, an adapter that is there is whole and finished, and where none is there the same
command with `--resume` goes on.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spf_lora.atomic import check_folder, check_writable, sweep
from spf_lora.cli import out
from spf_lora.cli.phases import Phases
from spf_lora.cli.train_loop import resumable, run_trainer
from spf_lora.cli.train_watch import NOTHING, Watch, watching
from spf_lora.errors import AdapterFileError
from spf_lora.recipe.schema import Recipe

if TYPE_CHECKING:
    from spf_lora.adapters.format.card import Card
    from spf_lora.base.load import Base
    from spf_lora.data.folder import Example, Scan
    from spf_lora.evaluate.preview import Preview
    from spf_lora.registry.onto import Below
    from spf_lora.training.processes import Processes
    from spf_lora.training.trainer import Trainer


@dataclass(frozen=True)
class Job:
    """What to train, and where it goes.

    Attributes:
        settings: the recipe.
        target: the adapter's file.
        data: the user's folder, or None for drawn portraits.
        log_dir: for TensorBoard, or None.
        under: what is on and frozen.
        resume: go on from the checkpoint.
        force: overwrite what is there.
        skip_faulty: train on what the check of the folder leaves.
        watch: what is left on the way.
        verbose: tell the details of remarks too.
        paired: whether `data` holds pictures before and after.
    """

    settings: Recipe
    target: Path
    data: Path | None
    log_dir: Path | None
    under: "Below"
    resume: bool = False
    force: bool = False
    skip_faulty: bool = False
    watch: Watch = NOTHING
    verbose: bool = False
    paired: bool = False

    @property
    def picture(self) -> Path:
        """The file that shows what the adapter does."""
        return self.target.with_suffix(".png")

    @property
    def lock(self) -> Path:
        """The file whose lock is held for the whole run."""
        return self.target.with_name(f".{self.target.stem}.lock")

    @property
    def checkpoint(self) -> Path:
        """The file to resume from."""
        return self.target.with_name(f".{self.target.stem}.checkpoint.safetensors")

    def check(self) -> None:
        """Refuse what could not be written, before the long work.

        Raises:
            OutputError: a file is there already, or its folder cannot be written.
        """
        # Of a run to go on with, the files may be there; whether they are its own is seen later.
        begun = self.resume and (self.checkpoint.exists() or self.target.exists())
        for path in (self.target, self.picture):
            check_writable(path, overwrite=self.force or begun)
        check_writable(self.checkpoint, overwrite=True)
        if self.log_dir is not None:
            check_folder(self.log_dir)


def train_one(
    job: Job, base: "Base", scan: "Scan | None", siblings: "Processes", phases: Phases
) -> None:
    """Train, and write the adapter and its picture.

    Args:
        job: what, and where to.
        base: with the adapters of `job.under` on; its U-Net gets the new one.
        scan: the user's folder as read, or None.
        siblings: the processes that share the work; the first one writes and talks.
        phases: shows what is being done.
    """
    from spf_lora.cli.train_data import checked_examples, warn_of_cache
    from spf_lora.data.cache import TensorCache, cache_folder
    from spf_lora.training.build import build_trainer
    from spf_lora.training.finish import card_of, finished_adapter
    from spf_lora.training.precision import resting

    settings, under = job.settings, job.under
    phases("read pictures")
    cache = TensorCache(cache_folder())
    examples = checked_examples(
        settings, base, scan, cache, skip_faulty=job.skip_faulty, talk=siblings.first
    )
    finished = job.resume and _is_finished(job, card_of(settings, base, examples, under))
    begun = job.resume and job.checkpoint.exists()
    siblings.wait()  # all have looked; from here on the first one changes files
    if finished:
        if siblings.first:
            out.say(f"{settings.attribute.name} is finished already")
            _clear(job)
            _show_files(job)
        return
    trainer = build_trainer(
        settings,
        base,
        examples,
        checkpoint=job.checkpoint,
        under=under,
        processes=siblings,
        cache=cache,
        tell=phases,
    )
    phases.end()
    warn_of_cache(cache)
    done = trainer.resume() if begun else 0
    if siblings.first:
        if job.resume:
            from_where = f"resuming after step {done}"
            out.say(from_where if begun else "there is no checkpoint yet: starting at step 1")
        out.say(_announcement(settings, trainer, [known.name for known, _ in under.members]))
        for remark in trainer.remarks:
            out.say(remark)
        for detail in trainer.details if job.verbose else ():
            out.say(f"  {out.printable(detail, most=600)}")
        _clear(job, keep=begun)
    decodes = settings.training.method == "spf-portrait"
    idle = [] if settings.adapter.text_encoder else [base.text_encoder]
    idle += [] if decodes else [base.vae]
    with resumable():
        with resting(*idle):
            look = watching(
                job.watch,
                job.target,
                base,
                lambda: finished_adapter(settings, base, examples, under),
                job.log_dir,
            )
            every = settings.training.checkpoint_every_steps
            run_trainer(trainer, phases, every=every, logs=job.log_dir, look=look)
        if siblings.first:
            phases("draw the preview")
            drawn = _write(job, base, examples)
            phases.end()
    if siblings.first:
        _show_files(job)
        _conclude(job, drawn)
    siblings.wait()


def _is_finished(job: Job, card: "Card") -> bool:
    """Tell whether the adapter is there; one that another training made is in the way.

    Raises:
        OutputError: it is of another recipe, base or data, and may not be overwritten.
    """
    from spf_lora.adapters.format.adapter_file import read_adapter
    from spf_lora.adapters.format.card import as_table, from_metadata
    from spf_lora.recipe.digest import canonical_json

    if not job.target.exists():
        return False

    def made_from(card: "Card | None") -> str:
        return canonical_json(as_table(replace(card, versions={}, metrics={}))) if card else ""

    try:
        old_card = from_metadata(read_adapter(job.target).metadata)
    except AdapterFileError:
        old_card = None
    if made_from(old_card) == made_from(card):
        return True
    check_writable(job.target, overwrite=job.force)
    return False


def _clear(job: Job, *, keep: bool = False) -> None:
    """Remove what killed runs left behind: half-written files, a checkpoint not gone on from."""
    for path in (job.target, job.picture, job.checkpoint):
        sweep(path)
    if not keep:
        job.checkpoint.unlink(missing_ok=True)


def _write(job: Job, base: "Base", examples: "list[Example]") -> "Preview":
    """Write the picture, then the adapter, then give up the checkpoint; see the module."""
    from spf_lora.adapters.format.adapter_file import write_adapter
    from spf_lora.cli.preview import preview, write_png
    from spf_lora.training.finish import finished_adapter

    adapter = finished_adapter(job.settings, base, examples, job.under)
    drawn = preview(job.settings, base, examples)
    write_png(drawn.picture, job.picture)
    write_adapter(adapter, job.target, overwrite=job.force)  # else it was not there: see `check`
    job.checkpoint.unlink(missing_ok=True)
    return drawn


def _show_files(job: Job) -> None:
    out.say(f"adapter: {job.target}")
    out.say(f"picture: {job.picture} (base | adapter | difference)")
    out.show(str(job.target))


def _conclude(job: Job, drawn: "Preview") -> None:
    from spf_lora.cli.verdict import next_commands, verdict

    out.say(verdict(drawn, job.settings, job.picture))
    out.say("next:")
    judged = None if job.paired else job.data  # a judge learns from pictures with captions
    for command in next_commands(drawn, job.settings, job.target, judged):
        out.say(f"  {command}")


def _announcement(settings: Recipe, trainer: "Trainer", onto: list[str]) -> str:
    stages = ", ".join(f"{stage.steps} steps to {stage.name}" for stage in trainer.stages)
    count = trainer.processes.count
    below = f" onto {', '.join(onto)}" if onto else ""
    more = f", in {count} processes" if count > 1 else ""
    pictures = trainer.pictures
    return f"training {settings.attribute.name}{below}: {pictures} pictures, {stages}{more}"
