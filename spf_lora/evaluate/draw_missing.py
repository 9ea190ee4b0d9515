"""Draw what is not in the cache: one U-Net call for many prompts and seeds.

Pictures are drawn in fixed groups of one strength, so that an evaluation that was killed and goes
on draws the very same pictures.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from spf_lora.adapters.combine import combined
from spf_lora.adapters.format.hashes import content_id
from spf_lora.base.identity import tensors_digest
from spf_lora.base.load import Base
from spf_lora.draw.act import Acting, draw_latents
from spf_lora.draw.prompts import Prompt
from spf_lora.draw.sample import SAMPLING, Sampling, Style, decode
from spf_lora.draw.weights import attached
from spf_lora.errors import MeasureError
from spf_lora.evaluate.gallery import Ingredients, has_picture, write_picture

Progress = Callable[[int, int], None]  # pictures done, pictures to draw


@dataclass(frozen=True)
class Wanted:
    """A picture to have.

    Attributes:
        prompt: what is asked for.
        seed: of the noise.
        strength: of the adapter; 0 is the base model, for which nothing is late.
        before: other prompts, and the share of the time steps until which each is drawn, the
            earliest first; see `stages`.
        within: the prompt whose picture is left in the control map only; or
            None: the whole picture may differ.
        each: see `Prompt`.
    """

    prompt: str
    seed: int
    strength: float = 0.0
    before: tuple[tuple[str, float], ...] = ()
    within: str | None = None
    each: tuple[tuple[str, float], ...] = ()

    def asks(self) -> Prompt:
        """Return what the picture is drawn from: of the base model, the prompt alone."""
        if not self.strength:
            return Prompt(self.prompt)
        return Prompt(self.prompt, self.before, self.within, self.each)


@dataclass(frozen=True, eq=False)
class Painter:
    """A base model, adapters and a sampler: all that decides a picture but the prompt and seed.

    Attributes:
        base: the model.
        acting: the adapters; a picture's strength multiplies theirs.
        folder: the cache.
        sampling: how they are drawn.
        model_id: digest of the base with its VAE.
        adapter_id: content id, "" for none.
    """

    base: Base
    acting: Acting
    folder: Path
    sampling: Sampling
    model_id: str
    adapter_id: str

    def key(self, wanted: Wanted) -> str:
        """Return where the picture is in the cache."""
        starts = self.acting.starts
        return Ingredients(
            model=self.model_id,
            adapter=self.adapter_id,
            strength=wanted.strength,
            prompt=wanted.prompt,
            negative="",
            seed=wanted.seed,
            sampler=self.sampling.sampler,
            steps=self.sampling.steps,
            guidance=self.sampling.guidance,
            starts=starts if any(starts) else (),
            before=wanted.before,
            exact=self.acting.words,
            within=wanted.within,
            each=wanted.each,
        ).key()

    def check(self) -> None:
        """Put the adapters on and off, so that a wrong one is refused before anything is drawn.

        Raises:
            AdapterFileError: the base has not the modules, or not their shapes.
        """
        rows = [(adapter, 0.0) for adapter in self.acting.adapters]
        with attached(self.base.unet, rows, text_encoder=self.base.text_encoder):
            return

    def draw(self, wanted: Iterable[Wanted], on_progress: Progress | None = None) -> int:
        """Draw every wanted picture that the cache has not.

        Args:
            wanted: in an order that is the same for every call with the same words.
            on_progress: told after each group.

        Returns:
            How many were drawn.

        Raises:
            MeasureError: the model's numbers are not finite.
        """
        groups = [g for g in self._groups(wanted) if not all(map(self._has, g))]
        total, done = sum(map(len, groups)), 0
        if on_progress and total:
            on_progress(0, total)
        for group in groups:
            self._draw_group(group)
            done += len(group)
            if on_progress:
                on_progress(done, total)
        return total

    def _groups(self, wanted: Iterable[Wanted]) -> Iterator[list[Wanted]]:
        def alike(one: Wanted) -> tuple[float, bool, tuple[float, ...]]:
            return one.strength, *one.asks().kind()

        unique = list(dict.fromkeys(wanted))
        for kind in sorted(set(map(alike, unique))):
            same = [w for w in unique if alike(w) == kind]
            for i in range(0, len(same), self.sampling.batch_size):
                yield same[i : i + self.sampling.batch_size]

    def _has(self, wanted: Wanted) -> bool:
        return has_picture(self.folder, self.key(wanted))

    def _draw_group(self, group: Sequence[Wanted]) -> None:
        strength = group[0].strength
        latents = draw_latents(
            self.base,
            [wanted.asks() for wanted in group],
            [wanted.seed for wanted in group],
            self.acting.at(strength),
            steps=self.sampling.steps,
            guidance=self.sampling.guidance,
            style=Style(self.sampling.sampler),
        )
        if not torch.isfinite(latents).all():
            raise MeasureError(
                f"at strength {strength:g} the model draws numbers that are not finite",
                hint="the adapter is broken or far too strong: spf-lora verify says more",
            )
        for wanted, picture in zip(group, decode(self.base, latents), strict=True):
            if not self._has(wanted):
                write_picture(self.folder, self.key(wanted), picture)


def painter(base: Base, acting: Acting, *, folder: Path, sampling: Sampling = SAMPLING) -> Painter:
    """Return what draws with a base and adapters; their digests are computed once, here."""
    vae = tensors_digest(dict(base.vae.named_parameters()))
    model_id = f"{base.id} {vae[:16]} {base.resolution}"
    return Painter(base, acting, folder, sampling, model_id, _adapter_id(acting))


def _adapter_id(acting: Acting) -> str:
    """Return the content id of all that acts, "" for nothing."""
    if not acting.adapters:
        return ""
    if acting.strengths == (1.0,):
        return content_id(acting.adapters[0])
    return content_id(combined(list(zip(acting.adapters, acting.strengths, strict=True))))
