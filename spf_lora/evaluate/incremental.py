"""What learning one attribute after another does to those learned before.

Every number comes from the same people and noise, drawn with the base model, with each adapter
alone, and with the first one, two, three ... adapters of the stack on. docs/incremental.md says
what the numbers mean.
"""

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spf_lora.adapters.combine import combined
from spf_lora.adapters.module import Adapter
from spf_lora.adapters.overlap import overlaps
from spf_lora.base.load import Base
from spf_lora.data.captions import join_phrases, split_phrases
from spf_lora.data.worlds.portraits import ATTRIBUTES, FACTORS
from spf_lora.draw.act import Acting, acting
from spf_lora.draw.late import stages
from spf_lora.draw.pixels import pixels_of
from spf_lora.draw.sample import Sampling
from spf_lora.errors import MeasureError
from spf_lora.evaluate.draw_missing import Painter, Wanted, painter
from spf_lora.evaluate.gallery import read_picture
from spf_lora.evaluate.incremental_result import Incremental, Meeting, Order
from spf_lora.evaluate.judges.world import world_judge
from spf_lora.evaluate.protocol import Case, held_out_cases
from spf_lora.evaluate.result import Draw, Figure, Result
from spf_lora.evaluate.run import Measurement, evaluate, sampler_of

SAMPLING = Sampling(steps=15)
PROMPTS, SEEDS = 16, 2
_BOOTSTRAPS = 500
Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Learned:
    """One adapter of a stack.

    Attributes:
        name: what tables call it.
        attribute: what it teaches, an attribute of the portrait world.
        adapter: at strength 1.
        strength: that it has in the stack.
        start_percent: share of the time steps before it acts and its words are read.
    """

    name: str
    attribute: str
    adapter: Adapter
    strength: float = 1.0
    start_percent: float = 0.0


@dataclass(frozen=True)
class StackProtocol:
    """How a stack is measured.

    Attributes:
        prompts: people.
        seeds: pictures of each.
        orders: how many orders to add the same adapters in; the first is the one given.
        exact: each adapter acts on the words that ask for it alone, as no other app can draw.
        local: adapters act in the control map alone.
    """

    prompts: int = PROMPTS
    seeds: int = SEEDS
    orders: int = 1
    exact: bool = False
    local: bool = False


QUICK = StackProtocol(prompts=6, seeds=1)


def measure_incremental(
    base: Base,
    learned: Sequence[Learned],
    protocol: StackProtocol,
    *,
    gallery: Path,
    sampling: Sampling = SAMPLING,
    name: str = "",
    tell: Tell = lambda text: None,
) -> Incremental:
    """Measure a stack: after every step, each adapter alone, and all asked for together.

    Args:
        base: the model the adapters were trained on.
        learned: the adapters in the order they were learned.
        protocol: people, pictures, orders, and how the adapters act.
        gallery: folder of the picture cache.
        sampling: how pictures are drawn.
        name: what the result is called.
        tell: told what is measured next.

    Raises:
        MeasureError: there is no adapter, an attribute is there twice or cannot be judged.
    """
    began = time.perf_counter()
    _check(learned)
    cells = _Cells(base, learned, protocol, gallery, sampling, tell)
    every = frozenset(range(len(learned)))
    measured = [_order(cells, row) for row in chosen_orders(len(learned), protocol.orders)]
    alone = [cells.get(frozenset([i]), i) for i in range(len(learned))]
    final = [cells.get(every, i) for i in range(len(learned))]
    tell("measuring what is asked for together")
    met = overlaps([combined([(one.adapter, one.strength)]) for one in learned])
    return Incremental(
        name=name,
        base_id=base.id,
        adapters=tuple(one.name for one in learned),
        attributes=tuple(one.attribute for one in learned),
        strengths=tuple(one.strength for one in learned),
        prompts=protocol.prompts,
        seeds=protocol.seeds,
        sampler=sampler_of(sampling, cells.acting(every)),
        control=tuple(one.figure("rho", 0.0) for one in alone),
        alone=tuple(one.figure("rho", 1.0) for one in alone),
        alone_pollution=tuple(one.figure("P", 1.0) for one in alone),
        orders=tuple(measured),
        together=tuple(_together(cells, final, group) for group in groups(learned)),
        cross_talk=tuple(
            tuple(_cross_talk(cells, final, i, j) for j in range(len(learned)))
            for i in range(len(learned))
        ),
        overlap=tuple(
            tuple({"cosine": o.cosine, "reads": o.reads, "writes": o.writes} for o in row)
            for row in met
        ),
        seconds=round(time.perf_counter() - began, 1),
    )


