"""Which text states choose the selective subspace, and what keeps an adapter to it."""

from collections.abc import Callable, Mapping, Sequence

import torch

from spf_lora.base.load import Base
from spf_lora.base.texts import encode, token_ids
from spf_lora.data.captions import full_prompt, has_target
from spf_lora.method.protect import LEAST_SELECTIVE, Subspace, choose_subspace, project_
from spf_lora.method.tokens import token_groups
from spf_lora.recipe.files import list_recipes
from spf_lora.recipe.load import load_recipe
from spf_lora.recipe.schema import Recipe
from spf_lora.registry.onto import Below
from spf_lora.training.teach import taught


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


def kept_to_subspace(
    recipe: Recipe, base: Base, prompts: Sequence[str], under: Below,
    parameters: Mapping[str, torch.nn.Parameter],
) -> tuple[Callable[[], None], tuple[str, ...]]:  # fmt: skip
    """Choose what keys and values may read; return what keeps them to it, and what to tell."""
    if recipe.adapter.subspace == 0 or recipe.training.method != "ours":
        return lambda: None, ()
    chosen = subspace_of_prompts(
        base, prompts, [full_prompt(p, recipe.attribute) for p in prompts],
        others=_other_prompts(recipe, prompts, under), door=recipe.adapter.door,
        rank=recipe.adapter.subspace,
    )  # fmt: skip
    found = (
        f"keys and values read what asks for it {chosen.selectivity:.0f} times as strongly as "
        f"what does not; at most {chosen.leak:.2%} of a state that does not ask gets through"
    )
    if chosen.selectivity < LEAST_SELECTIVE:
        return lambda: None, (f"{found}: too little to choose by, so they read everything",)
    project_(parameters, chosen.basis, lengths=True)
    return lambda: project_(parameters, chosen.basis), (found,)


def _other_prompts(recipe: Recipe, prompts: Sequence[str], under: Below) -> list[str]:
    """Return prompts that ask for other attributes: those of the other recipes and of `under`."""
    others = []
    known = [load_recipe(path).attribute for path in list_recipes(shipped_only=True).values()]
    for other in {one.target_text: one for one in (*known, *taught(under))}.values():
        if other.name != recipe.attribute.name:
            others += [full_prompt(p, other) for p in prompts[::4]]
    return [p for p in others if not has_target(p, recipe.attribute)]
