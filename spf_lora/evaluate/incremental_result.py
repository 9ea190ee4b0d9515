"""What an incremental measurement found: matrices, what follows from them, and JSON."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spf_lora.evaluate.result import Figure

FORMAT = "spf-lora incremental"
VERSION = 1
KEPT, TOGETHER, DIRTIER = 0.9, 0.7, 1.3
Matrix = tuple[tuple[Figure | None, ...], ...]


@dataclass(frozen=True)
class Order:
    """One order of learning; matrices are [i][n], the i-th learned after step n, None before it.

    Attributes:
        names: the adapters in this order.
        response: rho of each attribute alone in the prompt.
        pollution: P of the same pictures.
        leakage: BL after each step: what moves on prompts that ask for nothing.
    """

    names: tuple[str, ...]
    response: Matrix
    pollution: Matrix
    leakage: tuple[Figure, ...]

    @property
    def steps(self) -> int:
        """How many adapters."""
        return len(self.names)

    def mean_pollution(self) -> list[float]:
        """Return P after each step: mean over the attributes learned by then."""
        return [
            float(np.mean([_value(self.pollution[i][n]) for i in range(n + 1)]))
            for n in range(self.steps)
        ]

    def lost(self) -> list[float]:
        """Return for each attribute the best response it ever had less the one at the end."""
        rows = [[_value(one) for one in row if one is not None] for row in self.response]
        return [max(row) - row[-1] for row in rows]

    @property
    def forgetting(self) -> float:
        """Mean of `lost` (Chaudhry et al., arXiv 1801.10112, eq. 3, the last step included)."""
        return float(np.mean(self.lost()))

    @property
    def slope(self) -> float:
        """How much P grows with each adapter: the least-squares line; 0 for a single one."""
        if self.steps < 2:
            return 0.0
        return float(np.polyfit(np.arange(self.steps), self.mean_pollution(), 1)[0])


@dataclass(frozen=True)
class Meeting:
    """Several attributes in one prompt, all adapters on.

    Attributes:
        names: the adapters whose attributes are asked for.
        response: rho of each.
    """

    names: tuple[str, ...]
    response: tuple[float, ...]


@dataclass(frozen=True)
class Check:
    """One thing a stack should do.

    Attributes:
        name: short.
        claim: the sentence.
        value: the worst case found.
        limit: what it is held against.
        passed: whether it holds.
        worst: where the worst case is.
    """

    name: str
    claim: str
    value: float
    limit: float
    passed: bool
    worst: str


@dataclass(frozen=True)
class Incremental:
    """Everything one measurement of a stack found; lists are in the order given.

    Attributes:
        name: what it is called.
        base_id: of the base model.
        adapters: names.
        attributes: what each teaches.
        strengths: of each in the stack.
        prompts: people.
        seeds: pictures of each.
        sampler: name, steps and guidance.
        control: rho of the base model without any adapter.
        alone: rho of each adapter with no other on.
        alone_pollution: P of the same.
        orders: the first is the order given; others add the same adapters in another order.
        together: pairs, and the most that goes together.
        cross_talk: [i][j], how much more of i there is when only j is asked for.
        overlap: [i][j] in weight space: cosine, reads, writes; weaker evidence than pictures.
        seconds: wall time.
    """

    name: str
    base_id: str
    adapters: tuple[str, ...]
    attributes: tuple[str, ...]
    strengths: tuple[float, ...]
    prompts: int
    seeds: int
    sampler: Mapping[str, str | int | float]
    control: tuple[Figure, ...]
    alone: tuple[Figure, ...]
    alone_pollution: tuple[Figure, ...]
    orders: tuple[Order, ...]
    together: tuple[Meeting, ...]
    cross_talk: tuple[tuple[float, ...], ...]
    overlap: tuple[tuple[Mapping[str, float], ...], ...]
    seconds: float

    def checks(self) -> list[Check]:
        """Return what a stack should do, and whether this one does in the order given."""
        order = self.orders[0]
        last = order.steps - 1
        checks = [
            _lowest(
                "kept",
                f"each response at the end is at least {KEPT:g} of what it was when learned",
                KEPT,
                {
                    name: _value(order.response[i][last]) / max(_value(order.response[i][i]), 1e-9)
                    for i, name in enumerate(order.names)
                },
            )
        ]
        pairs = [one for one in self.together if len(one.names) == 2]
        if pairs:
            checks.append(
                _lowest(
                    "together",
                    f"of any two asked for together, each has a response of {TOGETHER:g}",
                    TOGETHER,
                    {" + ".join(one.names): min(one.response) for one in pairs},
                )
            )
        ratios = {
            name: _value(order.pollution[i][last]) / max(_value(self.alone_pollution[i]), 1e-9)
            for i, name in enumerate(order.names)
        }
        worst = max(ratios, key=lambda name: ratios[name])
        claim = f"with all on, none pollutes more than {DIRTIER:g} times what it does alone"
        value = ratios[worst]
        checks.append(Check("clean", claim, value, DIRTIER, value <= DIRTIER, worst))
        return checks

    def to_json(self) -> str:
        """Return everything, and what follows from it, as JSON."""
        table: dict[str, Any] = dataclasses.asdict(self)
        for row, order in zip(table["orders"], self.orders, strict=True):
            row |= {
                "mean_pollution": order.mean_pollution(),
                "lost": order.lost(),
                "forgetting": order.forgetting,
                "slope": order.slope,
            }
        table["checks"] = [dataclasses.asdict(one) for one in self.checks()]
        text = {"format": FORMAT, "version": VERSION, **_rounded(table)}
        return json.dumps(text, indent=1, ensure_ascii=False, allow_nan=False)


def _lowest(name: str, claim: str, limit: float, values: Mapping[str, float]) -> Check:
    worst = min(values, key=lambda one: values[one])
    return Check(name, claim, values[worst], limit, values[worst] >= limit, worst)


def _value(figure: Figure | None) -> float:
    assert figure is not None
    assert figure.value is not None
    return figure.value


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value
