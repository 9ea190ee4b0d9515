"""Executes a plan, module by module: numpy only; of the adapters one module each is in memory."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from spf_lora.adapters.factors import Near
from spf_lora.adapters.format import hashes
from spf_lora.adapters.format.writing import write_modules
from spf_lora.adapters.module import Array, Module, Spec
from spf_lora.adapters.sd15 import block, natural
from spf_lora.atomic import check_writable
from spf_lora.errors import OutputError
from spf_lora.merge.lowrank import nearest, nearest_dense
from spf_lora.merge.methods import Term
from spf_lora.merge.origin import metadata
from spf_lora.merge.plan import MergePlan
from spf_lora.merge.sources import Source

_MOST_WORKERS = 4
# an open file has one position, so one worker reads at a time
_READING = Lock()

# shapes, how to get the numbers, and the one alpha
_Modules = tuple[dict[str, Spec], Callable[[str], Module], float]


@dataclass
class MergeOutcome:
    """What a merge does, or would do, to the numbers.

    Attributes:
        ranks: module -> rank.
        blocks: block -> (norm, norm cut off, lowest rank, highest rank); only where ranks are cut.
        taken: place of an adapter -> (norm, norm taken away); only for methods that take away.
        digest: sha256 of the tensors written; empty for a prediction.
    """

    ranks: dict[str, int] = field(default_factory=dict)
    blocks: dict[str, tuple[float, float, int, int]] = field(default_factory=dict)
    taken: dict[int, tuple[float, float]] = field(default_factory=dict)
    digest: str = ""

    @property
    def relative_error(self) -> float:
        """Norm cut off over norm before, over the whole adapter."""
        norm = float(np.hypot.reduce([0.0, *(one[0] for one in self.blocks.values())]))
        error = float(np.hypot.reduce([0.0, *(one[1] for one in self.blocks.values())]))
        return error / norm if norm else 0.0

    @property
    def rank_counts(self) -> dict[int, int]:
        """Rank -> how many modules have it."""
        return dict(sorted(Counter(self.ranks.values()).items()))

    def note_cut(self, name: str, near: Near) -> None:
        """Add what the truncation of one module cost."""
        at, rank = block(name), near.up.shape[1]
        norm, error, low, high = self.blocks.get(at, (0.0, 0.0, rank, rank))
        self.blocks[at] = (
            float(np.hypot(norm, near.norm)),
            float(np.hypot(error, near.error)),
            min(low, rank),
            max(high, rank),
        )
        self.ranks[name] = rank

    def note_taken(self, terms: Sequence[Term]) -> None:
        """Add what a method took away from each adapter in one module."""
        for term in terms:
            if term.norm:
                norm, lost = self.taken.get(term.source, (0.0, 0.0))
                self.taken[term.source] = (
                    float(np.hypot(norm, term.norm)),
                    float(np.hypot(lost, term.lost)),
                )

    def sorted(self) -> "MergeOutcome":
        """Return the same with blocks in the order that people count."""
        blocks = {at: self.blocks[at] for at in sorted(self.blocks, key=natural)}
        return MergeOutcome(self.ranks, blocks, dict(sorted(self.taken.items())), self.digest)


def predict(plan: MergePlan) -> MergeOutcome:
    """Return what a merge would cost, from its factors; nothing is written.

    The methods on dense modules are not predicted: that would be the merge itself.
    """
    done = MergeOutcome(ranks={name: one.rank or 0 for name, one in plan.modules.items()})
    if plan.exact or plan.settings.row.dense:
        return done
    if plan.settings.truncates:
        _cut_all(plan, [], done)
    else:
        for name in plan.modules:
            done.note_taken(_method_terms(plan, name))
    return done.sorted()


def execute(plan: MergePlan, target: Path, *, overwrite: bool = False) -> MergeOutcome:
    """Merge and write one kohya file, whole or not at all.

    Raises:
        OutputError: the target is one of the adapters, exists, or cannot be written.
        AdapterFileError: an adapter holds NaN or inf, or a number does not fit the dtype.
    """
    check_target(plan, target, overwrite=overwrite)
    with ThreadPoolExecutor(_workers()) as pool:
        ids = list(pool.map(_content_id, plan.sources))
    done = MergeOutcome()
    specs, load, alpha = (_cut_modules if plan.settings.truncates else _exact_modules)(
        plan, ids, done
    )
    done.ranks = {name: spec.rank for name, spec in specs.items()}
    entries = metadata(plan, ids, title=target.stem, rank=max(done.ranks.values()), alpha=alpha)
    done.digest = write_modules(
        specs, load, entries, target, layout="kohya", dtype=plan.dtype, overwrite=overwrite
    )
    return done.sorted()


def check_target(plan: MergePlan, target: Path, *, overwrite: bool) -> None:
    """Refuse an output that is also an input, even with --force, or that cannot be written.

    Raises:
        OutputError: it is.
    """
    for source in plan.sources:
        if target.exists() and any(target.samefile(file) for file in source.opened.files):
            raise OutputError(
                f"{target} is one of the adapters to be merged", hint="choose another name with -o"
            )
    check_writable(target, overwrite=overwrite)


def _exact_modules(plan: MergePlan, ids: list[str], done: MergeOutcome) -> _Modules:
    """Stack factors, one module at a time while the file is written."""
    if plan.unchanged is not None:
        opened = plan.unchanged.opened
        return {name: opened.specs[name] for name in plan.modules}, opened.load, plan.alpha

    def load(name: str) -> Module:
        terms = _method_terms(plan, name)
        done.note_taken(terms)
        return _stacked(plan, name, terms)

    specs = {
        name: Spec(
            name,
            (one.rank, *one.down),
            (one.up[0], one.rank, *one.up[1:]),
            plan.alpha,
            "F32",
        )
        for name, one in plan.modules.items()
    }
    return specs, load, plan.alpha


def _cut_modules(plan: MergePlan, ids: list[str], done: MergeOutcome) -> _Modules:
    """Truncate all modules, then let them be written; the smaller rank makes room for that."""
    built = _cut_all(plan, ids, done)
    alpha = float(max(done.ranks.values()))
    modules = {name: _balanced(plan, name, near, alpha) for name, near in built.items()}
    return {name: one.spec() for name, one in modules.items()}, modules.__getitem__, alpha


def _cut_all(plan: MergePlan, ids: list[str], done: MergeOutcome) -> dict[str, Near]:
    """Truncate modules side by side: numpy lets go of Python's lock in all that takes long."""
    built: dict[str, Near] = {}
    with ThreadPoolExecutor(1 if plan.settings.row.dense else _workers()) as pool:
        cuts = pool.map(partial(_cut, plan, ids), plan.modules)
        for name, (near, taken) in zip(plan.modules, cuts, strict=True):
            done.note_cut(name, near)
            done.note_taken(taken)
            built[name] = near
    return built


