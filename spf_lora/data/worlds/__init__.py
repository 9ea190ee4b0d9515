"""Worlds whose truth is known: portraits drawn by a program."""

from typing import TYPE_CHECKING

from spf_lora.data.worlds.personas import PERSONAS
from spf_lora.data.worlds.portraits import PORTRAITS
from spf_lora.data.worlds.world import World
from spf_lora.errors import BaseModelError

if TYPE_CHECKING:
    from spf_lora.base.load import Base

__all__ = ["PERSONAS", "PORTRAITS", "WORLDS", "world_of"]

WORLDS = {world.name: world for world in (PORTRAITS, PERSONAS)}


def world_of(base: "Base") -> World:
    """Return the world that a base draws; the portrait world of one that has none of its own.

    Raises:
        BaseModelError: nobody here knows the world.
    """
    if base.world not in ("", *WORLDS):
        raise BaseModelError(
            f"the base {base.name} draws {base.world!r}, a world that is not known here",
            hint=f"known are: {', '.join(WORLDS)}; a newer spf-lora may know more",
        )
    return WORLDS.get(base.world, PORTRAITS)
