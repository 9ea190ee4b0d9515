"""The plan of a merge: everything that the headers decide. It touches no tensor."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from spf_lora.adapters.module import Shape
from spf_lora.adapters.number_formats import FLAG_TO_DTYPE
from spf_lora.errors import RecipeError
from spf_lora.merge.methods import METHODS, Chance, Method
from spf_lora.merge.sources import Source, shape_of

_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
# the smallest share of the largest scale that one alpha for all still has to represent
_ALPHA_RANGE = 1024.0


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    Attributes:
        method: a row of `methods.METHODS`.
        rank: directions to keep in each module, or None.
        energy: share of each module's squared norm to keep, or None.
        dtype: fp16, bf16, fp32, or None for that of the adapters.
        density: share of entries to keep, for the methods on dense modules.
        seed: seeds what is drawn.
    """

    method: str = "concat"
    rank: int | None = None
    energy: float | None = None
    dtype: str | None = None
    density: float | None = None
    seed: int | None = None

    @property
    def row(self) -> Method:
        """The method's row."""
        return METHODS[self.method]

    @property
    def truncates(self) -> bool:
        """Whether a smaller rank is asked for."""
        return self.rank is not None or self.energy is not None

    @property
    def chance(self) -> Chance:
        """Density and seed with the method's defaults."""
        density = self.density if self.density is not None else self.row.density
        return Chance(density or 1.0, self.seed or 0)


@dataclass(frozen=True)
class ModulePlan:
    """What happens to one module.

    Attributes:
        weights: place of an adapter -> weight, block weight included; none of them is 0.
        ranks: place of an adapter -> its rank there.
        down: (in, ...) without the rank.
        up: (out, ...) without the rank.
        most: the largest rank that means anything.
        rank: the rank it will have; where energy decides, the largest it can have.
    """

    weights: dict[int, float]
    ranks: dict[int, int]
    down: Shape
    up: Shape
    most: int
    rank: int


