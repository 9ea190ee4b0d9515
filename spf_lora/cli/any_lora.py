"""What `clean` and `audit` are given: anybody's LoRA, the words that ask for it, and prompts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spf_lora.errors import AdapterFileError, DataError
from spf_lora.recipe.schema import Recipe

if TYPE_CHECKING:
    from spf_lora.adapters.format.card import Card
    from spf_lora.adapters.module import Adapter
    from spf_lora.base.load import Base

_MOST_RANK = 32
SUBJECTS = {"embedded": "a portrait of a person", "sd15": "a photo of a person"}


@dataclass(frozen=True)
class Source:
    """Anybody's adapter.

    Attributes:
        path: its file.
        metadata: its text entries.
        card: what it says about itself, or None.
        adapter: as read; None for a method that is multiplied out with the base's weights.
    """

    path: Path
    metadata: Mapping[str, str]
    card: "Card | None"
    adapter: "Adapter | None"


def source_of(path: Path) -> Source:
    """Read an adapter as far as it can be without a base.

    Raises:
        AdapterFileError: it cannot be read, says what is not so, or changes nothing.
    """
    from spf_lora.adapters.format.adapter_file import read_adapter
    from spf_lora.adapters.format.card import from_metadata
    from spf_lora.adapters.format.container import open_container
    from spf_lora.adapters.format.multiplied import method_of

    adapter = None
    if method_of(path) is None:
        adapter = read_adapter(path)
        metadata = dict(adapter.metadata)
        _refuse_still(adapter, path)
    else:
        with open_container(path) as container:
            metadata = dict(container.metadata)
    return Source(path, metadata, from_metadata(metadata, path=path), adapter)


def teacher_of(source: Source, base: "Base") -> "Adapter":
    """Return the adapter as one that can be drawn with on a base.

    Raises:
        AdapterFileError: it does not fit the base, or changes nothing.
    """
    from spf_lora.adapters.format.layouts import TEXT_ENCODER
    from spf_lora.adapters.format.multiplied import read_multiplied
    from spf_lora.draw.weights import weight_of

    if source.adapter is not None:
        return source.adapter

    def numbers(name: str) -> Any:
        model = base.text_encoder if name.startswith(TEXT_ENCODER) else base.unet
        return weight_of(model, name).detach().float().cpu().numpy()

    adapter = read_multiplied(source.path, numbers)
    _refuse_still(adapter, source.path)
    return adapter


def _refuse_still(adapter: "Adapter", path: Path) -> None:
    modules = adapter.modules.values()
    if not any(module.scale and module.up.any() and module.down.any() for module in modules):
        raise AdapterFileError(
            f"{path} changes nothing: its strength or all its factors are zero",
            hint="take one that was trained",
        )


def recipe_of(
    source: Source,
    changes: Sequence[str],
    *,
    target: str | None,
    attribute: str | None,
    base: str,
    rank: int | None = None,
    keep: str | None = None,
) -> tuple[Recipe, bool]:
    """Return what decides the cleaning, and whether the adapter is without words.

    What asks for it is said by the user, by a recipe, by the card, or by what its trainer wrote.

    Raises:
        RecipeError: a value cannot be used.
    """
    from spf_lora.adapters.format.card import attribute_of, trigger_of
    from spf_lora.data.captions import split_phrases
    from spf_lora.recipe.files import find_recipe
    from spf_lora.recipe.load import load_recipe, make_recipe

    words: dict[str, Any] = {"name": _slug(source.path.stem)}
    known = attribute or (_world_name(target) if base == "embedded" else None)
    if known is not None:
        words = asdict(load_recipe(find_recipe(known)).attribute)
    elif source.card is not None and source.card.target_text and target is None:
        words = asdict(attribute_of(source.card))
    target = target or words.get("target_text") or trigger_of(source.metadata)
    wordless = target is None or words.get("control") == "strength"
    words["target_text"] = target or words["name"]
    if wordless:
        words["control"] = "strength"
    plain = {
        key: list(value) if isinstance(value, tuple) else value for key, value in words.items()
    }
    modules = source.adapter.modules.values() if source.adapter else ()
    rank = rank or min(max((one.rank for one in modules), default=_MOST_RANK), _MOST_RANK)
    own = [f"training.base={base}", f"adapter.rank={rank}", f"adapter.alpha={rank}"]
    profile = "embedded" if base == "embedded" else "sd15"
    if profile == "sd15":
        own.append("distil.vocabulary=photographs")
    table: dict[str, Any] = {"profile": profile, "attribute": plain}
    if keep:
        plain["scope"] = "global"
        table["distil"] = {"keep": split_phrases(keep)}
    return make_recipe(table, [*own, *changes], source.path), wordless


def _slug(stem: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "cleaned"


def _world_name(target: str | None) -> str | None:
    """Return the attribute of the portrait world that a phrase asks for, or None."""
    from spf_lora.data.worlds.portraits import ATTRIBUTES

    return next((name for name, row in ATTRIBUTES.items() if row.target_text == target), None)


def prompts_of(file: Path | None, recipe: Recipe) -> list[str]:
    """Return what pairs are drawn of; the vocabulary varies it.

    Raises:
        DataError: the file cannot be read, or nothing is left of a line without the target.
    """
    if file is None:
        return [SUBJECTS[recipe.profile]]
    from spf_lora.data.captions import base_prompt
    from spf_lora.data.prompt_file import read_prompt_lines

    lines = [base_prompt(line, recipe.attribute) for _, line in read_prompt_lines(file)]
    if not all(lines):
        raise DataError(
            f"a prompt of {file} is nothing but the target",
            hint="write what else the picture shows, as: a photo of a man, in a street",
        )
    return lines
