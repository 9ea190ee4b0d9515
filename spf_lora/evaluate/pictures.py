"""Draw what is not in the cache: one U-Net call for many prompts and seeds.

Pictures are drawn in fixed groups of one strength, so that an evaluation that was killed and goes
on draws the very same pictures.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from spf_lora.adapters.attach import attached, starts_of_each
from spf_lora.adapters.combine import combined
from spf_lora.adapters.hashes import content_id
from spf_lora.adapters.module import Adapter
from spf_lora.base.identity import tensors_digest
from spf_lora.base.load import Base
from spf_lora.base.sample import BATCH, GUIDANCE, STEPS, Late, decode, sample_latents
from spf_lora.base.texts import encode
from spf_lora.errors import MeasureError
from spf_lora.evaluate.gallery import Ingredients, has_picture, write_picture
from spf_lora.method.exact import asking_tokens, exactly
from spf_lora.method.local import Asking, sample_locally

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
        within: the prompt whose picture is left in the control map only, as no other app can draw;
            or None: the whole picture may differ.
        each: prompts that ask for one of several attributes each, whose maps are joined.
    """

    prompt: str
    seed: int
    strength: float = 0.0
    before: tuple[tuple[str, float], ...] = ()
    within: str | None = None
    each: tuple[str, ...] = ()

    def until(self, share: float) -> str:
        """Return the prompt that is drawn just before this share of the time steps is over."""
        return next((prompt for prompt, end in self.before if end >= share), self.prompt)


@dataclass(frozen=True, eq=False)
class Painter:
    """A base model, adapters and a sampler: all that decides a picture but the prompt and seed.

    Attributes:
        base: the model.
        adapters: drawn with together, each at the picture's strength; or none.
        folder: the cache.
        steps: DDIM steps.
        guidance: scale of classifier-free guidance.
        batch_size: pictures drawn at once.
        model_id: digest of the base with its VAE.
        adapter_id: content id, "" for none.
        starts: share of the time steps before each adapter acts.
        exact: the words that ask for each adapter, which then acts on them alone, as no other app
            can draw; empty: adapters are added to the weights.
    """

    base: Base
    adapters: tuple[Adapter, ...]
    folder: Path
    steps: int
    guidance: float
    batch_size: int
    model_id: str
    adapter_id: str
    starts: tuple[float, ...] = ()
    exact: tuple[str, ...] = ()

    def key(self, wanted: Wanted) -> str:
        """Return where the picture is in the cache."""
        return Ingredients(
            model=self.model_id, adapter=self.adapter_id, strength=wanted.strength,
            prompt=wanted.prompt, negative="", seed=wanted.seed, sampler="ddim", steps=self.steps,
            guidance=self.guidance, starts=self.starts if any(self.starts) else (),
            before=wanted.before, exact=self.exact, within=wanted.within,
            each=wanted.each,
        ).key()  # fmt: skip

    def check(self) -> None:
        """Put the adapters on and off, so that a wrong one is refused before anything is drawn.

        Raises:
            AdapterFileError: the base has not the modules, or not their shapes.
        """
        with attached(self.base.unet, [(adapter, 0.0) for adapter in self.adapters]):
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
        for group in groups:
            self._draw_group(group)
            done += len(group)
            if on_progress:
                on_progress(done, total)
        return total

    def _groups(self, wanted: Iterable[Wanted]) -> Iterator[list[Wanted]]:
        def alike(one: Wanted) -> tuple[float, bool, int]:
            return one.strength, one.within is not None, len(one.each)

        unique = list(dict.fromkeys(wanted))
        for kind in sorted(set(map(alike, unique))):
            same = [w for w in unique if alike(w) == kind]
            for i in range(0, len(same), self.batch_size):
                yield same[i : i + self.batch_size]

    def _has(self, wanted: Wanted) -> bool:
        return has_picture(self.folder, self.key(wanted))

    @contextmanager
    def _acting(self, strength: float, prompts: Sequence[str]) -> Iterator[None]:
        """Put the adapters on, for a batch of these prompts."""
        with ExitStack() as acting:
            if strength and self.exact:
                for adapter, words in zip(self.adapters, self.exact, strict=True):
                    asking = [asking_tokens(self.base.tokenizer, p, words) for p in prompts]
                    acting.enter_context(
                        exactly(
                            self.base.unet, adapter, strength, torch.stack(asking),
                            start_percent=self.starts[0],
                        )
                    )  # fmt: skip
            elif strength:
                rows = [(adapter, strength) for adapter in self.adapters]
                acting.enter_context(attached(self.base.unet, rows, start_percent=self.starts))
            yield

    def _draw_group(self, group: Sequence[Wanted]) -> None:
        strength, seeds = group[0].strength, [w.seed for w in group]
        prompts = [w.prompt for w in group]
        ends = {end for w in group for _, end in w.before if w.strength}
        late = [Late([w.until(end) for w in group], end) for end in ends]
        states = _states(self.base, prompts)
        draw: Callable[..., torch.Tensor] = sample_latents
        acting = partial(self._acting, strength, prompts)
        within = [w.within for w in group if w.within is not None]
        if strength and within:
            each = [
                Asking(_states(self.base, alone), partial(self._acting, strength, alone))
                for alone in zip(*(w.each for w in group), strict=True)
            ]
            states_within = _states(self.base, within)
            draw = partial(sample_locally, within=states_within, acting=acting, each=each)
        with nullcontext() if within else acting():
            latents = draw(
                self.base, states, seeds, steps=self.steps, guidance=self.guidance, late=late
            )
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
    adapter: Adapter | Sequence[Adapter] | None,
    *,
    folder: Path,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch_size: int = BATCH,
    start_percent: float | Sequence[float] = 0.0,
    exact: Sequence[str] = (),
) -> Painter:
    """Return what draws with a base and adapters; their digests are computed once, here.

    `start_percent` is of all adapters, or of each; `exact` names each one's words.
    """
    adapters = (adapter,) if isinstance(adapter, Adapter) else tuple(adapter or ())
    whole = adapters[0] if len(adapters) == 1 else combined([(part, 1.0) for part in adapters])
    starts = starts_of_each(start_percent, len(adapters))
    assert not exact or len(set(starts)) == 1, "the words of one would move those of another"
    vae = tensors_digest(dict(base.vae.named_parameters()))
    return Painter(
        base=base, adapters=adapters, folder=folder, steps=steps, guidance=guidance,
        batch_size=batch_size, model_id=f"{base.id} {vae[:16]} {base.resolution}",
        adapter_id=content_id(whole) if adapters else "",
        starts=starts,
        exact=tuple(exact) if adapters else (),
    )  # fmt: skip


def _states(base: Base, prompts: Sequence[str]) -> torch.Tensor:
    unique = list(dict.fromkeys(prompts))
    rows = encode(base, unique)
    return rows[[unique.index(p) for p in prompts]]  # (batch, 77, width)
