"""Which case of the grammar a target is: each returns the edits that take it out, or None."""

from collections.abc import Sequence

from spf_lora.data.sentences.adjectives import adjective, state
from spf_lora.data.sentences.clauses import drop_clause, goes_on_while, predicate, subject, tied
from spf_lora.data.sentences.grammar import (
    CONJUNCTIONS,
    COPULAS,
    PLURALS,
    holder_before,
    is_participle,
    next_of,
    tie_before,
)
from spf_lora.data.sentences.lists import (
    conjunction_start,
    first_of_list,
    has_brother,
    last_of_list,
    middle_of_list,
    verb_of_bearer,
)
from spf_lora.data.sentences.things import Edits, Spot, thing_start, whole_end

_LOOKS = (("at", "the", "camera"), ("at", "the", "viewer"), ("for", "the", "camera"))


def cut_clause(words: Sequence[str], start: int, end: int, noun: bool) -> list[str] | None:
    """Return the words without the target at [start, end), or None where no case is sure.

    Args:
        words: of one sentence, without its last full stop.
        start: where the target's word stands.
        end: behind it.
        noun: whether it is a thing's name, and not an adjective such as "bearded".
    """
    lower = tuple(word.lower() for word in words)
    edits = adjective(lower, start, end) if not noun else None
    if edits is None:
        for look in _LOOKS if is_participle(lower[start]) else ():
            end += len(look) if lower[end : end + len(look)] == look else 0
        first = thing_start(lower, start) if noun else start
        last = whole_end(lower, end)
        if last is None:
            return None
        spot = Spot(lower, first, last, next_of(lower, last), lower[end - 1] in PLURALS)
        edits = _thing(spot) if noun else state(spot)
    if edits is None:
        return None
    kept = list(words)
    for begin, stop, new in sorted(edits, reverse=True):
        kept[begin:stop] = new
    return kept


def _thing(spot: Spot) -> Edits:
    """Take out a thing: as a subject, from a list, with what ties it, or as a phrase alone."""
    lost = spot.next.kind == "other" and spot.next.separator != ","
    if lost and not goes_on_while(spot):
        return None
    tie, holder = tie_before(spot.words, spot.first), holder_before(spot.words, spot.first)
    if tie is not None or holder is not None:
        if has_brother(spot):
            return first_of_list(spot)
        return tied(spot, tie) if tie is not None else predicate(spot, holder or 0, None)
    if spot.next.kind == "verb" and not spot.next.separator and not verb_of_bearer(spot):
        return subject(spot) if spot.before in ("", ",", *CONJUNCTIONS) else None
    if spot.before in CONJUNCTIONS or conjunction_start(spot) is not None:
        return last_of_list(spot)
    if spot.before == ",":
        return middle_of_list(spot)
    if not spot.before:
        alone = spot.next.separator == "," and spot.next.kind in ("thing", "preposition", "clause")
        return [(0, spot.next.start, ())] if alone else None
    if spot.before in COPULAS and spot.first > 1 and spot.words[spot.first - 2] == "there":
        if has_brother(spot):
            return first_of_list(spot)
        return drop_clause(spot, spot.first - 2) if spot.next.kind in ("end", "clause") else None
    return None