def chosen_orders(count: int, orders: int) -> list[tuple[int, ...]]:
    """Return different orders of `count` things: as given, reversed, then shuffled by a seed."""
    given = tuple(range(count))
    orders_so_far = [given, given[::-1]]
    rng = random.Random(0)
    every = list(itertools.permutations(given)) if count <= 6 else []
    rng.shuffle(every)
    orders_so_far += every or [tuple(rng.sample(given, count)) for _ in range(4 * orders)]
    return list(dict.fromkeys(orders_so_far))[:orders]


def groups(learned: Sequence[Learned]) -> list[tuple[int, ...]]:
    """Return what can be asked for together: each pair, and the most that goes together."""

    def fits(one: int, others: Sequence[int]) -> bool:
        row = ATTRIBUTES[learned[one].attribute]
        taken = [ATTRIBUTES[learned[other].attribute] for other in others]
        apart = {learned[other].attribute for other in others} & set(row.excludes)
        spoilt = any(row.replaces and row.replaces in other.hides for other in taken)
        spoils = any(other.replaces and other.replaces in row.hides for other in taken)
        return not apart and not spoilt and not spoils

    pairs = [p for p in itertools.combinations(range(len(learned)), 2) if fits(p[1], [p[0]])]
    most: list[int] = []
    for index in range(len(learned)):
        if fits(index, most):
            most.append(index)
    return [*pairs, tuple(most)] if len(most) > 2 else list(pairs)


def asking_for(prompt: str, attributes: Sequence[str]) -> str:
    """Return a prompt of the portrait world that asks for attributes too."""
    phrases = split_phrases(prompt)
    for row in (ATTRIBUTES[name] for name in attributes):
        replaced = {text for text, _ in FACTORS[row.replaces].values()} if row.replaces else set()
        at = next((i for i, phrase in enumerate(phrases) if phrase in replaced), len(phrases))
        phrases[at : at + 1] = [row.target_text]
    return join_phrases(phrases)


class _Cells:
    """Evaluations of one attribute with some adapters on; each is made once."""

    def __init__(
        self,
        base: Base,
        learned: Sequence[Learned],
        protocol: StackProtocol,
        gallery: Path,
        sampling: Sampling,
        tell: Tell,
    ) -> None:
        self.base, self.learned, self.protocol = base, learned, protocol
        self.gallery, self.sampling, self.tell = gallery, sampling, tell
        self.cases: list[tuple[Case, ...]] = [
            held_out_cases(one.attribute, prompts=protocol.prompts, seeds=protocol.seeds)
            for one in learned
        ]
        self.results: dict[tuple[frozenset[int], int], Result] = {}
        self.made: dict[frozenset[int], Acting] = {}

    def acting(self, on: frozenset[int]) -> Acting:
        """Return adapters that are on, as one where all act alike."""
        if on not in self.made:
            some = [self.learned[i] for i in sorted(on)]
            parts = [(one.adapter, one.strength) for one in some]
            starts = [one.start_percent for one in some]
            alike = not (self.protocol.exact or any(starts))
            words = [ATTRIBUTES[one.attribute].target_text for one in some]
            self.made[on] = acting(
                [(one, 1.0) for one in ([combined(parts)] if alike else _apart(parts))],
                start_percent=0.0 if alike else starts,
                words=words if self.protocol.exact else (),
                local=self.protocol.local,
            )
        return self.made[on]

    def get(self, on: frozenset[int], asked: int) -> Result:
        if (on, asked) not in self.results:
            names = ", ".join(self.learned[i].name for i in sorted(on))
            one = self.learned[asked]
            self.tell(f"measuring {one.attribute} with {names} on")
            measurement = Measurement(
                one.attribute,
                self.cases[asked],
                strengths=(0.0, 1.0),
                words_percent=one.start_percent,
                bootstraps=_BOOTSTRAPS,
            )
            self.results[on, asked] = evaluate(
                self.base,
                self.acting(on),
                measurement,
                gallery=self.gallery,
                sampling=self.sampling,
            )
        return self.results[on, asked]

    def painter(self, on: frozenset[int]) -> Painter:
        return painter(self.base, self.acting(on), folder=self.gallery, sampling=self.sampling)


