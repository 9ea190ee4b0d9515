"""Where in a picture the base draws what some words mean: its own cross-attention tells."""

from collections.abc import Sequence

import torch
from torch.nn.functional import interpolate

from spf_lora.base.load import Base
from spf_lora.base.texts import encode
from spf_lora.draw.sample import SamplerStep
from spf_lora.method.attention import recording
from spf_lora.method.control_map import control_map, relative, smooth

_LOOKS = 4  # steps of the sampler at which attention is read
_LEAST_SIDE = 4  # of a layer's map; coarser ones tell no place
_AREA_CAP = 0.8


@torch.no_grad()
def places_of(
    base: Base, prompts: Sequence[str], track: Sequence[SamplerStep], words: Sequence[str]
) -> torch.Tensor:
    """Return where pictures show what words mean, (batch, 1, h, w) in [0, 1]; 0 for no words.

    The attention of each word's tokens, at the end of the prompt, is summed over layers and steps
    (as DAAM does, arXiv 2210.04885) and parted by Otsu's threshold; places of words are joined.

    Args:
        base: the frozen model.
        prompts: of the pictures.
        track: how they were drawn.
        words: such as "face" or "a grey background".
    """
    found = torch.zeros_like(track[0].noisy[:, :1])
    looks = track[len(track) // 3 :: max(1, len(track) // (2 * _LOOKS))][:_LOOKS]
    for word in words:
        texts = [f"{prompt}, {word}" for prompt in prompts]
        states, tokens = encode(base, texts), _last_tokens(base, texts, word)
        heat = sum(_heat(base, step, states, tokens) for step in looks)
        assert isinstance(heat, torch.Tensor)  # there is a step
        found = torch.maximum(found, control_map(relative(smooth(heat)), area_cap=_AREA_CAP))
    return found


def _last_tokens(base: Base, texts: Sequence[str], word: str) -> torch.Tensor:
    """Return (batch, 77) 1 on the tokens of the word that each text ends with."""
    rows = torch.zeros(len(texts), base.tokenizer.model_max_length)
    for row, text in enumerate(texts):
        known = base.tokenizer(
            text, truncation=True, max_length=rows.shape[1], return_offsets_mapping=True
        )
        for token, (start, end) in enumerate(known.offset_mapping):
            rows[row, token] = float(end > start >= len(text) - len(word))
    return rows.to(base.device)


def _heat(
    base: Base, step: SamplerStep, states: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Return how much each place attends to the tokens, (batch, 1, h, w)."""
    height, width = step.noisy.shape[-2:]
    total = torch.zeros_like(step.noisy[:, :1])
    with recording(base.unet) as recorder:
        base.unet(step.noisy, step.t, states, return_dict=False)
        for layer in recorder.queries:
            attention = recorder.attention(layer).float() @ tokens[:, :, None]
            rows = round((attention.shape[1] * height / width) ** 0.5)
            if rows >= _LEAST_SIDE:
                places = attention.reshape(len(total), 1, rows, -1)
                total += interpolate(places, (height, width), mode="bilinear", align_corners=False)
    return total