@dataclass(frozen=True)
class MergePlan:
    """A merge that can be executed.

    Attributes:
        settings: what was asked for.
        sources: the adapters.
        weights: one for each adapter, after the method had its say.
        modules: what happens to each module, by canonical name.
        alpha: the one alpha of the result, where nothing is truncated.
        dtype: fp16, bf16 or fp32.
        notes: what deserves a look.
    """

    settings: Settings
    sources: Sequence[Source]
    weights: list[float]
    modules: dict[str, ModulePlan]
    alpha: float
    dtype: str
    notes: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether the result is the weighted sum but for rounding to the dtype."""
        return self.settings.row.terms is list and not self.settings.truncates

    @property
    def unchanged(self) -> Source | None:
        """The adapter that the merge is a mere copy of, if it is one."""
        used = {(at, weight) for one in self.modules.values() for at, weight in one.weights.items()}
        if not self.exact or len(used) != 1 or next(iter(used))[1] != 1.0:
            return None
        return self.sources[next(iter(used))[0]]

    @property
    def nbytes(self) -> int:
        """Size of the tensors, at most."""
        numbers = sum(one.rank * (prod(one.down) + prod(one.up)) for one in self.modules.values())
        return numbers * _BYTES[self.dtype]

    @property
    def shared(self) -> int:
        """How many modules more than one adapter moves."""
        return sum(len(one.weights) > 1 for one in self.modules.values())


def make_plan(sources: Sequence[Source], settings: Settings) -> MergePlan:
    """Decide everything that can be decided from the headers.

    Raises:
        RecipeError: the settings do not fit the method or the adapters.
        AdapterFileError: the adapters do not fit each other.
    """
    check_settings(settings)
    weights = settings.row.weights([one.weight for one in sources])
    names = sorted({name for one in sources for name in one.opened.specs})
    modules = {name: _module(sources, weights, name, settings) for name in names}
    modules = {name: one for name, one in modules.items() if one.weights}
    if not modules:
        raise RecipeError("every weight is 0, so nothing is left", hint="--weights 1,0.8")
    most = max(one.most for one in modules.values())
    if settings.rank is not None and settings.rank > most:
        raise RecipeError(
            f"rank {settings.rank} is above what is there: {most} is the useful maximum",
            hint=f"--rank {most} keeps everything",
        )
    return MergePlan(
        settings,
        sources,
        weights,
        modules,
        _alpha(sources, modules),
        settings.dtype or _dtype(sources),
        _notes(sources),
    )


def check_settings(settings: Settings) -> None:
    """Refuse settings that mean nothing to the method, before any file is opened.

    Raises:
        RecipeError: there is such a setting.
    """
    if settings.method not in METHODS:
        raise RecipeError(
            f"no merge method is called {settings.method!r}", hint=f"choose {', '.join(METHODS)}"
        )
    row, name = settings.row, settings.method
    given = settings.rank is not None, settings.energy is not None
    seeded = [one for one, method in METHODS.items() if method.draws]
    dense = [one for one, method in METHODS.items() if method.density is not None]
    faults = {
        "give a rank or an energy, not both": (all(given), "leave one out"),
        f"{name} keeps every direction and takes no rank": (
            row.rank == "never" and any(given),
            "--method svd makes it smaller",
        ),
        f"{name} needs a rank or an energy": (
            row.rank == "must" and not any(given),
            "--rank 16, or --energy 0.99",
        ),
        f"rank {settings.rank} is less than 1": (
            settings.rank is not None and settings.rank < 1,
            "--rank 16",
        ),
        f"energy {settings.energy} is not in (0, 1]": (
            settings.energy is not None and not 0 < settings.energy <= 1,
            "--energy 0.99",
        ),
        f"{name} takes no density": (
            settings.density is not None and row.density is None,
            f"only {', '.join(dense)} do",
        ),
        f"density {settings.density} is not in (0, 1]": (
            settings.density is not None and not 0 < settings.density <= 1,
            "--density 0.5",
        ),
        f"{name} draws nothing, so it takes no seed": (
            settings.seed is not None and not row.draws,
            f"only {', '.join(seeded)} do",
        ),
        f"{settings.dtype!r} is no number format": (
            settings.dtype is not None and settings.dtype not in FLAG_TO_DTYPE,
            f"choose {', '.join(FLAG_TO_DTYPE)}",
        ),
    }
    for fault, (there, hint) in faults.items():
        if there:
            raise RecipeError(fault, hint=hint)


def _module(
    sources: Sequence[Source], weights: list[float], name: str, settings: Settings
) -> ModulePlan:
    down, up = shape_of(sources, name)
    used: dict[int, float] = {}
    ranks: dict[int, int] = {}
    for at, (source, weight) in enumerate(zip(sources, weights, strict=True)):
        spec = source.opened.specs.get(name)
        if spec is not None and weight * source.factor(name) * spec.scale:
            used[at], ranks[at] = weight * source.factor(name), spec.rank
    total, limit = sum(ranks.values()), min(prod(down), up[0])
    most = limit if settings.row.dense else min(total, limit)
    kept = most if settings.truncates else total
    return ModulePlan(used, ranks, down, up, most, min(settings.rank or kept, kept))


def _alpha(sources: Sequence[Source], modules: dict[str, ModulePlan]) -> float:
    """Choose one alpha for stacked factors: the smallest of all.

    So no `up` becomes smaller than it was, and an adapter at weight 1 keeps its bits.
    """
    alphas = [
        abs(weight * sources[at].opened.specs[name].scale) * sum(one.ranks.values())
        for name, one in modules.items()
        for at, weight in one.weights.items()
    ]
    return max(min(alphas), max(alphas) / _ALPHA_RANGE)


def _dtype(sources: Sequence[Source]) -> str:
    """Return the number format that all adapters have, or the one that loses nothing."""
    flags = {"F16": "fp16", "BF16": "bf16"}
    stored = {
        flags.get(spec.dtype, "fp32") for one in sources for spec in one.opened.specs.values()
    }
    return stored.pop() if len(stored) == 1 else "fp32"


def _notes(sources: Sequence[Source]) -> list[str]:
    paths = Counter(one.path for one in sources)
    twice = [str(path) for path, times in paths.items() if times > 1]
    texts = Counter(one.card.target_text for one in sources if one.card and one.card.target_text)
    return [
        *(f"{path} is named more than once; its weights add up" for path in twice),
        *(f"{n} adapters answer to {text!r}" for text, n in texts.items() if n > 1 and not twice),
        *(
            f"{one.path} has no card, so its base is known by its shapes only"
            for one in sources
            if one.card is None and any(other.card for other in sources)
        ),
    ]
