"""Which pictures an evaluation is made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from spf_lora.draw.late import stages
from spf_lora.draw.pixels import pixels_of
from spf_lora.evaluate.draw_missing import Painter, Wanted
from spf_lora.evaluate.gallery import read_picture, write_content
from spf_lora.evaluate.judges.judge import Judge, Truth
from spf_lora.evaluate.protocol import Case, other_seed
from spf_lora.evaluate.result import Draw


@dataclass(frozen=True)
class PicturePlan:
    """The pictures of a run.

    Attributes:
        cases: prompts and seeds.
        strengths: the sweep.
        until: share of the time steps until which the base prompt is drawn.
        local: whether adapters act in the control map alone.
    """

    cases: Sequence[Case]
    strengths: Sequence[float]
    until: float = 0.0
    local: bool = False

    def wanted(self) -> list[Wanted]:
        """Return every picture, in an order that depends on the words alone."""
        wanted = []
        for case in self.cases:
            for index, seed in enumerate(case.seeds):
                for away in (0, 1, 2):  # 2: a second sample, to test the ceiling with
                    other = other_seed(case.seeds, index, away) if away else seed
                    wanted.append(Wanted(case.base_prompt, other))
                for strength in self.strengths:
                    wanted += [
                        self._asking(case, seed, strength),
                        self._silent(case, seed, strength),
                    ]
        return wanted

    def draws(self, paint: Painter, judge: Judge) -> list[Draw]:
        """Return every draw with the keys of its pictures and no numbers yet; all are drawn."""
        draws = []
        for number, case in enumerate(self.cases):
            before = [
                read_picture(paint.folder, paint.key(Wanted(case.base_prompt, seed)))
                for seed in case.seeds
            ]
            truths = judge.truths(torch.stack([pixels_of(picture) for picture in before]))
            for index, (seed, truth) in enumerate(zip(case.seeds, truths, strict=True)):
                fixed = {
                    "I0": Wanted(case.base_prompt, seed),
                    "Ic": Wanted(case.prompt, seed),
                    "Iz": Wanted(case.base_prompt, other_seed(case.seeds, index)),
                    "Iy": Wanted(case.base_prompt, other_seed(case.seeds, index, 2)),
                }
                known = _known(truth, paint)
                for strength in self.strengths:
                    own = {
                        "I1": self._asking(case, seed, strength),
                        "Ib": self._silent(case, seed, strength),
                    }
                    keys = {which: paint.key(w) for which, w in (fixed | own).items()}
                    draws.append(Draw(number, seed, strength, keys | known, {}))
        return draws

    def _asking(self, case: Case, seed: int, strength: float) -> Wanted:
        late = self.until if strength else 0.0
        before = stages([late], lambda _: case.base_prompt)
        within = case.base_prompt if self.local else None
        return Wanted(case.prompt, seed, strength, before, within)

    def _silent(self, case: Case, seed: int, strength: float) -> Wanted:
        return Wanted(case.base_prompt, seed, 0.0 if self.local else strength)


def _known(truth: Truth, paint: Painter) -> dict[str, str]:
    named = {"region": truth.region, "truth": truth.right, "plain": truth.plain}
    return {name: write_content(paint.folder, p) for name, p in named.items() if p is not None}
