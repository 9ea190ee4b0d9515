"""The pairs that teach stage 2: their prompts, their drawing, and whether they can teach at all."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce

import torch

from spf_lora.adapters.attach import adapter_of, adapter_off
from spf_lora.adapters.format.card import attribute_of
from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base
from spf_lora.base.texts import token_ids
from spf_lora.data.cache import TensorCache
from spf_lora.data.captions import full_prompt, has_target
from spf_lora.data.completion import NONE, load_vocabulary, varied
from spf_lora.draw.trajectories import (
    CHUNK,
    Drawing,
    Given,
    Pair,
    Trajectories,
    draw_trajectories,
)
from spf_lora.errors import TeacherError
from spf_lora.method.control_map import AREA_CAP
from spf_lora.recipe.schema import Attribute, Recipe
from spf_lora.registry.onto import Below
from spf_lora.training.distil import Curriculum, Lesson, Shares
from spf_lora.training.encoders import Encoders
from spf_lora.training.precision import awake
from spf_lora.training.processes import Processes
from spf_lora.training.sight import LEAST_AUC, Sight
from spf_lora.training.trainer import Tell

_FIRST_SEED = 500_000  # no evaluation and no preview draws from these
HELD = 256  # prompts without the target, under which nothing may change
_LEAST_CHANGE = 0.1  # of the latents' standard deviation, inside the control map
_COVERED = 0.9  # of the largest map there can be
_LEAST_SHOWN = 0.125  # of the pairs
_ENOUGH_SHOWN = 0.75  # of the pairs; below, those that do not are drawn again
STRONGER = (1.5, 2.0)  # strengths of the teacher that draws them again
DRAWING, CHOOSING = "draw pairs to learn from", "choose pairs that show it"


def first_seed(seed: int) -> int:
    """Return the seed of the first pair's noise in a training with a seed."""
    return _FIRST_SEED + 1000 * seed


def most_redrawn(pairs: int) -> int:
    """Return how many pairs are drawn again at most: the least that may show it already do."""
    return len(STRONGER) * int((1 - _LEAST_SHOWN) * pairs)


def taught(under: Below) -> list[Attribute]:
    """Return the attributes of the adapters that are on; those without a card say none."""
    cards = [known.card for known, _ in under.members if known.card]
    return [attribute_of(card) for card in cards if card.target_text]


def protected_prompts(
    prompts: Sequence[str], attribute: Attribute, under: Below
) -> list[tuple[str, str]]:
    """Return the prompts that the base draws itself, without and with the target.

    With nothing below they are the base prompts. With adapters below, each in turn is asked for
    too, so that the new adapter learns to leave alone what they draw, and to come to it when both
    are asked for; every so many prompts ask for none of them.
    """
    others = taught(under)
    pairs = []
    for index, prompt in enumerate(prompts):
        turn = index % (len(others) + 1)
        asked = full_prompt(prompt, others[turn - 1]) if turn else prompt
        if has_target(asked, attribute):  # what the other is called means the target too
            asked = prompt
        pairs.append((asked, full_prompt(asked, attribute)))
    return pairs


def teaching_prompts(
    recipe: Recipe, prompts: Sequence[str], under: Below, count: int
) -> list[tuple[str, str]]:
    """Return prompts without and with the target.

    They are the captions' base prompts in turn; with a vocabulary each keeps its subject and names
    anything that pictures may show. Training captions are biased: an adapter that was only ever
    taught on what they name moves on what they do not.

    Args:
        recipe: what decides them.
        prompts: the captions' base prompts.
        under: what is on; see `protected_prompts`.
        count: how many; the first of more are those of fewer.
    """
    wanted = [prompts[i % len(prompts)] for i in range(count)]
    if recipe.distil.vocabulary != NONE:
        vocabulary = load_vocabulary(recipe.distil.vocabulary, prompts)
        rng = random.Random(recipe.training.seed)
        wanted = [varied(prompt, recipe.attribute, vocabulary, rng) for prompt in wanted]
    return protected_prompts(wanted, recipe.attribute, under)


