"""One attribute after the other in one process: the base is loaded once, the cache is shared."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from spf_lora.cli import out
from spf_lora.cli.phases import Phases, showing_phases
from spf_lora.cli.quiet import hush
from spf_lora.cli.train_one import Job, train_one
from spf_lora.errors import DataError, RecipeError, SpfError, TrainingError
from spf_lora.recipe.schema import Recipe

if TYPE_CHECKING:
    from spf_lora.base.load import Base
    from spf_lora.data.folder import Scan


def split_names(attribute: str | None, recipe: Path | None) -> list[str | None]:
    """Return the attributes that `--attribute` names; with a recipe alone, one without a name.

    Raises:
        RecipeError: a name is empty or there twice, or one recipe is given for several.
    """
    if attribute is None:
        return [None]
    names = [name.strip() for name in attribute.split(",")]
    if not all(names):
        raise RecipeError(
            f"--attribute {attribute!r} has an empty name",
            hint="write names with single commas between them: --attribute beard,glasses",
        )
    if recipe is not None and len(names) > 1:
        raise RecipeError(
            f"--recipe {recipe} is for one attribute, and --attribute names {len(names)}",
            hint="leave --recipe out: each attribute has its own; ./recipes is looked in first",
        )
    return list(names)


def check_together(recipes: Sequence[Recipe]) -> None:
    """Refuse attributes that one run cannot train.

    Raises:
        RecipeError: one is there twice, or they are for different bases.
    """
    names = [one.attribute.name for one in recipes]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise RecipeError(f"{twice[0]} is named twice", hint="name each attribute once")
    first = recipes[0]
    for other in recipes[1:]:
        for key in ("base", "tokenizer"):
            one, two = (getattr(recipe.training, key) for recipe in (first, other))
            if one != two:
                raise RecipeError(
                    f"{first.attribute.name} is trained with the {key} {one}, "
                    f"{other.attribute.name} with {two}",
                    hint=f"name one for all with --{key}, or train them in two runs",
                )


def data_folders(data: Path | None, recipes: Sequence[Recipe]) -> list[Path | None]:
    """Return each attribute's folder: its own in `data` if it has one, else `data` for all.

    Raises:
        DataError: some attributes have a folder there and others have none.
    """
    names = [one.attribute.name for one in recipes]
    if data is None or len(names) == 1:
        return [data] * len(names)
    lacking = [name for name in names if not (data / name).is_dir()]
    if len(lacking) == len(names):
        return [data] * len(names)
    if lacking:
        raise DataError(
            f"{data} has a folder for some of the attributes, but none for {', '.join(lacking)}",
            hint=f"add {data / lacking[0]}, or leave {lacking[0]} out",
        )
    return [data / name for name in names]


def train_all(jobs: Sequence[Job]) -> None:
    """Train jobs on one base in turn; of several, one that fails does not stop the others.

    Raises:
        SpfError: the only one failed, or the base or what is on it cannot be used.
        TrainingError: names those of several that failed.
    """
    with showing_phases(first=os.environ.get("RANK", "0") == "0") as phases:
        _train_all(jobs, phases)


def _train_all(jobs: Sequence[Job], phases: Phases) -> None:
    phases("load the base")
    hush()
    from spf_lora.base.share import shared
    from spf_lora.training.processes import processes

    siblings, failed = processes(), list[str]()
    # Siblings wait for each other, so a fault that only one of them meets must end them all.
    stop = len(jobs) == 1 or siblings.count > 1
    with ExitStack() as stack:
        # The only folder's faults are told before a base is loaded for it.
        first = _scan(jobs[0]) if len(jobs) == 1 else None
        base = stack.enter_context(_loaded(jobs[0]))
        for job in jobs:
            training = job.settings.training
            apart = training.precision != "fp32" or training.channels_last
            lent = nullcontext(base) if job is jobs[-1] else shared(base, apart=apart)
            with nullcontext() if stop else _going_on(job, failed, phases):
                scan = first or _scan(job)
                with lent as own:
                    train_one(job, own, scan, siblings, phases)
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(jobs)} attributes are not trained: {', '.join(failed)}",
            hint="fix what is said above; the same command with --resume trains those alone",
        )


def _scan(job: Job) -> "Scan | None":
    from spf_lora.cli.train_data import scan_data

    return scan_data(job.settings, job.data, paired=job.paired, skip_faulty=job.skip_faulty)


@contextmanager
def _loaded(job: Job) -> Iterator["Base"]:
    """Load the base, with what the job trains onto on it."""
    from spf_lora.adapters.format.adapter_file import read_adapter
    from spf_lora.base.load import load_base
    from spf_lora.draw.weights import attached
    from spf_lora.registry.onto import check_base

    training = job.settings.training
    tokenizer = None if training.tokenizer == "own" else training.tokenizer
    base = load_base(training.base, tokenizer=tokenizer)
    check_base(job.under, base.id)
    on = [(read_adapter(known.path), strength) for known, strength in job.under.members]
    with attached(base.unet, on, text_encoder=base.text_encoder):
        yield base


@contextmanager
def _going_on(job: Job, failed: list[str], phases: Phases) -> Iterator[None]:
    name = job.settings.attribute.name
    try:
        yield
    except SpfError as error:
        phases.drop()
        out.say(f"error: {name}: {error.message}")
        out.say(f"hint: {error.hint}")
        failed.append(name)
