"""What merging does to meaning: each part alone, and the merged adapter asked for that part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base
from spf_lora.draw.act import acting
from spf_lora.draw.sample import Sampling
from spf_lora.evaluate.incremental_result import DIRTIER, KEPT
from spf_lora.evaluate.judges.world import world_judge
from spf_lora.evaluate.protocol import held_out_cases
from spf_lora.evaluate.result import Figure
from spf_lora.evaluate.run import Measurement, evaluate

PROMPTS, SEEDS, STEPS = 8, 1, 15
_BOOTSTRAPS = 500


@dataclass(frozen=True, eq=False)
class Part:
    """One adapter of a merge.

    Attributes:
        name: what tables call it.
        attribute: what it teaches, an attribute of the portrait world.
        adapter: what it adds, its weight in the merge included.
    """

    name: str
    attribute: str
    adapter: Adapter


@dataclass(frozen=True)
class Kept:
    """One part before and after.

    Attributes:
        name: of the part.
        attribute: what was asked for, alone.
        response: rho of the part alone and of the merged adapter.
        pollution: P of the same.
        leakage: BL of the same: what moves where nothing is asked for.
    """

    name: str
    attribute: str
    response: tuple[Figure, Figure]
    pollution: tuple[Figure, Figure]
    leakage: tuple[Figure, Figure]

    @property
    def passed(self) -> bool:
        """Whether the response is kept and the pollution has not grown; see `CLAIM`."""
        (rho, rho_after), (dirt, dirt_after) = self.response, self.pollution
        return (rho_after.value or 0.0) >= KEPT * (rho.value or 0.0) and (
            dirt_after.value or 0.0
        ) <= DIRTIER * (dirt.value or 0.0) + _NOISE


# of P: below this a difference is the order in which numbers were added up
_NOISE = 1e-3
CLAIM = (
    f"each response is at least {KEPT:g} of what the part has alone, each pollution at most "
    f"{DIRTIER:g} times"
)


def measure_kept(
    base: Base,
    parts: Sequence[Part],
    merged: Adapter,
    *,
    gallery: Path,
    prompts: int = PROMPTS,
    seeds: int = SEEDS,
    steps: int = STEPS,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Kept]:
    """Compare parts with what they were merged into: same people, same noise, one by one asked for.

    Args:
        base: the model they were trained on.
        parts: what went in.
        merged: what came out.
        gallery: folder of the picture cache.
        prompts: people.
        seeds: pictures of each.
        steps: DDIM steps.
        tell: told what is measured next.

    Raises:
        MeasureError: an attribute cannot be judged.
    """
    for part in parts:
        world_judge(part.attribute)
    rows = []
    for part in parts:
        tell(f"drawing {part.attribute} with {part.name} alone, and with all of them")
        measurement = Measurement(
            part.attribute,
            held_out_cases(part.attribute, prompts=prompts, seeds=seeds),
            strengths=(0.0, 1.0),
            bootstraps=_BOOTSTRAPS,
        )
        before, after = (
            evaluate(
                base,
                acting(adapter),
                measurement,
                gallery=gallery,
                sampling=Sampling(steps=steps),
            )
            for adapter in (part.adapter, merged)
        )
        numbers = {
            measure: (before.figure(measure, 1.0), after.figure(measure, 1.0))
            for measure in ("rho", "P", "BL")
        }
        rows.append(Kept(part.name, part.attribute, numbers["rho"], numbers["P"], numbers["BL"]))
    return rows
