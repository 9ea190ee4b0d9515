"""Which text states choose the selective subspace: those that ask, against those that do not."""

from collections.abc import Sequence

import torch

from spf_lora.base.load import Base
from spf_lora.base.texts import encode, token_ids
from spf_lora.method.protect import Subspace, choose_subspace
from spf_lora.method.tokens import token_groups


def subspace_of_prompts(
    base: Base,
    base_prompts: Sequence[str],
    full_prompts: Sequence[str],
    *,
    others: Sequence[str],
    door: str,
    rank: int,
) -> Subspace:
    """Choose the directions by which the full prompts differ from prompts that do not ask.

    Every fourth prompt only judges the choice.

    Args:
        base: its text encoder gives the states.
        base_prompts: without the target; all their states are protected.
        full_prompts: the same with the target.
        others: prompts that ask for something else; all their states are protected.
        door: "padding" reads the end and padding tokens of the full prompts, which say the whole
            prompt, "target" the target's own tokens, "both" both.
        rank: number of directions.
    """
    asking = _door_states(base, base_prompts, full_prompts, door)
    protected = [*(encode(base, [p])[0] for p in [*base_prompts, *others, ""])]
    judged = slice(0, None, 4)

    def rest(rows: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([row for i, row in enumerate(rows) if i % 4 or len(rows) < 4])

    return choose_subspace(
        rest(asking), rest(protected), rank=rank,
        held_out_target=torch.cat(list(asking[judged])),
        held_out_protected=torch.cat(list(protected[judged])),
    )  # fmt: skip


def _door_states(
    base: Base, base_prompts: Sequence[str], full_prompts: Sequence[str], door: str
) -> list[torch.Tensor]:
    found = []
    for base_text, full_text in zip(base_prompts, full_prompts, strict=True):
        ids = [token_ids(base.tokenizer, [text]) for text in (base_text, full_text)]
        _, groups = token_groups(*ids)
        matched = groups[0].sum(dim=1) > 0
        padding = groups[0][:, -1] > 0
        wanted = {"padding": padding, "target": ~matched, "both": padding | ~matched}[door]
        found.append(encode(base, [full_text])[0][wanted.to(base.device)])
    return found
