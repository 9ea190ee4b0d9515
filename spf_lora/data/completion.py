"""Captions completed with what a CLIP sees for certain, and prompts of all kinds (ours).

People name half of what a picture shows. What goes unnamed and comes with the attribute is learned
as if it were the attribute: that is how a LoRA is polluted. A phrase that names it takes the blame
upon itself.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spf_lora.data.captions import (
    base_prompt,
    has_target,
    join_phrases,
    names_any,
    put_instead,
    split_phrases,
)
from spf_lora.data.found_vocabulary import found_groups, found_template
from spf_lora.data.sentences.cut import is_sentence
from spf_lora.documents import read_toml
from spf_lora.errors import RecipeError
from spf_lora.recipe.schema import Attribute
from spf_lora.shipped import shipped_folder

NONE, AUTO = "none", "auto"
NO_KINDS = "they name no two kinds of one thing twice each, so data.vocabulary=auto has no group"
_MOST_BYTES = 256 << 10  # of a vocabulary's file
NAMED = 0.75  # share of the groups that a varied prompt names


@dataclass(frozen=True)
class Vocabulary:
    """What pictures may show.

    Attributes:
        template: how a phrase is put to the CLIP, with {} in its place.
        groups: phrases of which a picture shows one at a time; in the order captions have.
        names: of the groups.
    """

    template: str
    groups: tuple[tuple[str, ...], ...]
    names: tuple[str, ...] = field(default=(), repr=False)


def load_vocabulary(name: str, captions: Sequence[str] = ()) -> Vocabulary:
    """Read a shipped vocabulary or a user's TOML file, or find one in captions.

    Args:
        name: of a shipped one, the path of a .toml file, or "auto".
        captions: without the target; "auto" has no group where they are all alike.

    Raises:
        RecipeError: there is none, or it says something else than a template and groups.
    """
    if name == AUTO:
        groups = found_groups(captions)
        return Vocabulary(found_template(captions, groups), groups, tuple(g[0] for g in groups))
    folder = shipped_folder("recipes") / "vocabularies"
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    try:
        table = read_toml(path, most_bytes=_MOST_BYTES)
    except (OSError, ValueError) as error:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.toml")))
        raise RecipeError(
            f"the vocabulary {name} cannot be read: {error}",
            hint=f"data.vocabulary is none, auto, a .toml file, or one of: {known}",
        ) from error
    faults = _faults(table)
    if faults:
        raise RecipeError(
            "\n  ".join((f"the vocabulary {name} is not right:", *faults)),
            hint='it has template = "a photo of {}" and, under [groups], lists of phrases',
        )
    named = table["groups"]
    return Vocabulary(table["template"], tuple(map(tuple, named.values())), tuple(named))


def _faults(table: Mapping[str, Any]) -> list[str]:
    faults = [f"{key} is not a known key" for key in table if key not in ("template", "groups")]
    template, groups = table.get("template"), table.get("groups")
    if not isinstance(template, str) or template.count("{}") != 1:
        faults.append("template must be a text with one {}")
    if not isinstance(groups, dict) or not groups:
        return [*faults, "groups must hold lists of phrases"]
    seen: set[str] = set()
    for name, group in groups.items():
        if not isinstance(group, list) or len(group) < 2:
            faults.append(f"groups.{name} must list two phrases or more")
            continue
        for phrase in group:
            if not isinstance(phrase, str) or split_phrases(phrase) != [phrase]:
                faults.append(f"groups.{name}: {phrase!r} is not one phrase without commas")
            elif phrase in seen:
                faults.append(f"groups.{name}: {phrase!r} stands there twice")
            else:
                seen.add(phrase)
    return faults


def complete(
    caption: str,
    attribute: Attribute,
    vocabulary: Vocabulary,
    seen: Sequence[str | None],
) -> str:
    """Return the caption with what it leaves out; what it says stays, in its order.

    Behind sentences the new phrases come last.

    A phrase is added where the caption names no phrase of its group, and neither the target nor
    what the target replaces is in the group.

    Args:
        caption: of one picture.
        attribute: never added.
        vocabulary: its groups give the place of a new phrase.
        seen: of each group, the phrase that the picture shows for certain, or None.
    """
    phrases = split_phrases(caption)
    in_sentences = is_sentence(caption)  # nothing is put into the middle of one
    group_of = {p: i for i, group in enumerate(vocabulary.groups) for p in group}
    for number, phrase in enumerate(seen):
        group = vocabulary.groups[number]
        taken = any(
            has_target(own, attribute) or names_any(own, attribute.replaces) for own in group
        )
        if phrase is None or taken or names_any(caption, group):
            continue
        later = (
            place
            for place, existing in enumerate(phrases)
            if group_of.get(existing, -1) > number or not base_prompt(existing, attribute)
        )
        phrases.insert(len(phrases) if in_sentences else next(later, len(phrases)), phrase)
    return join_phrases(phrases)


def varied(prompt: str, attribute: Attribute, vocabulary: Vocabulary, rng: random.Random) -> str:
    """Return a prompt of the same subject that names anything that pictures may show.

    Training captions are biased: an adapter that was only ever held still on what they name moves
    on what they do not. Phrases that no group knows stay; of each group one is drawn, or none.
    Within a longer phrase or a sentence what is drawn takes the place of what stood there.

    Args:
        prompt: a base prompt.
        attribute: never asked for.
        vocabulary: what may be drawn.
        rng: draws.
    """
    known = {phrase for group in vocabulary.groups for phrase in group}
    kept = join_phrases([phrase for phrase in split_phrases(prompt) if phrase not in known])
    new = []
    for group in vocabulary.groups:
        drawn = rng.choice(group) if rng.random() < NAMED else None
        if drawn is None or has_target(drawn, attribute):
            continue
        if names_any(kept, group):
            kept = put_instead(kept, group, drawn)
        else:
            new.append(drawn)
    return join_phrases([*([kept] if kept else []), *new])
