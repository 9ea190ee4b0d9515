"""Where the files that come with the package are: recipes, adapters and the glossary.

An installed wheel carries them inside the package (`pyproject.toml` puts them there); a clone, or
an editable install of one, has them at the top of the repository.
"""

from pathlib import Path
from typing import Literal


def shipped_folder(name: Literal["adapters", "docs", "recipes"]) -> Path:
    """Return the folder `name` that came with this installation."""
    package = Path(__file__).resolve().parent
    packed = package / "_shipped" / name
    if packed.is_dir():
        return packed
    # beside the shipped adapters lie the user's own, which must not pass for shipped ones
    return package.parent / ("adapters/demo" if name == "adapters" else name)
