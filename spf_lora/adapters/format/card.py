"""The card: what an adapter says about itself, as canonical JSON in the `spf_lora` entry.

It names no path, file or user: pictures are known by a digest, parents by content id.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spf_lora.data.captions import split_phrases
from spf_lora.documents import parse_json
from spf_lora.errors import AdapterFileError
from spf_lora.recipe.digest import canonical_json, table_hash
from spf_lora.recipe.schema import Attribute, Control, Scope

KEY = "spf_lora"
MEASURED = "spf_lora_measured"  # content id that a card's metrics are of
FORMAT_VERSION = 1
_LISTS = ("aliases", "replaces", "phrases")  # of an attribute
_MAX_CHARACTERS = 1 << 20
# metric -> the least and the most that it can be; the others are any finite number
_RANGES = {"dose": (1e-6, 1000.0), "start_percent": (0.0, 0.99)}

# what each entry of a card is in JSON
_TYPES: dict[str, type | tuple[type, ...]] = {
    "attribute": str,
    "target_text": str,
    "trigger": str,
    "base_id": str,
    "recipe": dict,
    "recipe_hash": str,
    "parents": list,
    "dataset_digest": str,
    "metrics": dict,
    "versions": dict,
    "seed": (int, type(None)),
    "format_version": int,
}


@dataclass(frozen=True)
class Card:
    """Where an adapter comes from and what it is for.

    Attributes:
        attribute: the attribute's short name, such as `beard`.
        target_text: the text that means the attribute, such as `a beard`.
        trigger: what to write in a prompt to get it.
        base_id: identity of the base model it was trained on.
        recipe: the settings it was made with.
        parents: content ids of adapters it was trained on top of or merged from.
        dataset_digest: digest over the training images' hashes.
        metrics: measured numbers by name.
        versions: tool versions by name.
        seed: the seed of the run.
        format_version: version of this card.
    """

    attribute: str
    target_text: str
    trigger: str
    base_id: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    dataset_digest: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    format_version: int = FORMAT_VERSION

    @property
    def recipe_hash(self) -> str:
        """Digest of the recipe's canonical JSON."""
        return table_hash(self.recipe)


def to_json(card: Card) -> str:
    """Return the card as the text of the `spf_lora` entry."""
    return canonical_json(as_table(card))


def as_table(card: Card) -> dict[str, Any]:
    """Return the card as plain JSON values, with the recipe's hash."""
    table = {one.name: getattr(card, one.name) for one in dataclasses.fields(card)}
    return {**table, "recipe_hash": card.recipe_hash}


def from_metadata(metadata: Mapping[str, str], *, path: Path | None = None) -> Card | None:
    """Return the card in a file's metadata, or None if there is none.

    Args:
        metadata: the file's text entries.
        path: the file, to name where it is refused.

    Raises:
        AdapterFileError: the card is damaged, of a newer version, or its recipe was altered.
    """
    if KEY not in metadata:
        return None
    try:
        return _read(metadata[KEY])
    except ValueError as error:
        where = f"{path}: " if path else ""
        raise AdapterFileError(
            f"{where}the spf_lora card cannot be used: {error}",
            hint="spf-lora metadata FILE --strip removes it; the adapter itself stays as it is",
        ) from error


def _read(text: str) -> Card:
    """Read a card that anybody may have written; a `ValueError` says what is wrong with it."""
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"it is longer than {_MAX_CHARACTERS} characters")
    table = parse_json(text)
    if fault := _fault(table):
        raise ValueError(fault)
    stated = table.pop("recipe_hash")
    card = Card(**{**table, "parents": tuple(table["parents"])})
    if stated != card.recipe_hash:
        raise ValueError("its recipe does not match the recipe's own hash")
    return card


def _fault(table: Any) -> str:
    """Return what is wrong with a card read from a file, or an empty text."""
    if not isinstance(table, dict) or table.keys() != _TYPES.keys():
        return "its keys are not those of a card"
    if table["format_version"] != FORMAT_VERSION:
        return f"it has version {str(table['format_version'])[:20]}, this is {FORMAT_VERSION}"
    wrong = [key for key, kind in _TYPES.items() if not isinstance(table[key], kind)]
    if wrong:
        return f"its {wrong[0]} is of the wrong type"
    if not all(isinstance(one, str) for one in table["parents"]):
        return "its parents are not all text"
    if not all(isinstance(one, str) for one in table["versions"].values()):
        return "its versions are not all text"
    for name, value in table["metrics"].items():
        low, high = _RANGES.get(name, (-math.inf, math.inf))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"its metrics.{name[:40]} is no number"
        if not low <= value <= high:
            return f"its metrics.{name} is {value:g}, not in [{low:g}, {high:g}]"
    return ""


def file_metadata(
    card: Card,
    *,
    rank: int,
    alpha: float,
    title: str,
    author: str = "",
    description: str = "",
    date: str = "",
    license_name: str = "",
    usage_hint: str = "",
    tag_frequency: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, str]:
    """Return the full metadata of a file: modelspec 1.0.1, ss_* and the card.

    Empty values are left out. The hash entries are added by the writer.
    """
    version = card.versions.get("spf-lora", "")
    entries = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": f"spf-lora {version}".strip(),
        "modelspec.title": title,
        "modelspec.author": author,
        "modelspec.date": date,
        "modelspec.description": description,
        "modelspec.license": license_name,
        "modelspec.tags": card.attribute,
        "modelspec.trigger_phrase": card.trigger,
        "modelspec.usage_hint": usage_hint,
        "modelspec.merged_from": ", ".join(card.parents),
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "ss_v2": "False",
        "ss_output_name": title,
        "ss_tag_frequency": canonical_json(tag_frequency) if tag_frequency else "",
        KEY: to_json(card),
    }
    return {key: text for key, text in entries.items() if text}


def attribute_of(card: Card) -> Attribute:
    """Return the attribute that a card names, with the words of the recipe it carries."""
    words = card.recipe.get("attribute")
    words = words if isinstance(words, Mapping) else {}
    texts: dict[str, Any] = {
        key: tuple(value)
        for key, value in words.items()
        if key in _LISTS and isinstance(value, list) and all(isinstance(v, str) for v in value)
    }
    scope: Scope = "global" if words.get("scope") == "global" else "local"
    control: Control = "strength" if words.get("control") == "strength" else "words"
    return Attribute(
        name=card.attribute, target_text=card.target_text, scope=scope, control=control, **texts
    )


def trigger_of(metadata: Mapping[str, str]) -> str | None:
    """Return the phrase that a file without a card says asks for it, or None.

    It is the first phrase of modelspec's trigger, else the tag that most of the pictures had which
    kohya's trainers counted.
    """
    said = split_phrases(metadata.get("modelspec.trigger_phrase", ""))
    if said:
        return said[0]
    try:
        folders = parse_json(metadata.get("ss_tag_frequency", ""))
    except ValueError:
        return None
    counts: dict[str, int] = {}
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            phrase = split_phrases(tag)[:1]
            if phrase and isinstance(count, int):
                counts[phrase[0]] = counts.get(phrase[0], 0) + count
    return max(counts, key=counts.__getitem__, default=None)
