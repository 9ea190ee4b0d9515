"""Which words come with the attribute: what an adapter will take for a part of it.

Lift is how much more often a word stands beside the attribute than it should: 1 is no bias, 4 says
that it is four times as frequent. What it should be is counted in captions without the attribute,
where there are any; else the kinds of one thing ("black hair", "red hair") should share it evenly.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from spf_lora.data.captions import base_prompt, split_phrases
from spf_lora.data.sentences.cut import is_sentence
from spf_lora.recipe.schema import Attribute

Against = Literal["other captions", "even spread"]

_FEW_PHRASES = 3.0  # on average; captions below are sentences, and counted word by word
_SMALL = (
    "a an and are as at by for from has he her his in into is it its of on or she the their there "
    "they this to up wears wearing who with"
)
_SMALL_WORDS = frozenset(_SMALL.split())
# Kinds of one thing that share no last word.
_ALIKE = (
    frozenset({"man", "woman", "person", "boy", "girl"}),
    frozenset(
        {
            "black",
            "brown",
            "blonde",
            "blond",
            "red",
            "grey",
            "gray",
            "white",
            "blue",
            "green",
            "yellow",
            "pink",
            "purple",
            "orange",
        }
    ),
    frozenset({"young", "old", "middle-aged", "elderly"}),
    frozenset({"smiling", "serious", "frowning", "laughing", "neutral"}),
    frozenset({"indoors", "outdoors"}),
)


@dataclass(frozen=True)
class Companion:
    """A word or phrase beside the attribute.

    Attributes:
        words: as in the captions, in small letters.
        count: captions with the attribute that hold it.
        captions: captions with the attribute.
        expected: the share that it should have, in (0, 1]; None where nothing tells.
    """

    words: str
    count: int
    captions: int
    expected: float | None

    @property
    def share(self) -> float:
        """Share of the captions with the attribute that hold it."""
        return self.count / self.captions

    @property
    def lift(self) -> float | None:
        """How many times more often than expected it is there."""
        return None if self.expected is None else self.share / self.expected


def companions(
    captions: Sequence[str], attribute: Attribute, others: Sequence[str] = ()
) -> tuple[list[Companion], Against]:
    """Count what stands beside the attribute, the strongest bias first.

    Args:
        captions: with the attribute.
        attribute: its own words are left out.
        others: captions without it, to compare with.

    Returns:
        One row for each word or phrase that is there twice or more, and what it was compared with.
    """
    without = [base_prompt(caption, attribute) for caption in captions]
    prose = 2 * sum(map(is_sentence, captions)) > len(captions)
    by_word = prose or _mean_phrases([*without, *others]) < _FEW_PHRASES
    counts, total = _counts(without, by_word), len(captions)
    expected = (
        _even(counts, total) if not others else _seen(counts, _counts(others, by_word), len(others))
    )
    rows = [
        Companion(words, count, total, expected.get(words))
        for words, count in counts.items()
        if count > 1
    ]
    against: Against = "other captions" if others else "even spread"
    return sorted(rows, key=_by_bias), against


def _by_bias(row: Companion) -> tuple[float, float, str]:
    return -(row.lift or 1.0) * row.share, -row.share, row.words


def _mean_phrases(captions: Sequence[str]) -> float:
    return sum(len(split_phrases(c)) for c in captions) / max(1, len(captions))


def _counts(captions: Sequence[str], by_word: bool) -> Counter[str]:
    """Count the captions that hold each word, or each phrase."""
    counts: Counter[str] = Counter()
    for caption in captions:
        if by_word:
            units = set(re.findall(r"[\w'-]+", caption.lower())) - _SMALL_WORDS
        else:
            units = {phrase.lower() for phrase in split_phrases(caption)}
        counts.update(units)
    return counts


def _seen(counts: Mapping[str, int], others: Mapping[str, int], total: int) -> dict[str, float]:
    # Half a caption more on either side, so that what was never seen elsewhere has a number too.
    return {words: (others.get(words, 0) + 0.5) / (total + 1) for words in counts}


def _even(counts: Mapping[str, int], captions: int) -> dict[str, float]:
    """Expect each kind of one thing as often as the others of its kind."""
    kinds: dict[object, list[str]] = defaultdict(list)
    for words in counts:
        kinds[thing(words)].append(words)
    return {
        words: sum(counts[other] for other in alike) / captions / len(alike)
        for alike in kinds.values()
        if len(alike) > 1
        for words in alike
    }


def thing(words: str) -> object:
    """Return what a phrase is a kind of: its last word, or a set of words that exclude it."""
    last = words.split()[-1]
    return next((alike for alike in _ALIKE if last in alike), last)
