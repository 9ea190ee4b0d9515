"""Adapters in our own runtime that act on the words that ask for them and on nothing else (ours).

A stock loader adds an adapter to the weights, so it acts on every prompt. Here its update of keys
and values is added on the target's tokens and those behind them only (the text encoder is causal:
the ones before are the same with the target and without), and every other update only where the
prompt asks at all. A prompt that does not ask gives the base model, bit for bit. It cannot be
exported.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import conv2d, linear

from spf_lora.adapters.module import Adapter, Module
from spf_lora.draw.late import switched_by_time
from spf_lora.errors import AdapterFileError


def asking_tokens(tokenizer: Any, prompt: str, target_text: str) -> torch.Tensor:
    """Return (77,) 1 on the target's first token and all behind it, all 0 if it is not asked for.

    Args:
        tokenizer: the base's.
        prompt: the whole prompt.
        target_text: looked for as whole words, in any case.
    """
    size = tokenizer.model_max_length
    mask = torch.zeros(size)
    place = re.search(rf"(?<!\w){re.escape(target_text)}(?!\w)", prompt, re.IGNORECASE)
    if place is None:
        return mask
    pieces = tokenizer(prompt, truncation=True, max_length=size, return_offsets_mapping=True)
    for token, (start, end) in enumerate(pieces.offset_mapping):
        if end > start and end > place.start():
            mask[token:] = 1
            break
    return mask


@contextmanager
def exactly(
    unet: nn.Module,
    adapter: Adapter,
    strength: float,
    tokens: torch.Tensor,
    *,
    start_percent: float = 0.0,
) -> Iterator[None]:
    """Let an adapter act on the asking tokens only, while the context lasts.

    Args:
        unet: runs on batches whose first half are empty prompts, as guidance does, and whose second
            half are the prompts that `tokens` belong to.
        adapter: for this U-Net.
        strength: of its update.
        tokens: from `asking_tokens`, of one prompt for all (77,) or of each (batch, 77).
        start_percent: see `attached`.

    Raises:
        AdapterFileError: the U-Net has not the adapter's module.
    """
    if not tokens.any():
        yield
        return
    handles = []
    acts = [True]
    try:
        for name, module in adapter.modules.items():
            try:
                layer = unet.get_submodule(name.removeprefix("unet."))
            except AttributeError as error:
                raise AdapterFileError(
                    f"the U-Net has no module {name} for this adapter",
                    hint="one with a part for the text encoder changes how all words are read, so "
                    "it cannot act on its own alone: leave --exact out",
                ) from error
            hook = _hook(module, strength, tokens, layer, acts)
            handles.append(layer.register_forward_hook(hook))
        with switched_by_time(unet, [start_percent], lambda n: acts.__setitem__(0, n > 0)):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(
    module: Module, strength: float, tokens: torch.Tensor, layer: nn.Module, acts: list[bool]
) -> Any:
    weight = next(layer.parameters())
    down, up = (
        torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)).to(weight)
        for part in (module.down, module.up)
    )
    scale = strength * module.scale
    tokens = tokens.reshape(-1, tokens.shape[-1]) > 0  # (1 or batch, 77)
    reads_text = module.name.endswith((".attn2.to_k", ".attn2.to_v"))
    asks = tokens if reads_text else tokens.any(dim=1, keepdim=True)

    def hook(_layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        if not acts[0]:
            return output
        given = inputs[0]
        if isinstance(layer, nn.Conv2d):
            kernel = down.reshape(down.shape[0], given.shape[1], *layer.kernel_size)
            middle = conv2d(given, kernel, None, layer.stride, layer.padding)
            update = conv2d(middle, up.reshape(up.shape[0], up.shape[1], 1, 1))
        else:
            update = linear(linear(given, down.flatten(1)), up.flatten(1))
        prompts_ask = asks.to(output.device).expand(len(output) // 2, -1)
        where = torch.cat([torch.zeros_like(prompts_ask), prompts_ask])  # (2 * batch, 77 or 1)
        where = where.reshape(*where.shape, *(1 for _ in output.shape[2:]))
        return torch.where(where, output + scale * update, output)

    return hook
