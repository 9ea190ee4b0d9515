"""What an adapter does besides its target: what it moves, what it reacts to, where, and when."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch
from PIL import Image

from spf_lora.adapters.module import Adapter, Module
from spf_lora.adapters.overlap import Overlap, overlap
from spf_lora.adapters.sd15 import block
from spf_lora.base.clip import ClipModel
from spf_lora.base.load import Base
from spf_lora.data.captions import asking_prompt
from spf_lora.data.completion import Vocabulary, varied
from spf_lora.data.worlds import world_of
from spf_lora.draw.act import acting, draw
from spf_lora.draw.pixels import pixels_of
from spf_lora.draw.prompts import asking
from spf_lora.draw.sample import Sampling
from spf_lora.evaluate.judges.judge import Judge
from spf_lora.evaluate.protocol import held_out_cases
from spf_lora.evaluate.reactions import COMMON_WORDS, Reaction, effects, reactions
from spf_lora.evaluate.result import Result
from spf_lora.evaluate.run import Measurement, evaluate
from spf_lora.recipe.schema import Attribute
from spf_lora.training.sight import Asked

PROMPTS = 16
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
STARTS = (0.1, 0.2, 0.3, 0.4)
_SHOWN = 0.8  # response from which on the target shows
_AS_WELL = 0.9  # share of the pictures with it that must still have it where adapters begin late
_STRONGEST = 20  # words of each adapter that are compared
_FIRST_SEED = 900_000
_STEPS = 15

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Move:
    """A phrase of the vocabulary that pictures come to show.

    Attributes:
        group: what it is a kind of, as "clothes".
        phrase: as "a hoodie".
        before: how surely it is seen in the base's pictures, mean probability among its group.
        after: the same where the adapter is asked for its target.
    """

    group: str
    phrase: str
    before: float
    after: float


@dataclass(frozen=True)
class Measured:
    """What needs a judge who sees the target.

    Attributes:
        result: response and pollution over strength.
        strength: the least at which the target shows, or None.
        start_percent: the largest share of the time steps that may go without it, 0 for none.
    """

    result: Result
    strength: float | None
    start_percent: float


@dataclass(frozen=True)
class Audit:
    """What one adapter does.

    Attributes:
        name: of its file.
        target: the words that ask for it; "" where nobody says them.
        moves: phrases that pictures come to show, the largest gain first; none without a CLIP.
        changed: group of phrases -> share of pictures in which another one of it is seen.
        still: effect on the subject alone.
        words: common words, the largest effect first.
        blocks: block of the U-Net -> share of the effect on the prompt that asks.
        measured: what a judge sees, or None.
    """

    name: str
    target: str
    moves: tuple[Move, ...]
    changed: Mapping[str, float]
    still: float
    words: tuple[Reaction, ...]
    blocks: Mapping[str, float]
    measured: Measured | None = None


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of every adapter of an audit.

    Attributes:
        base: the model they are for.
        subject: what prompts are of.
        vocabulary: varies prompts, and says what pictures may show.
        clip: sees it, or None.
        prompts: how many.
        steps: of the sampler.
    """

    base: Base
    subject: str
    vocabulary: Vocabulary
    clip: ClipModel | None
    prompts: int = PROMPTS
    steps: int = _STEPS


def audit(
    question: Question,
    name: str,
    adapter: Adapter,
    attribute: Attribute,
    *,
    wordless: bool = False,
    tell: Tell = lambda what, done, total: None,
) -> Audit:
    """Look at one adapter; see `measure` for what needs a judge.

    Args:
        question: what is asked.
        name: what tables call it.
        adapter: at strength 1.
        attribute: what it should add.
        wordless: whether no words are known that ask for it.
        tell: called with how far each part is.
    """
    base, subject = question.base, question.subject
    tell("words", 0, 0)
    still, *words = reactions(
        base,
        adapter,
        COMMON_WORDS,
        subject=subject,
        on_progress=lambda done, total: tell("words", done, total),
    )
    tell("blocks", 0, 0)
    asked = asking_prompt(subject, attribute)
    seen = question.clip is not None
    moves, changed = _moves(question, adapter, attribute, tell) if seen else ([], {})
    return Audit(
        name,
        "" if wordless else attribute.target_text,
        tuple(moves),
        changed,
        still.effect,
        tuple(sorted(words, key=lambda one: -one.effect)),
        _blocks(base, adapter, asked, subject),
    )


def _blocks(base: Base, adapter: Adapter, asked: str, subject: str) -> dict[str, float]:
    """Return block -> share of the squared change of the predicted noise, the largest first."""
    parts: dict[str, dict[str, Module]] = {}
    for name, module in adapter.modules.items():
        place = "text_encoder" if name.startswith("text_encoder.") else block(name)
        parts.setdefault(place, {})[name] = module
    squares = {
        place: effects(base, replace(adapter, modules=modules), [asked], subject=subject)[0] ** 2
        for place, modules in parts.items()
    }
    total = sum(squares.values()) or 1.0
    return dict(sorted(((p, s / total) for p, s in squares.items()), key=lambda one: -one[1]))


