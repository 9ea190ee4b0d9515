"""Which token of the full prompt is which token of the base prompt."""

import torch


def token_groups(
    base_ids: torch.Tensor, full_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Match two prompts that differ in one place, whether phrases were appended or replaced.

    What both begin with and what both end with is matched token by token; the end and padding
    tokens are one group; the target's own tokens (and what they replaced) belong to none.

    Args:
        base_ids: (batch, tokens) ids, padded with the end token.
        full_ids: same shape.

    Returns:
        Two (batch, tokens, tokens) 0/1 matrices, for the base and the full prompt: column g has
        the tokens of group g; the last column is the padding.
    """
    size = base_ids.shape[1]
    groups = torch.zeros(2, len(base_ids), size, size)
    for row, (base, full) in enumerate(zip(base_ids.tolist(), full_ids.tolist(), strict=True)):
        ends = [ids.index(ids[-1]) if ids[-1] in ids[:-1] else size - 1 for ids in (base, full)]
        shorter = min(ends)
        head = next((i for i in range(shorter) if base[i] != full[i]), shorter)
        tail = 0
        while tail < shorter - head and base[ends[0] - 1 - tail] == full[ends[1] - 1 - tail]:
            tail += 1
        for side, end in enumerate(ends):
            for g in range(head):
                groups[side, row, g, g] = 1
            for g in range(tail):
                groups[side, row, end - tail + g, head + g] = 1
            groups[side, row, end:, size - 1] = 1
    return groups[0], groups[1]
