"""The little English that captions of pictures are written in: kinds of words, and what follows.

No word list is complete. A word that none of them knows is taken for a noun or an adjective, and
whoever asks must take care that a wrong guess ends in a fault and not in a crippled sentence.
"""

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from spf_lora.documents import parse_toml

ARTICLES = frozenset({"a", "an"})
CONJUNCTIONS = frozenset({"and", "or", "&"})
RELATIVES = frozenset({"who", "which", "that", "whose", "whom", "where"})
PRONOUNS = frozenset({"he", "she", "they", "it", "there", "we", "you", "i"})
COPULAS = frozenset({"is", "are", "was", "were", "be", "been", "being"})
BOUNDARIES = frozenset({",", ".", "!", "?", ";", ":", "(", ")", '"'})
_OTHERS = frozenset({"while", "as", "but", "because", "so", "although", "when", "if"})

_KINDS = {
    kind: frozenset(str(words).split())
    for kind, words in parse_toml(
        resources.files("spf_lora.data.sentences").joinpath("words.toml").read_text("utf-8")
    ).items()
}
DETERMINERS = ARTICLES | _KINDS["determiners"]
NEGATIONS = _KINDS["negations"]
PREPOSITIONS = _KINDS["prepositions"]
TIES = _KINDS["ties"]
HOLDERS = _KINDS["holders"]
FINITE = COPULAS | HOLDERS | _KINDS["finite"]
ABOUT_THINGS = _KINDS["about_things"]
PLACES_OF_A_BODY = _KINDS["body"]
PARTITIVES = _KINDS["partitives"]
PLURALS = _KINDS["plurals"]
MASSES = _KINDS["masses"]
_NOT_PLAIN = (
    BOUNDARIES
    | DETERMINERS
    | NEGATIONS
    | CONJUNCTIONS
    | RELATIVES
    | PRONOUNS
    | PREPOSITIONS
    | FINITE
    | _OTHERS
)


class Next(NamedTuple):
    """What stands behind a place in a sentence.

    Attributes:
        separator: ",", "and", ", and", or "" for none.
        kind: "end", "participle", "verb", "clause", "relative", "preposition", "thing", "other".
        start: where it begins, behind the separator.
    """

    separator: str
    kind: str
    start: int


def is_participle(word: str) -> bool:
    """Tell whether a word goes on about a person: "standing", "dressed"."""
    ing = word.endswith("ing") and len(word) > 4 and word not in _KINDS["no_participles"]
    return ing or word in _KINDS["about_persons"]


def is_adverb(word: str) -> bool:
    """Tell whether a word may stand between a verb and what it ties."""
    return word in _KINDS["adverbs"] or (word.endswith("ly") and len(word) > 4)


def is_adjective(word: str) -> bool:
    """Tell whether a word describes, as far as its ending or a list says so."""
    return word in _KINDS["adjectives"] or word.endswith(("y", "ous", "ful", "ish", "-haired"))


def is_plain(word: str) -> bool:
    """Tell whether a word can be a noun, or an adjective before one."""
    return bool(word) and word not in _NOT_PLAIN and not is_participle(word)


def takes_article(words: Sequence[str]) -> bool:
    """Tell whether a thing named without an article needs one to stand alone."""
    last = words[-1]
    return last not in PLURALS and last not in MASSES and not last.endswith("s")


def thing_end(words: Sequence[str], start: int) -> int | None:
    """Return where the thing that begins at `start` ends, or None if it may be no thing."""
    at, own = start, start < len(words) and words[start] in DETERMINERS
    while at < len(words) and (words[at] in DETERMINERS or words[at].endswith("'s")):
        at += 1
    first = at
    while at < len(words) and is_plain(words[at]):
        at += 1
    if at == first:
        return None
    last = words[at - 1]
    if own or last in PLURALS or last in MASSES:
        return at
    # Without an article "stares" may be a verb, and so may "smiled"; a longer name is a thing.
    return None if last.endswith(("s", "ed", "ly")) else at


def separator_at(words: Sequence[str], at: int) -> tuple[str, int]:
    """Return the separator that begins at a place, and where it ends."""
    comma = at < len(words) and words[at] == ","
    behind = at + comma
    if behind < len(words) and words[behind] in CONJUNCTIONS:
        return (", and" if comma else "and"), behind + 1
    for phrase in (("as", "well", "as"), ("along", "with"), ("together", "with")):
        if tuple(words[behind : behind + len(phrase)]) == phrase:
            return (", and" if comma else "and"), behind + len(phrase)
    return ("," if comma else ""), behind


def next_of(words: Sequence[str], at: int) -> Next:
    """Say what stands behind a place; a clause has a subject of its own."""
    separator, start = separator_at(words, at)
    if start >= len(words) or words[start] in (".", "!", "?"):
        return Next(separator, "end", start)
    word = words[start]
    if word in RELATIVES:
        return Next(separator, "relative", start)
    if word in PRONOUNS:
        return Next(separator, "clause", start)
    if word in FINITE:
        return Next(separator, "verb", start)
    if is_adverb(word) and start + 1 < len(words):
        behind = words[start + 1]
        if behind in FINITE or is_participle(behind):
            return Next(separator, "verb" if behind in FINITE else "participle", start)
    if is_participle(word):
        return Next(separator, "participle", start)
    if word in PREPOSITIONS:
        return Next(separator, "preposition", start)
    end = thing_end(words, start)
    if end is None:
        return Next(separator, "other", start)
    return Next(separator, "clause" if _verb_after(words, end) else "thing", start)


def _verb_after(words: Sequence[str], at: int) -> bool:
    """Tell whether what stands before a place has a verb: "the man on the left is"."""
    while at < len(words) and words[at] in PREPOSITIONS:
        end = thing_end(words, at + 1)
        if end is None:
            return False
        at = end
    return at < len(words) and words[at] in FINITE


def tie_before(words: Sequence[str], at: int) -> int | None:
    """Return where the words begin that tie what stands at a place: "wearing", "dressed in"."""
    while at > 1 and is_adverb(words[at - 1]):
        at -= 1
    if at == 0 or words[at - 1] not in TIES:
        return None
    start = at - 1
    if start and words[start] in ("with", "in") and words[start - 1] in _KINDS["tied_before"]:
        start -= 1
    return start


def holder_before(words: Sequence[str], at: int) -> int | None:
    """Return where the verb stands that gives somebody what stands at a place: "has", "wears"."""
    while at > 1 and is_adverb(words[at - 1]):
        at -= 1
    return at - 1 if at and words[at - 1] in HOLDERS else None