def _moves(
    question: Question, adapter: Adapter, attribute: Attribute, tell: Tell
) -> tuple[list[Move], dict[str, float]]:
    """Draw prompts without and with the adapter; return what comes, and how often groups change."""
    base, rng = question.base, random.Random(_FIRST_SEED)
    prompts = [
        varied(question.subject, attribute, question.vocabulary, rng)
        for _ in range(question.prompts)
    ]
    seeds = [_FIRST_SEED + index for index in range(len(prompts))]
    asked = [asking_prompt(prompt, attribute) for prompt in prompts]
    total = 2 * len(prompts)
    tell("pictures", 0, total)
    own = draw(
        base, prompts, seeds, steps=question.steps, on_batch=lambda n: tell("pictures", n, total)
    )
    new = draw(
        base,
        asked,
        seeds,
        acting(adapter),
        steps=question.steps,
        on_batch=lambda n: tell("pictures", len(prompts) + n, total),
    )
    before, after = (_seen(question, pictures) for pictures in (own, new))
    moves, changed = list[Move](), dict[str, float]()
    for number, (name, group) in enumerate(
        zip(question.vocabulary.names, question.vocabulary.groups, strict=True)
    ):
        one, other = before[number], after[number]  # (pictures, phrases)
        changed[name] = float((one.argmax(1) != other.argmax(1)).float().mean())
        gains = zip(group, one.mean(0).tolist(), other.mean(0).tolist(), strict=True)
        moves += [Move(name, phrase, was, now) for phrase, was, now in gains]
    moves.sort(key=lambda one: one.before - one.after)
    return moves, dict(sorted(changed.items(), key=lambda one: -one[1]))


@torch.no_grad()
def _seen(question: Question, pictures: Sequence[Image.Image]) -> list[torch.Tensor]:
    """Return for each group how surely each of its phrases is seen, (pictures, phrases)."""
    assert question.clip is not None
    asked, device = Asked(question.clip, None), question.base.device
    embedded = torch.cat([asked.picture(one, device) for one in pictures])
    return [rows.cpu() for rows in asked.certainties(embedded, question.vocabulary)]


def measure(
    base: Base,
    name: str,
    adapter: Adapter,
    attribute: Attribute,
    judge: Judge,
    *,
    gallery: Path,
    prompts: int = PROMPTS,
    steps: int = _STEPS,
    tell: Tell = lambda what, done, total: None,
) -> Measured:
    """Measure response and pollution over strength, and how late the adapter may begin.

    Args:
        base: the model it is for.
        name: what tables call it.
        adapter: at strength 1.
        attribute: of the world that the base draws.
        judge: sees it.
        gallery: folder of the picture cache.
        prompts: of held-out people, one picture each.
        steps: of the sampler.
        tell: called with how far it is.
    """
    world = world_of(base)
    cases = held_out_cases(attribute.name, prompts=prompts, seeds=1, world=world)
    result = evaluate(
        base,
        acting(adapter),
        Measurement(attribute, cases, strengths=STRENGTHS, judge=judge),
        gallery=gallery,
        name=name,
        sampling=Sampling(steps=steps),
        on_progress=lambda done, total: tell("response", done, total),
    )
    rising = [(s, result.figure("rho", s).value) for s in STRENGTHS if s]
    strength = next((s for s, value in rising if value is not None and value >= _SHOWN), None)
    texts, seeds = [case.prompt for case in cases], [case.seeds[0] for case in cases]

    def shown(start: float) -> float:
        rows = [asking(text, [attribute], [start]) for text in texts]
        drawn = draw(base, rows, seeds, acting(adapter, start_percent=start), steps=steps)
        with torch.no_grad():
            beliefs = judge.belief(torch.stack([pixels_of(one) for one in drawn]))
        return float((beliefs > 0.5).float().mean())

    at_once = mean(one.numbers["shown"] for one in result.at(1.0))
    latest = 0.0
    for index, start in enumerate(STARTS):
        tell("starts", index, len(STARTS))
        if not at_once or shown(start) < _AS_WELL * at_once:
            break
        latest = start
    return Measured(result, strength, latest)


@dataclass(frozen=True)
class Meeting:
    """How two adapters meet.

    Attributes:
        first: name of the one.
        second: of the other.
        overlap: in the weights.
        words: that both react to more than to the subject alone, of each one's strongest.
    """

    first: str
    second: str
    overlap: Overlap
    words: tuple[str, ...]


def meetings(audits: Sequence[Audit], adapters: Sequence[Adapter]) -> list[Meeting]:
    """Return how each two adapters meet."""
    pairs = itertools.combinations(zip(audits, adapters, strict=True), 2)
    return [
        Meeting(
            one.name,
            other.name,
            overlap(adapter, another),
            tuple(word for word in _strongest(one) if word in _strongest(other)),
        )
        for (one, adapter), (other, another) in pairs
    ]


def _strongest(audit: Audit) -> list[str]:
    return [one.word for one in audit.words[:_STRONGEST] if one.effect > audit.still]
