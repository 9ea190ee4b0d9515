"""Which prompts must stay as they are, and which text states choose the selective subspace."""

from collections.abc import Sequence

import torch

from spf_lora.adapters.format.card import attribute_of
from spf_lora.base.load import Base
from spf_lora.base.texts import encode, token_ids
from spf_lora.data.captions import full_prompt, has_target
from spf_lora.method.protect import Subspace, choose_subspace
from spf_lora.method.tokens import token_groups
from spf_lora.recipe.schema import Attribute
from spf_lora.registry.onto import Below


def taught(under: Below) -> list[Attribute]:
    """Return the attributes of the adapters that are on; those without a card say none."""
    cards = [known.card for known, _ in under.members if known.card]
    return [attribute_of(card) for card in cards if card.target_text]


def protected_prompts(
    prompts: Sequence[str], attribute: Attribute, under: Below
) -> list[tuple[str, str]]:
    """Return the prompts that the base draws itself, without and with the target.

    With nothing below they are the base prompts. With adapters below, each in turn is asked for
    too, so that the new adapter learns to leave alone what they draw, and to come to it when both
    are asked for; every so many prompts ask for none of them.
    """
    others = taught(under)
    found = []
    for index, prompt in enumerate(prompts):
        turn = index % (len(others) + 1)
        asked = full_prompt(prompt, others[turn - 1]) if turn else prompt
        if has_target(asked, attribute):  # what the other is called means the target too
            asked = prompt
        found.append((asked, full_prompt(asked, attribute)))
    return found


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
