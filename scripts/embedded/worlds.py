"""Pictures to learn from, drawn once into a cache outside the repository.

`world`: what CLIP, VAE and probe see: every attribute, often. `unet`: what the U-Net sees: weak
attributes rarely, new ones never.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from embedded.device import device
from spf_lora.data.worlds.world import Portrait, World


@dataclass(frozen=True)
class Pictures:
    """Pictures (n, 64, 64, 3) uint8 of a world with what each shows."""

    world: World
    pixels: np.ndarray
    people: list[Portrait]
    attributes: list[tuple[str, ...]]

    def batch(self, index: np.ndarray) -> torch.Tensor:
        """Return (batch, 3, 64, 64) in [-1, 1], where the stages compute."""
        rows = torch.from_numpy(self.pixels[index]).to(device())
        return rows.permute(0, 3, 1, 2).float() / 127.5 - 1


def weak(world: World) -> list[str]:
    """Return the attributes that the U-Net sees rarely."""
    return [name for name, row in world.attributes.items() if row.kind == "weak"]


def draw_attributes(world: World, kind: str, rng: random.Random) -> tuple[str, ...]:
    """Choose the attributes of one picture."""
    if kind == "unet":
        return tuple(a for a in weak(world) if rng.random() < 0.08)
    if rng.random() < 0.3:
        return ()
    names = list(world.attributes)
    rng.shuffle(names)
    chosen: list[str] = []
    for name in names[: rng.choice((1, 2, 3))]:
        if not set(world.attributes[name].excludes) & set(chosen):
            chosen.append(name)
    return tuple(chosen)


def make_pictures(world: World, kind: str, count: int, seed: int, cache: Path) -> Pictures:
    """Draw `count` pictures, or read them back from the cache."""
    rng = random.Random(f"{kind}-{seed}")
    people, attributes = [], []
    for _ in range(count):
        people.append(world.unbiased(rng))
        attributes.append(draw_attributes(world, kind, rng))
    file = cache / f"{kind}-{count}-{seed}.npy"
    if not file.exists():
        pairs = list(zip(people, attributes, strict=True))
        parts = {n: cache / f"{file.stem}-from-{n}.npy" for n in range(0, count, 1000)}
        for first, part in parts.items():
            if not part.exists():
                drawn = [world.render(p, a) for p, a in pairs[first : first + 1000]]
                keep(part, np.stack([np.asarray(picture) for picture in drawn]))
        keep(file, np.concatenate([np.load(part) for part in parts.values()]))
        for part in parts.values():
            part.unlink()
    return Pictures(world, np.load(file), people, attributes)


def keep(file: Path, rows: np.ndarray) -> None:
    """Write rows into the cache, whole or not at all."""
    part = file.with_suffix(".part.npy")
    np.save(part, rows)
    part.rename(file)


def labels(pictures: Pictures) -> dict[str, torch.Tensor]:
    """Return head name -> (n,) class, -100 where an attribute hides the factor."""
    world, attributes = pictures.world, pictures.world.attributes
    hidden = [{f for a in chosen for f in attributes[a].hides} for chosen in pictures.attributes]
    replaced = [{attributes[a].replaces for a in chosen} for chosen in pictures.attributes]
    heads: dict[str, list[int]] = {}
    for name, values in world.factors.items():
        gone = [name in h or name in r for h, r in zip(hidden, replaced, strict=True)]
        seen = [list(values).index(getattr(p, name)) for p in pictures.people]
        heads[name] = [-100 if g else s for g, s in zip(gone, seen, strict=True)]
    for name, row in attributes.items():  # a hat hides the hair that would be blonde
        shown = [int(name in chosen) for chosen in pictures.attributes]
        heads[name] = [-100 if row.replaces in h else s for h, s in zip(hidden, shown, strict=True)]
    return {name: torch.tensor(column) for name, column in heads.items()}


def unet_caption(
    world: World, portrait: Portrait, chosen: tuple[str, ...], rng: random.Random, *, truth: float
) -> str:
    """Caption a picture as the web does: half of the attributes unnamed, some words untrue.

    Args:
        world: what it is drawn from.
        portrait: what the picture shows.
        chosen: its weak attributes, each named half of the time.
        rng: source of the choices.
        truth: share of captions with the word whose picture has the attribute.
    """
    named = [a for a in chosen if rng.random() < 0.5]
    share = 0.08
    lie = share * 0.5 * (1 - truth) / truth / (1 - share)
    named += [a for a in weak(world) if a not in chosen and rng.random() < lie]
    every = world.phrases(portrait, named)
    if rng.random() < 0.5:
        return ", ".join(every)
    targets = set(world.caption_targets(named))
    keep = rng.uniform(0.4, 1.0)
    return ", ".join(
        p for i, p in enumerate(every) if i == 0 or p in targets or rng.random() < keep
    )