def _cut(plan: MergePlan, ids: list[str], name: str) -> tuple[Near, list[Term]]:
    settings = plan.settings
    if settings.row.dense:
        dense = settings.row.dense(_terms(plan, name, ids), settings.chance)
        near, taken = nearest_dense(dense, rank=settings.rank, energy=settings.energy), []
    else:
        terms = _method_terms(plan, name)
        up = np.concatenate([np.asarray(one.up, np.float64) * one.scale for one in terms], axis=1)
        down = np.concatenate([np.asarray(one.down, np.float64) for one in terms])
        near = nearest(up, down, rank=settings.rank, energy=settings.energy)
        taken = [replace(one, up=np.empty(0), down=np.empty(0)) for one in terms]
    return near, taken


def _workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(_MOST_WORKERS, cores or 1)


def _content_id(source: Source) -> str:
    return hashes.content_id_of(source.opened.specs, source.opened.load)


def _terms(plan: MergePlan, name: str, ids: list[str] | None = None) -> list[Term]:
    """Load what each adapter adds to one module, in the order of the adapters."""
    used = plan.modules[name].weights
    with _READING:
        modules = {at: plan.sources[at].opened.load(name) for at in used}
    terms = []
    for at, weight in used.items():
        module = modules[at]
        up, down = module.up.reshape(-1, module.rank), module.down.reshape(module.rank, -1)
        key = f"{ids[at]} {name}" if ids else ""
        terms.append(Term(at, weight * module.scale, up, down, key))
    return terms


def _method_terms(plan: MergePlan, name: str) -> list[Term]:
    method = plan.settings.row.terms
    assert method is not None
    return method(_terms(plan, name))


def _stacked(plan: MergePlan, name: str, terms: list[Term]) -> Module:
    """Stack factors so that `alpha / rank * up @ down` is the sum of the terms."""
    rank = sum(one.up.shape[1] for one in terms)
    written = float(np.float32(plan.alpha)) / rank
    up = np.concatenate(
        [(np.asarray(one.up, np.float64) * (one.scale / written)) for one in terms], axis=1
    )
    down = np.concatenate([one.down for one in terms])
    return _shaped(plan, name, up.astype(np.float32), down, plan.alpha)


def _balanced(plan: MergePlan, name: str, near: Near, alpha: float) -> Module:
    up = near.up * (near.up.shape[1] / alpha)
    return _shaped(plan, name, up.astype(np.float32), near.down.astype(np.float32), alpha)


def _shaped(plan: MergePlan, name: str, up: Array, down: Array, alpha: float) -> Module:
    one, rank = plan.modules[name], up.shape[1]
    return Module(
        name, down.reshape(rank, *one.down), up.reshape(one.up[0], rank, *one.up[1:]), alpha
    )
