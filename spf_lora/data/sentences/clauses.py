"""What somebody has, as a clause says it: "who is wearing a crown", "with a beard"."""

from collections.abc import Sequence

from spf_lora.data.sentences.grammar import (
    CONJUNCTIONS,
    COPULAS,
    FINITE,
    PREPOSITIONS,
    PRONOUNS,
    RELATIVES,
    is_adjective,
    is_adverb,
    is_participle,
    next_of,
    thing_end,
)
from spf_lora.data.sentences.lists import conjunction_start, rejoined
from spf_lora.data.sentences.things import Edit, Edits, Spot, clause_start

_SCENE = frozenset(
    ["in", "on", "at", "against", "outside", "near", "inside", "by", "beside", "behind", "under"]
)
_SHOWN = frozenset(["seen", "shown", "depicted", "pictured", "portrayed"])
_SEEMS = frozenset(["appears", "seems", "appear", "seem", "to", "be", "been"])
_PERSONS = frozenset({"he", "she", "they"})
_OWNERS = frozenset({"his", "her", "their"})
_MANY = frozenset(
    [
        "are",
        "were",
        "have",
        "look",
        "appear",
        "seem",
        "match",
        "complement",
        "add",
        "give",
        "make",
        "cover",
    ]
)


def subject(spot: Spot) -> Edits:
    """Take out a clause about the target itself: "and his beard is long"."""
    words = spot.words
    begin = conjunction_start(spot)
    if begin is None:
        begin = spot.first - 1 if spot.before == "," else spot.first
    if begin < spot.first:
        clause = words[clause_start(words, begin) : begin]
        if not FINITE & set(clause):
            return None
        if words[spot.next.start] in _MANY and not spot.plural:
            return None
    if {"while", "but", "as", "because"} & set(words[spot.next.start :]):
        return None
    end, start = _next_clause(words, spot.next.start)
    if begin:
        return [(begin, end, ())]
    return _taken_over(words, start, owner_at(words, 0))


def _taken_over(words: Sequence[str], start: int, subject: tuple[str, ...]) -> list[Edit]:
    """Let what follows begin the sentence, with its subject: "the man has a beard, and he is"."""
    word = words[start] if start < len(words) and subject else ""
    if word in _PERSONS:
        return [(0, start + 1, subject)]
    if word in _OWNERS:
        return [(0, start + 1, (*subject[:-1], f"{subject[-1]}'s"))]
    return [(0, start, ())]


def subject_at(words: Sequence[str], at: int) -> tuple[str, ...]:
    """Return who does what is said from a place on, or nothing where that is a pronoun."""
    end = at
    while end < len(words) and words[end] not in FINITE:
        end += 1
    subject = words[at:end]
    strange = (
        not subject or subject[0] in PRONOUNS or {",", *RELATIVES, *CONJUNCTIONS} & set(subject)
    )
    return () if strange or thing_end(words, at) is None else tuple(subject)


def owner_at(words: Sequence[str], at: int) -> tuple[str, ...]:
    """Return whose the thing at a place is, as in "the man's beard", or nothing."""
    for place in range(at, min(at + 4, len(words))):
        if words[place].endswith("'s"):
            return (*words[at:place], words[place].removesuffix("'s"))
    return ()


def _next_clause(words: Sequence[str], at: int) -> tuple[int, int]:
    """Return where a clause ends, and where the next one begins behind its separator."""
    for place in range(at, len(words)):
        follower = next_of(words, place)
        if "and" in follower.separator and follower.kind == "clause":
            return place, follower.start
    return len(words), len(words)


def drop_clause(spot: Spot, subject: int) -> Edits:
    """Take out a clause from its subject on."""
    words, after = spot.words, spot.next
    if subject == 0:
        if after.kind == "end":
            return [(0, len(words), ())]
        return _taken_over(words, after.start, subject_at(words, 0))
    if not FINITE & set(words[:subject]):
        # "in this picture, he has a beard": the rest would be no sentence
        return [(0, len(words), ())] if words[0] in PREPOSITIONS and after.kind == "end" else None
    begin = subject - 1
    if words[begin] in CONJUNCTIONS and words[begin - 1] == ",":
        begin -= 1
    return [(begin, spot.last, ())] if words[begin] in (",", *CONJUNCTIONS) else None


def goes_on_while(spot: Spot) -> bool:
    """Tell whether "while holding" follows."""
    start = spot.next.start
    following = spot.words[start : start + 2]
    return len(following) == 2 and following[0] == "while" and is_participle(following[1])


