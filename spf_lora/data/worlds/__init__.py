"""Worlds whose truth is known: portraits drawn by a program."""

from spf_lora.data.worlds.personas import PERSONAS
from spf_lora.data.worlds.portraits import PORTRAITS

WORLDS = {world.name: world for world in (PORTRAITS, PERSONAS)}
