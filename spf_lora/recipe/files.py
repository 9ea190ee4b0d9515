"""Which recipes there are, and where: shipped ones, the user's, and those for other bases."""

from pathlib import Path

from spf_lora.errors import RecipeError
from spf_lora.shipped import shipped_folder
from spf_lora.strict import did_you_mean

FAMILIES = ("sd15",)  # folders of recipes for other bases than the embedded one


def list_recipes(family: str = "", *, shipped_only: bool = False) -> dict[str, Path]:
    """Return name -> file of every recipe; one in ./recipes hides a shipped one of its name.

    Args:
        family: one of `FAMILIES`, whose names are like "sd15/beard"; else the embedded base's.
        shipped_only: leave ./recipes out, for what must not depend on the current folder.
    """
    own = () if shipped_only else (Path("recipes"),)
    recipes = {
        f"{family}/{path.stem}" if family else path.stem: path
        for folder in (shipped_folder("recipes"), *own)
        for path in (folder / family).glob("*.toml")
    }
    return dict(sorted(recipes.items()))


def find_recipe(attribute: str) -> Path:
    """Return the recipe of an attribute, as "beard" or "sd15/beard".

    Raises:
        RecipeError: there is none; the nearest name is suggested.
    """
    family, _, name = attribute.rpartition("/")
    known = list_recipes(family if family in FAMILIES else "")
    if attribute in known:
        return known[attribute]
    elsewhere = [
        f"{other}/{name}"
        for other in FAMILIES
        if name not in known and f"{other}/{name}" in list_recipes(other)
    ]
    near = f"; did you mean {elsewhere[0]}?" if elsewhere else did_you_mean(attribute, known)
    raise RecipeError(
        f"there is no recipe for the attribute {attribute!r}{near}",
        hint="`spf-lora attributes` lists them; a new recipe is a TOML file in ./recipes",
    )


def locate_recipe(name_or_file: str) -> Path:
    """Return the file that a user means by an attribute's name or by a path."""
    if name_or_file.endswith(".toml") or "\\" in name_or_file:
        return Path(name_or_file)
    family, slash, _ = name_or_file.partition("/")
    return Path(name_or_file) if slash and family not in FAMILIES else find_recipe(name_or_file)
