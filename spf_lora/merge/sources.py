"""The adapters that go into a merge: opened, weighted, and known to fit each other."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from spf_lora.adapters.format import card as cards
from spf_lora.adapters.format.base_match import refuse_mixed_bases
from spf_lora.adapters.format.reading import OpenAdapter, open_adapter
from spf_lora.adapters.module import Adapter, Module, Shape, Spec
from spf_lora.errors import AdapterFileError, RecipeError
from spf_lora.merge import blocks

MOST = 200
_WEAKEST, _STRONGEST = 1e-6, 1e3  # of weights; beyond them a file could not be read again


@dataclass(frozen=True, eq=False)
class Source:
    """One adapter of a merge.

    Attributes:
        path: where it is; never written anywhere.
        opened: its checked header, and its numbers on request.
        weight: what it is multiplied by.
        block_weights: block -> further factor; empty means 1 everywhere.
        card: what it says about itself, or None.
    """

    path: Path
    opened: OpenAdapter
    weight: float
    block_weights: Mapping[str, float]
    card: cards.Card | None

    def factor(self, module: str) -> float:
        """Return what a module's change is multiplied by, block weight included, weight not."""
        return self.block_weights[blocks.block_of(module)] if self.block_weights else 1.0


def as_adapter(source: Source) -> Adapter:
    """Return what an adapter adds to a merge, its weight and block weights included."""
    modules = {}
    for name in source.opened.specs:
        module = source.opened.load(name)
        weight = source.weight * source.factor(name)
        modules[name] = Module(name, module.down, module.up, module.alpha * weight)
    return Adapter(modules)


@contextmanager
def open_sources(
    paths: Sequence[Path],
    *,
    weights: Sequence[float] | None = None,
    block_weights: Sequence[str] = (),
    allow_mixed_base: bool = False,
) -> Iterator[list[Source]]:
    """Open the adapters of a merge; only headers are read.

    Args:
        paths: adapter files or peft folders, in order.
        weights: one for each, or None for 1 each.
        block_weights: none, one text for all, or one for each; see `blocks.parse`.
        allow_mixed_base: take adapters that were trained on different bases.

    Raises:
        RecipeError: the numbers given do not match the adapters.
        AdapterFileError: an adapter cannot be read, or they do not fit each other.
    """
    if not 1 <= len(paths) <= MOST:
        raise RecipeError(f"{len(paths)} adapters were given", hint=f"name 1 to {MOST}")
    chosen = check_weights(weights, len(paths))
    tables = _block_tables(block_weights, len(paths))
    with ExitStack() as stack:
        sources = []
        for path, weight, table in zip(paths, chosen, tables, strict=True):
            opened = stack.enter_context(open_adapter(path))
            if table:
                blocks.check(table, opened.specs)
            sources.append(Source(path, opened, weight, table, _card(path, opened)))
        if not allow_mixed_base:
            refuse_mixed_bases(
                [(one.path, one.card, list(one.opened.specs.values())) for one in sources]
            )
        yield sources


def check_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Return one weight for each adapter.

    Raises:
        RecipeError: there are more or fewer, or one is out of range.
    """
    if weights is None:
        return [1.0] * count
    if len(weights) != count:
        raise RecipeError(
            f"{count} adapters were given but {len(weights)} weights",
            hint="give one for each, in the same order: --weights 1,0.8",
        )
    for weight in weights:
        if weight and not _WEAKEST <= abs(weight) <= _STRONGEST:
            raise RecipeError(
                f"weight {weight:g} is not 0, nor of a size from {_WEAKEST:g} to {_STRONGEST:g}",
                hint="--weights 1,0.8",
            )
    return list(weights)


def shape_of(sources: Sequence[Source], module: str) -> tuple[Shape, Shape]:
    """Return a module's (in, ...) and (out, ...) shape, without rank, in the form to write.

    A 1x1 convolution may be stored as a linear layer; if one adapter has it as a convolution, the
    merge has.

    Raises:
        AdapterFileError: the adapters move weights of different shapes.
    """
    having = [one for one in sources if module in one.opened.specs]
    forms = {_form(one.opened.specs[module]): one for one in having}
    sizes = {_size(form) for form in forms}
    if len(sizes) > 1:
        (into, one), (other, another) = list(forms.items())[:2]
        raise AdapterFileError(
            f"{one.path} and {another.path} do not fit: {module} is {into} and {other}",
            hint="they are for different base models and cannot be added up",
        )
    return max(forms, key=lambda form: len(form[0]))


def _form(spec: Spec) -> tuple[Shape, Shape]:
    return spec.down_shape[1:], (spec.up_shape[0], *spec.up_shape[2:])


def _size(form: tuple[Shape, Shape]) -> tuple[Shape, int]:
    into, out = form
    return (into[:1] if into[1:] in ((), (1, 1)) else into), out[0]


def _block_tables(texts: Sequence[str], count: int) -> list[dict[str, float]]:
    if len(texts) not in (0, 1, count):
        raise RecipeError(
            f"{count} adapters were given but {len(texts)} lists of block weights",
            hint="give --block-weights once for all, or once for each adapter",
        )
    parsed = [blocks.parse(text) for text in texts]
    return parsed if len(parsed) == count else (parsed or [{}]) * count


def _card(path: Path, opened: OpenAdapter) -> cards.Card | None:
    return cards.from_metadata(opened.metadata, path=path)
