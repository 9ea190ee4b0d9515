"""Prompts to text states, with what did not fit said aloud."""

from collections.abc import Sequence
from typing import Any

import torch


def token_ids(tokenizer: Any, prompts: Sequence[str]) -> torch.Tensor:
    """Return (batch, 77) token ids, padded and cut as SD1.5 does."""
    ids: torch.Tensor = tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    return ids


def cut_off(tokenizer: Any, prompt: str) -> str:
    """Return the end of the prompt that does not fit into the text encoder's 77 tokens, or ""."""
    tokens = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    room = tokenizer.model_max_length - 2  # start and end tokens
    if len(tokens.input_ids) <= room:
        return ""
    first: int = tokens.offset_mapping[room][0]
    return prompt[first:].strip(" ,")


@torch.no_grad()
def encode(base: Any, prompts: Sequence[str]) -> torch.Tensor:
    """Return text states (batch, 77, width) of the base's frozen text encoder."""
    ids = token_ids(base.tokenizer, prompts).to(base.device)
    states: torch.Tensor = base.text_encoder(input_ids=ids).last_hidden_state
    return states


@torch.no_grad()
def encode_pooled(base: Any, prompts: Sequence[str]) -> torch.Tensor:
    """Return the state of each prompt's end token, (batch, width): the prompt in one vector."""
    ids = token_ids(base.tokenizer, prompts).to(base.device)
    pooled: torch.Tensor = base.text_encoder(input_ids=ids).pooler_output
    return pooled
