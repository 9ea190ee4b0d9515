"""A thing in a list: taking one out leaves the commas and the "and" of the others."""

from collections.abc import Sequence

from spf_lora.data.sentences.grammar import (
    ARTICLES,
    CONJUNCTIONS,
    COPULAS,
    DETERMINERS,
    FINITE,
    Next,
    holder_before,
    is_participle,
    is_plain,
    next_of,
    separator_at,
    takes_article,
    thing_end,
    tie_before,
)
from spf_lora.data.sentences.things import Edit, Edits, Spot, clause_start


def has_brother(spot: Spot, after: Next | None = None) -> bool:
    """Tell whether another thing follows in the same list, behind this one or at a place."""
    after = after or spot.next
    if after.kind == "thing":
        # "a crown, red hair, smiling" goes on with phrases of their own; a list ends in "and"
        return "and" in after.separator or (bool(after.separator) and _closes(spot.words, after))
    if after.kind != "clause" or not after.separator:
        return False
    # "with a beard and a hat is standing": the verb is the bearer's, if that has none yet.
    pronoun = thing_end(spot.words, after.start) is None
    definite = after.separator != "and" and spot.words[after.start] in ("the", "his", "her", "its")
    return not (pronoun or definite or FINITE & set(spot.words[: spot.first]))


def _closes(words: Sequence[str], item: Next) -> bool:
    """Tell whether a list that goes on with a comma has an "and" before its last thing."""
    while item.kind == "thing" and item.separator == ",":
        end = thing_end(words, item.start)
        if end is None:
            return False
        item = next_of(words, end)
    return "and" in item.separator and item.kind in ("thing", "clause")


def first_of_list(spot: Spot) -> Edits:
    """Take out the first thing of a list; the second takes its place."""
    words, start = spot.words, spot.next.start
    end = thing_end(words, start)
    if end is None:
        return None
    edits: list[Edit] = [(spot.first, start, _article(spot, start, end))]
    third = next_of(words, end)
    if spot.next.separator == "," and third.separator == ", and" and has_brother(spot, third):
        edits.append((end, end + 1, ()))  # of two things no comma stands between
    return edits


def _article(spot: Spot, start: int, end: int) -> tuple[str, ...]:
    """Return the article that "a beard and moustache" had for both."""
    words = spot.words
    bare = words[start] not in DETERMINERS and not words[start].endswith("'s")
    if words[spot.first] not in ARTICLES or not bare or not takes_article(words[start:end]):
        return ()
    return ("an" if words[start][0] in "aeiou" else "a",)


def conjunction_start(spot: Spot) -> int | None:
    """Return where the conjunction before the thing begins, with its comma."""
    for length in (1, 2, 3):
        start = spot.first - length
        if start > 0 and separator_at(spot.words, start) == ("and", spot.first):
            return start - 1 if spot.words[start - 1] == "," else start
    return None


def brother_start(words: Sequence[str], end: int) -> int | None:
    """Return where the thing begins that ends at a place, or None if none does."""
    at = end
    while at and (
        is_plain(words[at - 1]) or words[at - 1] in DETERMINERS or words[at - 1].endswith("'s")
    ):
        at -= 1
    return at if at < end and thing_end(words, at) == end else None


def tied_list(words: Sequence[str], start: int) -> bool:
    """Tell whether the thing that begins at a place is tied to somebody, alone or in a list."""
    if start and words[start - 1] == "both":
        start -= 1
    if tie_before(words, start) is not None or holder_before(words, start) is not None:
        return True
    if start and words[start - 1] == ",":
        brother = brother_start(words, start - 1)
        return brother is not None and tied_list(words, brother)
    return False


def last_of_list(spot: Spot) -> Edits:
    """Take out what stands behind "and"."""
    words = spot.words
    start = conjunction_start(spot)
    brother = None if start is None else brother_start(words, start)
    if start is None or brother is None:
        return None
    if spot.next.kind == "verb" and not spot.next.separator and not tied_list(words, brother):
        return None  # "his hair and beard are": the verb would have to change
    edits: list[Edit] = [(start, spot.last, ())]
    if words[brother] == "both":
        edits.append((brother, brother + 1, ()))
    return edits + rejoined(words, start)


def rejoined(words: Sequence[str], end: int) -> list[Edit]:
    """Return the edit that gives a list its "and" back: "a hat, a scarf and ..." lost its last."""
    comma = max((at for at in range(end) if words[at] == ","), default=0)
    if comma and is_participle(words[comma + 1]):  # "is smiling, looking at us, and ..."
        clause = words[clause_start(words, comma) : comma]
        busy = any(words[at] in COPULAS and is_participle(words[at + 1]) for at in range(comma))
        return [(comma, comma + 1, ("and",))] if busy and not CONJUNCTIONS & set(clause) else []
    last = brother_start(words, end)
    if last is None or not last or words[last - 1] != ",":
        return []
    before = brother_start(words, last - 1)
    return [(last - 1, last, ("and",))] if before is not None and tied_list(words, before) else []


def middle_of_list(spot: Spot) -> Edits:
    """Take out what stands behind a comma, in a list or as a phrase of its own."""
    words, comma, after = spot.words, spot.first - 1, spot.next
    brother = brother_start(words, comma)
    first = brother is not None and tied_list(words, brother) and words[brother - 1] != ","
    goes_on = "and" in after.separator
    if goes_on and first:  # "a hat, a beard, and glasses" has two things left, and no comma
        return [(comma, spot.last + (after.separator == ", and"), ())]
    if goes_on and after.kind == "thing" and brother is None:
        end = thing_end(words, after.start)
        return (
            None if end is None else [(spot.first, after.start, _article(spot, after.start, end))]
        )
    edits: list[Edit] = [(comma, spot.last, ())]
    if goes_on and after.kind != "thing":
        edits += rejoined(words, comma)
    return edits


def verb_of_bearer(spot: Spot) -> bool:
    """Tell whether a verb behind the thing is its bearer's: "a man with a hat and a beard is"."""
    start = conjunction_start(spot)
    if start is None:
        start = spot.first - 1 if spot.before == "," else None
    brother = None if start is None else brother_start(spot.words, start)
    if brother is None or not tied_list(spot.words, brother):
        return False
    return not FINITE & set(spot.words[: spot.first])
