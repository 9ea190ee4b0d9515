"""What a thing takes with it in a sentence: its article, its adjectives, what goes on about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from spf_lora.data.sentences.grammar import (
    ABOUT_THINGS,
    CONJUNCTIONS,
    DETERMINERS,
    HOLDERS,
    PARTITIVES,
    PLACES_OF_A_BODY,
    RELATIVES,
    TIES,
    Next,
    is_adjective,
    is_adverb,
    is_plain,
    separator_at,
    thing_end,
)

_MOST_MODIFIERS = 4
_COMMENTS = frozenset(
    ["giving", "adding", "lending", "making", "creating", "enhancing", "framing", "covering"]
)


Edit = tuple[int, int, tuple[str, ...]]  # from, to, what comes there
Edits = list[Edit] | None


@dataclass(frozen=True)
class Spot:
    """Where the target stands.

    Attributes:
        words: of the sentence, in small letters, without its last full stop.
        first: where the thing begins, with its article and adjectives.
        last: behind its end, with what goes on about it.
        next: what stands there.
        plural: whether the target's word is one.
    """

    words: tuple[str, ...]
    first: int
    last: int
    next: Next
    plural: bool

    @property
    def before(self) -> str:
        """The word before the thing, or ""."""
        return self.words[self.first - 1] if self.first else ""


def thing_start(words: Sequence[str], head: int) -> int:
    """Return where the thing begins whose last word stands at a place."""
    at = head
    while at and head - at < _MOST_MODIFIERS and (is_plain(words[at - 1]) or _joins(words, at)):
        at -= 1
    while at and (words[at - 1] in DETERMINERS or words[at - 1].endswith("'s")):
        at -= 1
    if at > 1 and words[at - 1] == "of" and words[at - 2] in PARTITIVES:
        return thing_start(words, at - 2)
    return at


def _joins(words: Sequence[str], at: int) -> bool:
    """Tell whether the comma or "and" before a place joins adjectives: "a long, grey beard"."""
    if words[at - 1] not in (",", "and") or at < 3 or not is_adjective(words[at - 2]):
        return False
    start = at - 2
    while start and is_adverb(words[start - 1]):
        start -= 1
    return bool(start) and words[start - 1] in DETERMINERS | TIES | HOLDERS


def whole_end(words: Sequence[str], at: int) -> int | None:
    """Return where the thing ends with what goes on about it, or None where nobody can tell."""
    on_body = False
    while at < len(words):
        word = words[at]
        if word == "of":
            end = thing_end(words, at + 1)
        elif (end := _on_body(words, at)) is not None:
            on_body = True
        elif word in ABOUT_THINGS:
            end = _made_of(words, at)
        elif word in ("that", "which") or (word == "," and _comments(words, at + 1)):
            end = _relative_end(words, at + 1)
        elif word == "with" and not on_body:
            return None
        else:
            return at
        if end is None:
            return None
        at = end
    return at


def _on_body(words: Sequence[str], at: int) -> int | None:
    """Return the end of "on top of his head" and the like."""
    if words[at] not in ("on", "upon", "atop", "around", "over", "in", "across", "along"):
        return None
    at += 1
    for phrase in (("top", "of"), ("the", "top", "of"), ("both",)):
        if tuple(words[at : at + len(phrase)]) == phrase:
            at += len(phrase)
    end = _place(words, at)
    if end is None:
        return None
    separator, start = separator_at(words, end)
    return (_place(words, start) if separator == "and" else None) or end


def _place(words: Sequence[str], at: int) -> int | None:
    """Return the end of "his head"."""
    end = thing_end(words, at)
    return end if end is not None and words[end - 1] in PLACES_OF_A_BODY else None


def _made_of(words: Sequence[str], at: int) -> int | None:
    """Return the end of "adorned with jewels and pearls", where the sentence or clause ends."""
    if words[at + 1 : at + 2] not in (("with",), ("of",), ("in",), ("by",), ("from",)):
        return None
    end = thing_end(words, at + 2)
    if end is None:
        return None
    separator, start = separator_at(words, end)
    second = thing_end(words, start) if separator == "and" else None
    if second is not None and words[start] not in DETERMINERS:
        end = second
    closed = end == len(words) or words[end] == "," or on_body_follows(words, end)
    return end if closed else None


def on_body_follows(words: Sequence[str], at: int) -> bool:
    """Tell whether "on her head" stands at a place."""
    return at < len(words) and _on_body(words, at) is not None


def _comments(words: Sequence[str], at: int) -> bool:
    """Tell whether what follows speaks of the thing: "which is golden", "giving him a look"."""
    return at < len(words) and (words[at] == "which" or words[at] in _COMMENTS)


def _relative_end(words: Sequence[str], at: int) -> int | None:
    """Return the end of a relative clause; one that goes on with "and" may end anywhere."""
    end = at
    while end < len(words) and words[end] != ",":
        end += 1
    return None if CONJUNCTIONS & set(words[at:end]) else end


def clause_start(words: Sequence[str], at: int) -> int:
    """Return where the clause begins that stands before a place."""
    while at and words[at - 1] not in (",", *CONJUNCTIONS, *RELATIVES):
        at -= 1
    return at
