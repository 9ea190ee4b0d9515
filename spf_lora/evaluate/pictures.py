"""Draw what is not in the cache: one U-Net call for many prompts and seeds.

Pictures are drawn in fixed groups of one strength, so that an evaluation that was killed and goes
on draws the very same pictures.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from spf_lora.adapters.attach import attached
from spf_lora.adapters.hashes import content_id
from spf_lora.adapters.module import Adapter
from spf_lora.base.identity import tensors_digest
from spf_lora.base.load import Base
from spf_lora.base.sample import BATCH, GUIDANCE, STEPS, Late, decode, sample_latents
from spf_lora.base.texts import encode
from spf_lora.errors import MeasureError
from spf_lora.evaluate.gallery import Ingredients, has_picture, write_picture

Progress = Callable[[int, int], None]  # pictures done, pictures to draw


@dataclass(frozen=True)
class Wanted:
    """A picture to have.

    Attributes:
        prompt: what is asked for.
        seed: of the noise.
        strength: of the adapter; 0 is the base model.
        before: the prompt until the painter's start_percent; "" for the same.
    """

    prompt: str
    seed: int
    strength: float = 0.0
    before: str = ""


@dataclass(frozen=True, eq=False)
class Painter:
    """A base model, an adapter and a sampler: all that decides a picture but the prompt and seed.

    Attributes:
        base: the model.
        adapter: or None.
        folder: the cache.
        steps: DDIM steps.
        guidance: scale of classifier-free guidance.
        batch_size: pictures drawn at once.
        model_id: digest of the base with its VAE.
        adapter_id: content id, "" for none.
        start_percent: share of the time steps before the adapter acts and its words are read.
    """

    base: Base
    adapter: Adapter | None
    folder: Path
    steps: int
    guidance: float
    batch_size: int
    model_id: str
    adapter_id: str
    start_percent: float = 0.0

    def key(self, wanted: Wanted) -> str:
        """Return where the picture is in the cache."""
        return Ingredients(
            model=self.model_id, adapter=self.adapter_id, strength=wanted.strength,
            prompt=wanted.prompt, negative="", seed=wanted.seed, sampler="ddim", steps=self.steps,
            guidance=self.guidance, start_percent=self.start_percent, before=wanted.before,
        ).key()  # fmt: skip

    def check(self) -> None:
        """Put the adapter on and off, so that a wrong one is refused before anything is drawn.

        Raises:
            AdapterFileError: the base has not the modules, or not their shapes.
        """
        if self.adapter is not None:
            with attached(self.base.unet, [(self.adapter, 0.0)]):
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
        for strength in dict.fromkeys(g[0].strength for g in groups):
            with self._attached(strength):
                for group in (g for g in groups if g[0].strength == strength):
                    self._draw_group(group)
                    done += len(group)
                    if on_progress:
                        on_progress(done, total)
        return total

    def _groups(self, wanted: Iterable[Wanted]) -> Iterator[list[Wanted]]:
        unique = list(dict.fromkeys(wanted))
        for strength in sorted({w.strength for w in unique}):
            same = [w for w in unique if w.strength == strength]
            for i in range(0, len(same), self.batch_size):
                yield same[i : i + self.batch_size]

    def _has(self, wanted: Wanted) -> bool:
        return has_picture(self.folder, self.key(wanted))

    def _attached(self, strength: float) -> AbstractContextManager[None]:
        if self.adapter is None or strength == 0:
            return nullcontext()
        return attached(
            self.base.unet, [(self.adapter, strength)], start_percent=self.start_percent
        )

    def _draw_group(self, group: Sequence[Wanted]) -> None:
        late = None
        if self.start_percent and group[0].strength:
            late = Late([w.before or w.prompt for w in group], self.start_percent)
        latents = sample_latents(
            self.base, _states(self.base, [w.prompt for w in group]), [w.seed for w in group],
            steps=self.steps, guidance=self.guidance, late=late,
        )  # fmt: skip
        if not torch.isfinite(latents).all():
            raise MeasureError(
                f"at strength {group[0].strength:g} the model draws numbers that are not finite",
                hint="the adapter is broken or far too strong: spf-lora verify says more",
            )
        for w, picture in zip(group, decode(self.base, latents), strict=True):
            if not self._has(w):
                write_picture(self.folder, self.key(w), picture)


def painter(
    base: Base,
    adapter: Adapter | None,
    *,
    folder: Path,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch_size: int = BATCH,
    start_percent: float = 0.0,
) -> Painter:
    """Return what draws with a base and an adapter; their digests are computed once, here."""
    vae = tensors_digest(dict(base.vae.named_parameters()))
    return Painter(
        base=base, adapter=adapter, folder=folder, steps=steps, guidance=guidance,
        batch_size=batch_size, model_id=f"{base.id} {vae[:16]} {base.resolution}",
        adapter_id=content_id(adapter) if adapter else "", start_percent=start_percent,
    )  # fmt: skip


def _states(base: Base, prompts: Sequence[str]) -> torch.Tensor:
    unique = list(dict.fromkeys(prompts))
    rows = encode(base, unique)
    return rows[[unique.index(p) for p in prompts]]  # (batch, 77, width)