def predicate(spot: Spot, verb: int, content: int | None) -> Edits:
    """Take out what somebody is said to have.

    Args:
        spot: the target.
        verb: where the verb begins, as in "is wearing" or "has".
        content: where the part begins that another participle may take the place of: "wearing" in
            "is wearing"; None for a verb that stands alone.
    """
    words, after = spot.words, spot.next
    kind = "participle" if goes_on_while(spot) else after.kind
    start = after.start + goes_on_while(spot)
    before = words[verb - 1] if verb else ""
    joined = "and" in after.separator
    if before in RELATIVES:
        return _relative(spot, verb, content, kind)
    if before in CONJUNCTIONS:
        return _second_verb(spot, verb, kind)
    subject = clause_start(words, verb)
    if subject == verb:
        return None
    if kind == "end" or (after.separator and kind == "clause"):
        return drop_clause(spot, subject)
    if joined and kind == "verb":
        return [(verb, after.start, ())]
    if content is not None and kind == "participle":
        return [(content, start, ())]
    scene = kind == "preposition" and words[after.start] in _SCENE and not after.separator
    return [(content, spot.last, ())] if content is not None and scene else None


def _relative(spot: Spot, verb: int, content: int | None, kind: str) -> Edits:
    """Take out "who is wearing a crown"."""
    words, after = spot.words, spot.next
    begin = verb - 1
    comma = begin > 0 and words[begin - 1] == ","
    if "and" in after.separator:
        if kind == "verb":
            return [(verb, after.start, ())]
        if kind == "participle" and content is not None:
            return [(content, after.start, ())]
        return None
    if comma and after.separator == "," and kind == "verb":
        return [(begin - 1, spot.last + 1, ())]
    return [(begin - comma, spot.last, ())]


def _second_verb(spot: Spot, verb: int, kind: str) -> Edits:
    """Take out "and is wearing a crown", the second thing that somebody does."""
    words = spot.words
    begin = verb - 1
    begin -= words[begin - 1] == ","
    with_scene = kind == "preposition" and words[spot.next.start] in _SCENE
    if not spot.next.separator and kind not in ("end", "relative") and not with_scene:
        return None
    return [(begin, spot.last, ()), *rejoined(words, begin)]


def tied(spot: Spot, tie: int) -> Edits:
    """Take out the target, alone in its phrase, with the words that tie it to its bearer."""
    words, after = spot.words, spot.next
    verb = verb_before(words, tie)
    if tie and words[tie - 1].endswith("ed") and not is_adjective(words[tie - 1]):
        return None  # "crowned with": what it means is gone with the target
    if verb < tie:
        content = tie if words[tie] != "with" or words[tie - 1] in _SHOWN else None
        return predicate(spot, verb, content)
    if tie == 0:
        whole = "," in after.separator or (after.separator == "and" and after.kind == "participle")
        return [(0, after.start, ())] if whole else None
    if words[tie - 1] in CONJUNCTIONS:
        return _second_verb(spot, tie, after.kind)
    if words[tie - 1] == ",":
        return _after_comma(spot, tie)
    return behind_noun(spot, tie)


def verb_before(words: Sequence[str], tie: int) -> int:
    """Return where the verb begins that a participle belongs to: "appears to be wearing"."""
    at = tie
    while at and (words[at - 1] in COPULAS | _SHOWN | _SEEMS or is_adverb(words[at - 1])):
        at -= 1
    return at if (COPULAS | _SEEMS) & set(words[at:tie]) else tie


def _after_comma(spot: Spot, tie: int) -> Edits:
    words, after = spot.words, spot.next
    comma = tie - 1
    if after.kind == "participle":
        if after.separator == "and":
            return [(tie, after.start, ())]
        if after.separator == ", and":
            return [(comma, spot.last + 1, ())]
        return [(tie, spot.last, ())] if not after.separator else [(comma, spot.last, ())]
    if not after.separator and after.kind == "preposition":
        return [(tie, spot.last, ())] if words[after.start] in _SCENE else None
    return [(comma, spot.last, ())]


def behind_noun(spot: Spot, tie: int) -> Edits:
    """Take out "with a beard" where it stands behind its bearer."""
    words, after = spot.words, spot.next
    clause = words[clause_start(words, tie) : tie]
    busy = any(word in FINITE or is_participle(word) for word in clause)
    if goes_on_while(spot):
        return [(tie, spot.last if busy else after.start + 1, ())]
    if after.kind == "other" and after.separator != ",":
        return None
    if "and" in after.separator and after.kind in ("participle", "verb", "preposition", "relative"):
        if not busy:
            return [(tie, after.start, ())]
        return None if after.kind in ("preposition", "relative") else [(tie, spot.last, ())]
    if after.separator == "and" and after.kind == "clause" and not FINITE & set(words[:tie]):
        return None
    return [(tie, spot.last, ())]