def _apart(parts: Sequence[tuple[Adapter, float]]) -> list[Adapter]:
    """Return each adapter at its strength."""
    return [combined([part]) for part in parts]


def _check(learned: Sequence[Learned]) -> None:
    if not learned:
        raise MeasureError("there is no adapter to measure", hint="name a stack that has some")
    taught = [one.attribute for one in learned]
    for attribute in taught:
        world_judge(attribute)
        if taught.count(attribute) > 1:
            raise MeasureError(
                f"{attribute} is taught by more than one adapter of the stack",
                hint="measure them one by one: spf-lora evaluate",
            )


def _order(cells: _Cells, row: tuple[int, ...]) -> Order:
    """Measure one order: element [i][n] is the i-th learned after step n, None before it came."""
    count = len(row)
    prefixes = [frozenset(row[: n + 1]) for n in range(count)]

    def matrix(measure: str) -> tuple[tuple[Figure | None, ...], ...]:
        return tuple(
            tuple(
                cells.get(prefixes[n], row[i]).figure(measure, 1.0) if n >= i else None
                for n in range(count)
            )
            for i in range(count)
        )

    return Order(
        names=tuple(cells.learned[i].name for i in row),
        response=matrix("rho"),
        pollution=matrix("P"),
        leakage=tuple(cells.get(on, row[n]).figure("BL", 1.0) for n, on in enumerate(prefixes)),
    )


def _mean(draws: Sequence[Draw], number: str) -> float:
    return float(np.mean([draw.numbers[number] for draw in draws]))


@torch.no_grad()
def _beliefs(cells: _Cells, keys: Sequence[str], asked: int) -> float:
    pictures = [pixels_of(read_picture(cells.gallery, key)) for key in keys]
    judge = world_judge(cells.learned[asked].attribute)
    return float(judge.belief(torch.stack(pictures)).mean())


def _together(cells: _Cells, final: Sequence[Result], group: tuple[int, ...]) -> Meeting:
    """Ask for several attributes in one prompt, all adapters on; the response of each."""
    paint = cells.painter(frozenset(range(len(cells.learned))))
    names = [cells.learned[i].attribute for i in group]
    starts = [cells.learned[i].start_percent for i in group]
    wanted = []
    for case in cells.cases[group[0]]:

        def asked(late: list[int], prompt: str = case.base_prompt) -> str:
            return asking_for(prompt, [name for i, name in enumerate(names) if i not in late])

        earlier = stages(starts, asked)
        within = case.base_prompt if cells.protocol.local else None
        alone = [asking_for(case.base_prompt, [name]) for name in names]
        each = tuple(zip(alone, starts, strict=True)) if cells.protocol.local else ()
        wanted += [Wanted(asked([]), seed, 1.0, earlier, within, each) for seed in case.seeds]
    paint.draw(wanted)
    responses = []
    for i in group:
        draws = final[i].at(1.0)
        before, right = _mean(draws, "score:I0"), _mean(draws, "score:truth")
        gained = _beliefs(cells, [paint.key(one) for one in wanted], i) - before
        responses.append(float(np.clip(gained / max(right - before, 1e-9), 0, 1)))
    return Meeting(tuple(cells.learned[i].name for i in group), tuple(responses))


def _cross_talk(cells: _Cells, final: Sequence[Result], seen: int, asked: int) -> float:
    """Return how much more of `seen` there is when only `asked` is asked for, all adapters on."""
    draws = final[asked].at(1.0)
    now, before = (
        _beliefs(cells, [draw.pictures[which] for draw in draws], seen) for which in ("I1", "Ic")
    )
    return now - before
