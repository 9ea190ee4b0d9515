"""How strongly a trained adapter acts at strength 1: no more than it takes to answer (ours).

Guidance multiplies what a prompt adds to the prediction. An adapter that leaves the empty prompt
alone adds all it learned to what is multiplied, so it acts more than it was taught; what it does
beyond its answer is pollution.
"""

from collections.abc import Sequence
from itertools import takewhile

import torch

from spf_lora.adapters.attach import set_alpha
from spf_lora.base.clip import ClipModel
from spf_lora.base.load import Base
from spf_lora.draw.late import Late, switched_by_time
from spf_lora.training.prepare import own_pictures

DOSES, ENOUGH = (0.25, 0.5, 0.75, 1.0), 0.95
STARTS, STILL_ENOUGH = (0.1, 0.2, 0.3, 0.4, 0.5), 0.9
PROMPTS, START_PROMPTS = 16, 48  # fewer let blonde hair begin at 0.1, where it answers less


@torch.no_grad()
def find_dose(
    base: Base, clip: ClipModel, prompts: Sequence[tuple[str, str]], *, alpha: float
) -> float:
    """Return the least share of an adapter's alpha that answers nearly as well as the best.

    The adapter on the base's U-Net is left at `alpha` times that share.

    Args:
        base: draws with the adapter on.
        clip: judges whether a picture shows what was asked; see `answers`.
        prompts: without and with the target; the first `PROMPTS` are drawn.
        alpha: what the adapter was trained with.
    """
    found = {}
    for dose in DOSES:
        set_alpha(base.unet, alpha * dose)
        found[dose] = answers(base, clip, prompts[:PROMPTS])
    best = max(found.values())
    dose = next((dose for dose, answered in found.items() if answered >= ENOUGH * best), DOSES[-1])
    set_alpha(base.unet, alpha * dose)
    return dose


@torch.no_grad()
def find_start(
    base: Base, clip: ClipModel, prompts: Sequence[tuple[str, str]], *, alpha: float
) -> float:
    """Return the largest share of the time steps after which the target may be asked for.

    What is decided before it, at large time steps, is the picture's layout, not the attribute; an
    adapter that acts there moves it (T-LoRA, arXiv 2507.05964, sees the same in training), and so
    do its words. Until then the adapter is off and the prompt without the target is drawn.

    Args:
        base: draws with the adapter on, whose alpha is `alpha`.
        clip: see `answers`.
        prompts: without and with the target; the first `START_PROMPTS` are drawn.
        alpha: of the adapter at strength 1.
    """

    def late(start: float) -> float:
        with switched_by_time(base.unet, [start], lambda on: set_alpha(base.unet, alpha * on)):
            return answers(base, clip, prompts[:START_PROMPTS], start_percent=start)

    wanted = STILL_ENOUGH * late(0.0)
    return max(takewhile(lambda start: late(start) >= wanted, STARTS), default=0.0)


def answers(
    base: Base, clip: ClipModel, prompts: Sequence[tuple[str, str]], *, start_percent: float = 0.0
) -> float:
    """Return how surely pictures show the target, in [0, 1]: the mean over prompts.

    Each is drawn from its full prompt, until `start_percent` of the time steps from its base
    prompt; CLIP chooses between the two.
    """
    without, asking = ([pair[side] for pair in prompts] for side in (0, 1))
    total = 0.0
    pictures = own_pictures(base, asking, late=[Late(without, start_percent)])
    for row, texts in zip(pictures, zip(asking, without, strict=True), strict=True):
        picture = base.vae.decode(row[None] / base.vae.config.scaling_factor).sample
        cosines = clip.embed_text(texts) @ clip.embed_image(picture.clamp(-1, 1))[0]
        total += (clip.scale * cosines.float()).softmax(0)[0].item()
    return total / len(prompts)
