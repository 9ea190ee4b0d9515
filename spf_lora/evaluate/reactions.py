"""Which words an adapter reacts to, told by predicted noise alone: no word's picture is sampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from statistics import median

import torch

from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base
from spf_lora.base.texts import encode
from spf_lora.draw.act import NOTHING, Acting, acting
from spf_lora.draw.sample import BATCH, GUIDANCE, sample_latents, start_noise

Progress = Callable[[int, int], None]

TIMES = (800, 500, 200)  # time steps: of the layout, of shapes, of details
SENTENCES = ("{subject}, {word}", "{word}, {subject}")
_STEPS = 8  # of the one picture whose noisy latents are looked at
_SEED = 77
_EVERY = 6  # of the common words: so many are enough to compare with
# A plain beard's reaction to "a beard" is 1.4 times the median word's, to "a crown" 1.0 times.
_ANSWERS = 1.1

# words of prompts that anybody might write, of what portraits and other pictures show
COMMON_WORDS = tuple(
    resources.files("spf_lora.evaluate").joinpath("common_words.txt").read_text("utf-8").split()
)


@dataclass(frozen=True)
class Reaction:
    """How much an adapter changes what is predicted for some words.

    Attributes:
        word: what was added to the subject; "" for the subject alone.
        effect: root mean square change of the predicted noise, whose own is about 1.
    """

    word: str
    effect: float


def reactions(
    base: Base,
    adapter: Adapter,
    words: Sequence[str],
    *,
    subject: str,
    sentences: Sequence[str] = SENTENCES,
    on_progress: Progress = lambda done, total: None,
) -> list[Reaction]:
    """Measure every word in every sentence, and first the subject alone.

    Args:
        base: the model it is for.
        adapter: at strength 1.
        words: each in each sentence.
        subject: what every prompt is of.
        sentences: with {subject} and {word}.
        on_progress: told (forwards done, forwards to do).
    """
    texts = [one.format(subject=subject, word=word) for word in words for one in sentences]
    still, *each = effects(
        base, adapter, [subject, *texts], subject=subject, on_progress=on_progress
    )
    count = len(sentences)
    rows = [
        Reaction(word, sum(each[count * row : count * (row + 1)]) / count)
        for row, word in enumerate(words)
    ]
    return [Reaction("", still), *rows]


@torch.no_grad()
def effects(
    base: Base,
    adapter: Adapter,
    texts: Sequence[str],
    *,
    subject: str,
    on_progress: Progress = lambda done, total: None,
) -> list[float]:
    """Return how much an adapter changes what is predicted under each text.

    The arguments are those of `reactions`; it is a root mean square over `TIMES` and places.
    """
    noisy, found = _noisy(base, subject), list[float]()
    for first in range(0, len(texts), BATCH):
        some = texts[first : first + BATCH]
        own, new = (_predicted(base, some, noisy, how) for how in (NOTHING, acting(adapter)))
        found += (new - own).square().mean(dim=(0, 2, 3, 4)).sqrt().tolist()
        on_progress(len(found), len(texts))
    return found


def _noisy(base: Base, subject: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the base's picture of the subject with noise, (1, channels, h, w), at each time."""
    picture = sample_latents(
        base, encode(base, [subject]), [_SEED], steps=_STEPS, guidance=GUIDANCE
    )
    noise = start_noise(base, [_SEED + 1])
    times = [torch.tensor([t], device=base.device) for t in TIMES]
    return [(t, base.scheduler.add_noise(picture, noise, t)) for t in times]


def _predicted(
    base: Base,
    texts: Sequence[str],
    noisy: Sequence[tuple[torch.Tensor, torch.Tensor]],
    acts: Acting,
) -> torch.Tensor:
    """Return the noise that is predicted under texts, (times, texts, channels, h, w)."""
    with acts.on(base, texts):
        states = encode(base, texts)
        rows = [
            base.unet(x.expand(len(texts), -1, -1, -1), t, states, return_dict=False)[0]
            for t, x in noisy
        ]
    return torch.stack(rows).float()


def answers_to(base: Base, adapter: Adapter, target: str, *, subject: str) -> bool:
    """Tell whether an adapter reacts to words more than to most others.

    Args:
        base: the model it is for.
        adapter: at strength 1.
        target: the words.
        subject: what prompts are of.
    """
    _, own, *others = reactions(
        base, adapter, [target, *COMMON_WORDS[::_EVERY]], subject=subject, sentences=SENTENCES[:1]
    )
    return own.effect > _ANSWERS * median(one.effect for one in others)


def best_guess(base: Base, adapter: Adapter, *, subject: str, count: int = 3) -> list[str]:
    """Return the common words that an adapter reacts to most, the most first."""
    _, *words = reactions(base, adapter, COMMON_WORDS, subject=subject, sentences=SENTENCES[:1])
    return [one.word for one in sorted(words, key=lambda one: -one.effect)[:count]]
