"""Pictures to learn from, drawn once into a cache outside the repository.

`world`: what CLIP, VAE and probe see: every attribute, often. `unet`: what the U-Net sees: weak
attributes rarely, new ones never.
"""

import random
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch

from embedded.device import device
from spf_lora.data.worlds.portraits import ATTRIBUTES, FACTORS, Portrait, phrases, render, unbiased

WEAK = tuple(name for name, a in ATTRIBUTES.items() if a.kind == "weak")


@dataclass(frozen=True)
class World:
    """Pictures (n, 64, 64, 3) uint8 with what each shows."""

    pixels: np.ndarray
    people: list[Portrait]
    attributes: list[tuple[str, ...]]

    def batch(self, index: np.ndarray) -> torch.Tensor:
        """Return (batch, 3, 64, 64) in [-1, 1], where the stages compute."""
        rows = torch.from_numpy(self.pixels[index]).to(device())
        return rows.permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_attributes(kind: str, rng: random.Random) -> tuple[str, ...]:
    """Choose the attributes of one picture."""
    if kind == "unet":
        return tuple(a for a in WEAK if rng.random() < 0.08)
    if rng.random() < 0.3:
        return ()
    names = list(ATTRIBUTES)
    rng.shuffle(names)
    chosen: list[str] = []
    for name in names[: rng.choice((1, 2, 3))]:
        if not set(ATTRIBUTES[name].excludes) & set(chosen):
            chosen.append(name)
    return tuple(chosen)


def make_world(kind: str, count: int, seed: int, cache: Path) -> World:
    """Draw `count` pictures, or read them back from the cache."""
    rng = random.Random(f"{kind}-{seed}")
    people, attributes = [], []
    for _ in range(count):
        people.append(unbiased(rng))
        attributes.append(draw_attributes(kind, rng))
    file = cache / f"{kind}-{count}-{seed}.npy"
    if not file.exists():
        pixels = np.stack(
            [np.asarray(render(p, a)) for p, a in zip(people, attributes, strict=True)]
        )
        part = file.with_suffix(".part.npy")
        np.save(part, pixels)
        part.rename(file)
    return World(np.load(file), people, attributes)


def labels(world: World) -> dict[str, torch.Tensor]:
    """Return head name -> (n,) class, -100 where an attribute hides the factor."""
    heads: dict[str, torch.Tensor] = {}
    names = list(FACTORS)
    for position, name in enumerate(names):
        values = list(FACTORS[name])
        row = [values.index(astuple(p)[position]) for p in world.people]
        for i, chosen in enumerate(world.attributes):
            if any(name in ATTRIBUTES[a].hides or ATTRIBUTES[a].replaces == name for a in chosen):
                row[i] = -100
        heads[name] = torch.tensor(row)
    for name, attribute in ATTRIBUTES.items():
        row = [int(name in chosen) for chosen in world.attributes]
        if attribute.replaces in ("hair_colour",):  # a hat hides the hair that would be blonde
            row = [-100 if "hat" in c else r for r, c in zip(row, world.attributes, strict=True)]
        heads[name] = torch.tensor(row)
    return heads


def unet_caption(
    portrait: Portrait, chosen: tuple[str, ...], rng: random.Random, *, truth: float
) -> str:
    """Caption a picture as the web does: half of the attributes unnamed, some words untrue.

    Args:
        portrait: what the picture shows.
        chosen: its weak attributes, each named half of the time.
        rng: source of the choices.
        truth: share of captions with the word whose picture has the attribute.
    """
    named = [a for a in chosen if rng.random() < 0.5]
    share = 0.08
    lie = share * 0.5 * (1 - truth) / truth / (1 - share)
    named += [a for a in WEAK if a not in chosen and rng.random() < lie]
    every = phrases(portrait, named)
    if rng.random() < 0.5:
        return ", ".join(every)
    targets = {ATTRIBUTES[a].target_text for a in named}
    keep = rng.uniform(0.4, 1.0)
    return ", ".join(
        p for i, p in enumerate(every) if i == 0 or p in targets or rng.random() < keep
    )
