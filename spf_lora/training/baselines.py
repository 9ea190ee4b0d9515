"""The rivals, trained by the same loop on the same data: each a row with its source.

Each row says what its source leaves open and we had to choose; `weight` is the recipe's
`training.rival_weight`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from spf_lora.adapters.attach import adapter_off
from spf_lora.method import losses
from spf_lora.training.batch import Batch, of_batch
from spf_lora.training.objectives import Outcome
from spf_lora.training.prepare import Prepared

Terms = dict[str, torch.Tensor]
_PRIOR_SHARE = 0.5  # of prior preservation's samples


@dataclass(frozen=True)
class Rival:
    """A training method that is not ours.

    Attributes:
        source: where it is described.
        chosen: what we had to choose.
        terms: unet, data, batch -> the weighted terms, summed to the loss.
        forwards: of the U-Net in a step of one sample; its backward pass counts as one.
        weight: of its own term, unless the recipe says otherwise.
        own_share: of its samples that are the base's own pictures, under their base prompts.
        masks: whether it needs to be told where the attribute is.
    """

    source: str
    chosen: str
    terms: Callable[[Any, Prepared, Batch, float], Terms]
    forwards: int
    weight: float = 1.0
    own_share: float = 0.0
    masks: bool = False


def _eps(unet: Any, batch: Batch, states: torch.Tensor) -> torch.Tensor:
    eps: torch.Tensor = unet(batch.noisy, batch.t, states, return_dict=False)[0]
    return eps


def _frozen(unet: Any, batch: Batch, states: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), adapter_off(unet):
        return _eps(unet, batch, states)


def _plain(unet: Any, data: Prepared, batch: Batch, weight: float) -> Terms:
    """Denoising alone."""
    return {"denoise": losses.denoise(_eps(unet, batch, batch.full_states), batch.noise)}


def _l2(unet: Any, data: Prepared, batch: Batch, weight: float) -> Terms:
    """Denoising, and the prediction is pulled to the frozen model's on the same full prompt."""
    wanted = _frozen(unet, batch, batch.full_states)
    eps = _eps(unet, batch, batch.full_states)
    return {
        "denoise": losses.denoise(eps, batch.noise),
        "base": weight * losses.denoise(eps, wanted),
    }


def _prior(unet: Any, data: Prepared, batch: Batch, weight: float) -> Terms:
    """Denoising of the pictures, and of the base's own pictures under their base prompts."""
    error = _eps(unet, batch, batch.full_states) - batch.noise
    each = error.square().mean(dim=(1, 2, 3))
    # each kind by its share of all batches, so that passes and processes add up
    return {
        "denoise": (each * batch.real).mean() / (1 - _PRIOR_SHARE),
        "prior": weight * (each * (1 - batch.real)).mean() / _PRIOR_SHARE,
    }


def _dop(unet: Any, data: Prepared, batch: Batch, weight: float) -> Terms:
    """Denoising, and on the base prompt the adapter answers as the frozen model does."""
    wanted = _frozen(unet, batch, batch.base_states)
    return {
        "denoise": losses.denoise(_eps(unet, batch, batch.full_states), batch.noise),
        "preserve": weight * losses.denoise(_eps(unet, batch, batch.base_states), wanted),
    }


def _dco(unet: Any, data: Prepared, batch: Batch, weight: float) -> Terms:
    """-log sigmoid(-beta (error - the frozen model's error)), beta the weight."""
    frozen = _frozen(unet, batch, batch.full_states)
    before = (frozen - batch.noise).square().mean(dim=(1, 2, 3))
    now = (_eps(unet, batch, batch.full_states) - batch.noise).square().mean(dim=(1, 2, 3))
    return {"consistency": -logsigmoid(-weight * (now - before)).mean()}


def _masked_prior(unet: Any, data: Prepared, batch: Batch, weight: float) -> Terms:
    """Denoising inside the mask; outside it the frozen model's answer to the same prompt."""
    assert data.masks is not None
    mask = of_batch(data.masks, batch)
    wanted = _frozen(unet, batch, batch.full_states)
    eps = _eps(unet, batch, batch.full_states)
    return {
        "denoise": losses.denoise(eps, batch.noise, mask),
        "prior": weight * losses.denoise(eps, wanted, 1 - mask),
    }


RIVALS: dict[str, Rival] = {
    "plain": Rival(
        "LoRA (arXiv 2106.09685) as diffusers' train_text_to_image_lora.py sets it up",
        "its target layers; rank, rate and steps are ours",
        _plain,
        2,
    ),
    "l2-to-base": Rival(
        "a penalty on leaving the frozen model, common in fine-tuning; no one source",
        "the prediction on the full prompt is held, everywhere and with weight 1",
        _l2,
        3,
    ),
    "prior-preservation": Rival(
        "DreamBooth, arXiv 2208.12242, eq. 2",
        "one of the base's own pictures for each training picture, under its base prompt; weight 1",
        _prior,
        2,
        own_share=_PRIOR_SHARE,
    ),
    "dop": Rival(
        "ai-toolkit, differential output preservation",
        "the base prompt stands for its class prompt, on the training pictures; weight 1",
        _dop,
        5,
    ),
    "dco": Rival(
        "Direct Consistency Optimization, arXiv 2402.12004",
        "beta 1000; no guidance of its own while drawing, so that all are drawn alike",
        _dco,
        3,
        weight=1000,
    ),
    "masked-prior": Rival(
        "OneTrainer, masked training with prior preservation",
        "the mask is the renderer's true region, the prior is on the full prompt; weight 1",
        _masked_prior,
        3,
        masks=True,
    ),
}


class RivalObjective:
    """A row of `RIVALS` as the trainer's objective."""

    def __init__(self, unet: Any, data: Prepared, rival: Rival, *, weight: float) -> None:
        self.unet, self.data, self.rival, self.weight = unet, data, rival, weight

    def __call__(self, batch: Batch) -> Outcome:
        """Return the row's terms and their sum."""
        terms = self.rival.terms(self.unet, self.data, batch, self.weight)
        loss = torch.stack(list(terms.values())).sum()
        return Outcome(loss, {name: term.item() for name, term in terms.items()})
