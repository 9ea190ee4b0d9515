"""Draw with adapters: which act, how strongly, when, on which words, and where in the picture."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from PIL import Image

from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base
from spf_lora.base.texts import encode
from spf_lora.draw.exact import asking_tokens, exactly
from spf_lora.draw.late import Late, starts_of_each
from spf_lora.draw.local import Asking, sample_locally
from spf_lora.draw.prompts import Prompt, late_of
from spf_lora.draw.sample import BATCH, GUIDANCE, PLAIN, STEPS, Style, decode, sample_latents
from spf_lora.draw.weights import attached
from spf_lora.errors import PromptError


@dataclass(frozen=True, eq=False)
class Acting:
    """Which adapters act while pictures are drawn, how strongly, when, on which words and where.

    Attributes:
        adapters: drawn with together.
        strengths: of each.
        starts: share of the time steps before each acts.
        words: what asks for each, which then acts on these words alone (`--exact`); empty:
            adapters are added to the weights, as every app does.
        local: whether they change the base's picture in the control map only (`--local`).
    """

    adapters: tuple[Adapter, ...] = ()
    strengths: tuple[float, ...] = ()
    starts: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    local: bool = False

    def at(self, strength: float) -> "Acting":
        """Return the same with all strengths multiplied; with 0 nothing acts."""
        if not strength:
            return NOTHING
        return replace(self, strengths=tuple(strength * own for own in self.strengths))

    @contextmanager
    def on(self, base: Base, texts: Sequence[str]) -> Iterator[None]:
        """Put the adapters on the base for a batch of these prompts, while the context lasts.

        Raises:
            AdapterFileError: the base has not the modules, or not their shapes.
        """
        rows = list(zip(self.adapters, self.strengths, strict=True))
        with ExitStack() as switched:
            if not self.words:
                starts = self.starts or 0.0
                added = attached(
                    base.unet, rows, text_encoder=base.text_encoder, start_percent=starts
                )
                switched.enter_context(added)
                yield
                return
            for (adapter, strength), words in zip(rows, self.words, strict=True):
                tokens = torch.stack([asking_tokens(base.tokenizer, t, words) for t in texts])
                start = self.starts[0] if self.starts else 0.0
                on = exactly(base.unet, adapter, strength, tokens, start_percent=start)
                switched.enter_context(on)
            yield


NOTHING = Acting()


def acting(
    adapters: Sequence[tuple[Adapter, float]] | Adapter | None,
    *,
    start_percent: float | Sequence[float] = 0.0,
    words: Sequence[str] = (),
    local: bool = False,
) -> Acting:
    """Return adapters that act.

    Args:
        adapters: with their strengths; one alone has strength 1.
        start_percent: of all adapters, or of each.
        words: see `Acting`.
        local: see `Acting`.

    Raises:
        PromptError: adapters that act on their words alone begin at different steps.
    """
    rows = [(adapters, 1.0)] if isinstance(adapters, Adapter) else list(adapters or ())
    starts = starts_of_each(start_percent, len(rows))
    if words and len(set(starts)) > 1:
        raise PromptError(
            "adapters that act on their words alone cannot begin at different steps",
            hint="give one share for all: start_percent=0.1",
        )
    return Acting(
        tuple(adapter for adapter, _ in rows),
        tuple(strength for _, strength in rows),
        starts,
        tuple(words) if rows else (),
        local,
    )


def draw_latents(
    base: Base,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    acting: Acting = NOTHING,
    *,
    steps: int,
    guidance: float,
    style: Style = PLAIN,
    size: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Return scaled latents (batch, channels, h, w) of one batch of one kind; see `draw`."""
    how: dict[str, Any] = {"steps": steps, "guidance": guidance, "style": style, "size": size}
    if acting.local and all(prompt.within is not None for prompt in prompts):
        return sample_locally(base, seeds=seeds, **asked_locally(base, prompts, acting), **how)
    texts = [prompt.text for prompt in prompts]
    with acting.on(base, texts):
        return sample_latents(base, text_states(base, texts), seeds, late=late_of(prompts), **how)


def asked_locally(base: Base, prompts: Sequence[Prompt], acting: Acting) -> dict[str, Any]:
    """Return what `draw_locally` is given for prompts that are `within` others, but seeds and how.

    Args:
        base: the model, with no adapter on.
        prompts: one per picture; each says the text whose picture is left in the control map only.
        acting: the adapters.
    """
    texts = [prompt.text for prompt in prompts]
    within = [prompt.within or "" for prompt in prompts]
    frozen = text_states(base, within)

    def asking(texts: Sequence[str]) -> torch.Tensor:
        with acting.on(base, texts):
            states = text_states(base, texts)
        same = torch.tensor([a == b for a, b in zip(texts, within, strict=True)])
        return torch.where(same.to(states.device)[:, None, None], frozen, states)

    each = []
    for rows in zip(*(prompt.each for prompt in prompts), strict=True):
        alone, start = [text for text, _ in rows], rows[0][1]
        begins = [Late(within, start)] if start else []
        each.append(Asking(asking(alone), partial(acting.on, base, alone), begins))
    return {
        "states": asking(texts),
        "within": frozen,
        "acting": partial(acting.on, base, texts),
        "each": each,
        "late": late_of(prompts),
    }


def draw(
    base: Base,
    prompts: Sequence[str | Prompt],
    seeds: Sequence[int],
    acting: Acting = NOTHING,
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    style: Style = PLAIN,
    size: tuple[int, int] | None = None,
    batch_size: int = BATCH,
    on_batch: Callable[[int], None] | None = None,
) -> list[Image.Image]:
    """Draw one picture per prompt and seed.

    Args:
        base: the model.
        prompts: one per picture.
        seeds: one per picture; the same seed starts from the same noise.
        acting: the adapters that act.
        steps: DDIM steps.
        guidance: scale of classifier-free guidance (arXiv 2207.12598, eq. 6, w + 1).
        style: sampler and negative prompt.
        size: height and width of the latents; by default the base's own square.
        batch_size: pictures drawn at once.
        on_batch: called with how many pictures are done.
    """
    rows = [Prompt(one) if isinstance(one, str) else one for one in prompts]
    pictures: dict[int, Image.Image] = {}
    kinds: dict[tuple[bool, tuple[float, ...]], list[int]] = {}
    for place, row in enumerate(rows):
        kinds.setdefault(row.kind(), []).append(place)
    for places in kinds.values():
        for i in range(0, len(places), batch_size):
            batch = places[i : i + batch_size]
            latents = draw_latents(
                base,
                [rows[place] for place in batch],
                [seeds[place] for place in batch],
                acting,
                steps=steps,
                guidance=guidance,
                style=style,
                size=size,
            )
            pictures |= dict(zip(batch, decode(base, latents), strict=True))
            if on_batch:
                on_batch(len(pictures))
    return [pictures[place] for place in range(len(rows))]


def text_states(base: Base, texts: Sequence[str]) -> torch.Tensor:
    """Return the text states (batch, 77, width); a text that is there often is encoded once."""
    unique = list(dict.fromkeys(texts))
    rows = encode(base, unique)
    return rows[[unique.index(text) for text in texts]]
