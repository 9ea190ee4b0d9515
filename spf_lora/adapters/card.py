"""The card: what an adapter says about itself, as canonical JSON in the `spf_lora` entry.

It names no path, file or user: pictures are known by a digest, parents by content id.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spf_lora.errors import AdapterFileError

KEY = "spf_lora"
FORMAT_VERSION = 1


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
        return hashlib.sha256(canonical_json(self.recipe).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """Return the one JSON text for a value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def to_json(card: Card) -> str:
    """Return the card as the text of the `spf_lora` entry."""
    table = {one.name: getattr(card, one.name) for one in dataclasses.fields(card)}
    return canonical_json({**table, "recipe_hash": card.recipe_hash})


def from_metadata(metadata: Mapping[str, str]) -> Card | None:
    """Return the card in a file's metadata, or None if there is none.

    Raises:
        AdapterFileError: the card is damaged, of a newer version, or its recipe was altered.
    """
    if KEY not in metadata:
        return None
    try:
        table = json.loads(metadata[KEY])
        stated = table.pop("recipe_hash")
        card = Card(**{**table, "parents": tuple(table["parents"])})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise AdapterFileError(
            f"the file's spf_lora card is damaged: {error}",
            hint="spf-lora metadata FILE --strip removes it",
        ) from error
    if stated != card.recipe_hash:
        raise AdapterFileError(
            "the recipe in the file's spf_lora card does not match its own hash",
            hint="it was edited by hand; spf-lora metadata FILE --strip removes it",
        )
    return card


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