@dataclass
class Teaching:
    """Draws the pairs when stage 2 begins, and a step's samples from them.

    Attributes:
        base: the frozen model with the adapter on, as peft put it there.
        prompts: of the pairs, without and with the target; of a teacher without words twice the
            same.
        held: prompts without it, under which nothing may change.
        how: they are drawn.
        cache: keeps the pairs.
        alpha: of the adapter.
        shares: see `Curriculum`.
        below: digest of the adapters that are on.
        seed: decides noise and order.
        as_ids: whether lessons hold token ids, for a text encoder that is trained too.
        teacher: draws the pairs, or is the pictures that somebody has; without one, the adapter
            that the stage before left draws them.
        sight: chooses pairs that show the target; without one all are learned from.
        asked: what the student is asked for each; the prompts with the target by default.
        slider: whether it is taught to take the target away at strength -1, too.
        processes: this one and its siblings, each of which draws its share of the pairs.
    """

    base: Base
    prompts: Sequence[tuple[str, str]]
    held: Sequence[str]
    how: Drawing
    cache: TensorCache
    alpha: float
    shares: Shares
    below: str
    seed: int
    as_ids: bool = False
    teacher: Adapter | Given | None = None
    sight: Sight | None = None
    asked: Sequence[str] = ()
    slider: bool = False
    processes: Processes = field(default_factory=Processes)
    curriculum: Curriculum | None = field(default=None, init=False)

    def begin(self, learned: Mapping[str, torch.Tensor], tell: Tell) -> list[str]:
        """Draw the pairs with the teacher; return what a user should be told of them.

        Args:
            learned: parameters of the adapter that the stage before left.
            tell: called with how far the drawing is.

        Raises:
            TeacherError: the pairs can teach nothing.
            OutputError: the disk cannot keep them.
        """
        base = self.base
        off = adapter_off(base.unet, base.text_encoder)
        with awake(base.text_encoder, device=base.device), off:
            teacher = self.teacher or adapter_of(learned, self.alpha)
            given = isinstance(teacher, Given)  # whose pictures were looked at when they were read
            if not given:
                first = self.drawn(teacher, tell, range(CHUNK))  # of nothing: refused soon
                refuse_alike(first.changes().max() * 2)
            drawn = self.drawn(teacher, tell)
            if not given:
                check_pairs(drawn, everywhere=self.how.late is not None)
            chosen, rows, remarks = self._chosen(teacher, drawn, tell)
            full = [full for _, full in self.prompts]
            self.curriculum = Curriculum(
                chosen,
                self._read(self.asked or full)[rows],
                self._read(self.held),
                self._read([""])[0],
                self.shares,
                base.scheduler.alphas_cumprod.cpu(),
                self.seed,
                base.device,
                self._read(full)[rows] if self.slider else None,
            )
        return remarks

    def _chosen(
        self, teacher: Adapter | Given, drawn: Trajectories, tell: Tell
    ) -> tuple[Trajectories, list[int], list[str]]:
        """Return the pairs to learn from, the numbers of their prompts, and what to tell.

        A pair that does not show the target is left out. Where that leaves too few, they are drawn
        again with a stronger teacher; each pair is the least change that a CLIP sees.

        Raises:
            TeacherError: hardly any pair shows the target.
            OutputError: the disk cannot keep what is drawn again.
        """
        every = list(range(len(drawn.pairs)))
        if self.sight is None:
            return drawn, every, []
        left, shown, limit = every, dict[int, Trajectories](), None
        for stronger in (*STRONGER, None):
            tell(CHOOSING, 0, len(left))
            own, local = drawn.pictures(range(len(left)))
            prompts = [self.prompts[row] for row in left]
            with awake(self.base.vae, device=self.base.device):
                limit, seen = self.sight.look(self.base, own, local, prompts, limit)
            if limit.auc < LEAST_AUC:
                doubt = (
                    f"all {len(every)} pairs are learned from: CLIP tells pictures with the target "
                    f"from the base's own in {limit.auc:.0%} of cases, too few to choose by it"
                )
                return drawn, every, [doubt]
            shown |= {left[i]: drawn.among([i]) for i in range(len(left)) if seen[i]}
            left = [row for row in left if row not in shown]
            count = f"{len(shown)} of {len(every)}"
            if len(shown) < _LEAST_SHOWN * len(every):
                raise TeacherError(
                    f"what was learned shows the target in {count} pictures, so there is nothing "
                    "to distil",
                    hint="raise learn.steps, or look at the pictures and captions with data check",
                )
            enough = len(shown) >= _ENOUGH_SHOWN * len(every)
            if enough or stronger is None or isinstance(teacher, Given):
                break
            drawn = self.drawn(teacher, tell, left, stronger)
        rows = sorted(shown)
        chosen = reduce(Trajectories.with_, (shown[row] for row in rows))
        return chosen, rows, [f"{count} pairs show the target and are learned from"]

    def drawn(
        self,
        teacher: Adapter | Given,
        tell: Tell,
        rows: Sequence[int] | None = None,
        strength: float = 1.0,
    ) -> Trajectories:
        """Draw pairs, or find them in the cache; the adapter of the student is off.

        Args:
            teacher: see above.
            tell: called with how far the drawing is.
            rows: numbers of their prompts; all by default.
            strength: of the teacher.

        Raises:
            OutputError: the disk cannot keep them.
        """
        every = range(len(self.prompts))
        rows = every if rows is None else [row for row in rows if row in every]
        pairs = [Pair(*self.prompts[row], first_seed(self.seed) + row) for row in rows]
        what, total = DRAWING, len(every)
        if strength != 1:
            what, total = f"draw pairs again at strength {strength:g}", len(pairs)
        tell(what, 0, total)
        draw = partial(
            draw_trajectories,
            self.base,
            teacher,
            how=replace(self.how, strength=strength),
            cache=self.cache,
            below=self.below,
        )
        count = self.processes.count
        if count == 1:
            return draw(pairs, on_progress=lambda done, _: tell(what, done, total))
        # a chunk is one entry of the cache, whoever has drawn it
        for first in range(self.processes.rank * CHUNK, len(pairs), count * CHUNK):
            draw(pairs[first : first + CHUNK])
            tell(what, min(first + count * CHUNK, len(pairs)), total)  # the others draw as fast
        self.processes.wait()
        return draw(pairs)

    def _read(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return text states, or token ids where they are wanted."""
        if self.as_ids:
            return token_ids(self.base.tokenizer, prompts)
        words = Encoders(self.base, self.cache)
        return torch.stack([words.states(prompt) for prompt in prompts]).cpu()

    def batch(self, index: int, size: int) -> Lesson:
        """Return the samples of step `index`."""
        assert self.curriculum is not None, "the stage has not begun"
        return self.curriculum.batch(index, size)


def refuse_alike(change: torch.Tensor) -> None:
    """Refuse to teach from pictures that hardly differ.

    Args:
        change: how far pairs are apart, see `Trajectories.changes`.

    Raises:
        TeacherError: it is next to nothing.
    """
    if change < _LEAST_CHANGE:
        raise TeacherError(
            "what was learned hardly changes the base's pictures, so there is nothing to distil",
            hint="either the attribute was not learned yet (raise learn.steps, look at the "
            "captions), or the base draws it in every picture already",
        )


def area_of(drawn: Trajectories) -> float:
    """Return the median share of the picture that pairs differ in."""
    return torch.tensor([float(one.mean()) for one in drawn.maps]).median().item()


def covers(drawn: Trajectories) -> bool:
    """Tell whether most pairs differ in the whole picture: a style or a light, or somebody else."""
    return area_of(drawn) > _COVERED * AREA_CAP


def check_pairs(drawn: Trajectories, *, everywhere: bool) -> None:
    """Refuse pairs that teach nothing.

    Raises:
        TeacherError: most pairs are alike, or differ in the whole picture.
    """
    refuse_alike(drawn.changes().median())
    if not everywhere and covers(drawn):
        raise TeacherError(
            f"what was learned changes the whole picture ({area_of(drawn):.0%} of it), so it has "
            "no place that could be kept to",
            hint='if that is meant, as for a style or a light, set attribute.scope = "global"; '
            "else lower learn.steps, or complete the captions (data.vocabulary)",
        )
