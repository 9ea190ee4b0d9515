"""A target that is no thing: "a bearded man", "is smiling"."""

from collections.abc import Sequence

from spf_lora.data.sentences.clauses import behind_noun, goes_on_while, predicate, verb_before
from spf_lora.data.sentences.grammar import (
    ARTICLES,
    CONJUNCTIONS,
    DETERMINERS,
    is_adverb,
    is_participle,
    is_plain,
)
from spf_lora.data.sentences.things import Edit, Edits, Spot


def adjective(words: Sequence[str], start: int, end: int) -> Edits:
    """Take out an adjective before its noun, or return None where it stands otherwise."""
    while start and is_adverb(words[start - 1]):
        start -= 1
    following = words[end] if end < len(words) else ""
    before = words[start - 1] if start else ""
    chained = following in (",", "and") and _adjective_chain(words, end + 1)
    if chained and (not before or before in DETERMINERS or is_plain(before)):
        return _with_article(words, start, end + 1)
    if not is_plain(following) or is_adverb(following):
        return None
    if before in (",", "and") and start > 1 and is_plain(words[start - 2]):
        return [(start - 1, end, ())]
    return _with_article(words, start, end)


def _adjective_chain(words: Sequence[str], at: int) -> bool:
    """Tell whether an adjective and its noun begin at a place."""
    two = words[at : at + 2]
    return len(two) == 2 and is_plain(two[0]) and is_plain(two[1])


def _with_article(words: Sequence[str], start: int, end: int) -> Edits:
    edits: list[Edit] = [(start, end, ())]
    if start and words[start - 1] in ARTICLES and end < len(words):
        edits.append((start - 1, start, ("an" if words[end][0] in "aeiou" else "a",)))
    return edits


def state(spot: Spot) -> Edits:
    """Take out an adjective that stands behind its noun: "is bearded", "a woman smiling"."""
    words, after = spot.words, spot.next
    if spot.next.kind == "other" and not goes_on_while(spot):
        return None
    if after.kind == "preposition" and not after.separator:
        return None
    verb = verb_before(words, spot.first)
    if verb < spot.first:
        if "and" in after.separator and after.kind == "thing":
            return [(spot.first, after.start, ())]
        return predicate(spot, verb, spot.first)
    if spot.before == ",":
        return [(spot.first - 1, spot.last, ())]
    if spot.before in CONJUNCTIONS and spot.first > 1 and is_plain(words[spot.first - 2]):
        return [(spot.first - 1, spot.last, ())]
    if is_plain(spot.before) and is_participle(words[spot.first]):
        return behind_noun(spot, spot.first)
    return None
