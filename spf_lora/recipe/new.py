"""A recipe for an attribute of one's own: the few keys that nobody else can know, with notes."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from spf_lora.errors import RecipeError
from spf_lora.recipe.files import FAMILIES, list_recipes
from spf_lora.recipe.schema import Attribute
from spf_lora.strict import check_table

# Words of a caption in sentences that should not move, for bases of photographs.
_PHRASES = (
    "man",
    "woman",
    "person",
    "face",
    "skin",
    "hair",
    "eyes",
    "mouth",
    "shirt",
    "jacket",
    "suit",
    "dress",
    "background",
)
_TEXT = """\
# What teaches {target}. Look at your pictures, then train:
#   spf-lora data check DIR --attribute {known}
#   spf-lora train --attribute {known} --data DIR{base}
# DIR holds 15 pictures or more, better 30 to 60, each with a caption in a .txt of the same name.
# Every caption says {target} and all else that is seen: what no caption names is learned too.

profile = "{profile}"  # where every other value comes from

[attribute]
name = "{name}"
target_text = {target}
# other phrases that ask for the same thing in captions
aliases = {aliases}
# phrases that give way to it in a prompt, * is any word, as in ["a hat", "* hair"]
replaces = []
# "local" changes a part of the picture; "global" changes all of it, as "old" does
scope = "{scope}"
{more}
# Any other key may stand here too; this lists all of them with a note on each:
#   spf-lora recipe show {known}
# [learn]
# steps = 100
"""
_HELD = """\
# words of a caption in sentences that must stay
phrases = {phrases}
"""


def recipe_path(known: str) -> Path:
    """Return where the recipe of an attribute is looked for: "crown" or "sd15/crown"."""
    return Path("recipes") / f"{known}.toml"


def new_recipe(
    known: str, target: str, *, aliases: Sequence[str] = (), scope: str = "local"
) -> str:
    """Return a recipe as TOML.

    Args:
        known: the attribute's name, as "crown", or "sd15/crown" for Stable Diffusion 1.5.
        target: the phrase that asks for it.
        aliases: other phrases that do; by default the target without its article.
        scope: "local" or "global".

    Raises:
        RecipeError: a value is not allowed, or a shipped recipe has the name.
    """
    family, _, name = known.rpartition("/")
    bare = re.sub(r"^(?:an?|the)\s+", "", target.strip())
    named = list(aliases) or ([bare] if bare != target else [])
    table = {"name": name, "target_text": target, "aliases": named, "scope": scope}
    _, faults = check_table(Attribute, table, prefix="attribute.")
    if family and family not in FAMILIES:
        faults.append(f"{family} is no family of bases: leave it out, or {', '.join(FAMILIES)}")
    if faults:
        raise RecipeError(
            "\n  ".join(("this would be no recipe:", *faults)),
            hint='write it like: spf-lora recipe new crown --target "a crown"',
        )
    if known in list_recipes(family, shipped_only=True):
        raise RecipeError(
            f"there is a recipe {known} already",
            hint=f"spf-lora recipe show {known}, or take another name",
        )
    own = bare.lower().split()
    more = ""
    if family and scope == "local":
        more = _HELD.format(phrases=json.dumps([p for p in _PHRASES if p not in own]))
    return _TEXT.format(
        target=json.dumps(target, ensure_ascii=False),
        aliases=json.dumps(named, ensure_ascii=False),
        known=known,
        name=name,
        base=" --base YOUR_MODEL" if family else "",
        profile=family or "embedded",
        scope=scope,
        more=more,
    )
