"""Checkpoints: named groups of tensors and a few facts in one safetensors file.

Nothing is pickled: an optimizer's state is taken apart into tensors and JSON. A file is written
beside and renamed, so a kill at any moment leaves the last good one; a digest of all tells whether
it is still what was written.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from spf_lora.atomic import write_bytes
from spf_lora.documents import parse_json
from spf_lora.errors import CheckpointError

Groups = dict[str, dict[str, torch.Tensor]]
_FACTS, _DIGEST = "facts", "sha256"


def save_checkpoint(
    path: Path, groups: Mapping[str, Mapping[str, torch.Tensor]], facts: Mapping[str, Any]
) -> None:
    """Write groups of tensors and JSON facts to `path`, whole or not at all."""
    flat = {
        f"{group}|{name}": tensor.detach().cpu().contiguous().clone()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    text = json.dumps(facts, sort_keys=True)
    data = save(flat, metadata={_FACTS: text, _DIGEST: _digest(text, flat)})
    write_bytes(path, data, overwrite=True)


def _digest(facts: str, tensors: Mapping[str, torch.Tensor]) -> str:
    whole = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def load_checkpoint(path: Path) -> tuple[Groups, dict[str, Any]]:
    """Read what `save_checkpoint` wrote.

    Raises:
        CheckpointError: the file is missing, damaged or not one of ours.
    """
    groups: Groups = {}
    try:
        with safe_open(path, framework="pt") as file:
            entries = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        if entries[_DIGEST] != _digest(entries[_FACTS], tensors):
            raise ValueError("it is not as it was written")
        facts = parse_json(entries[_FACTS], finite=False)  # prodigy may grow at any rate
        for key, tensor in tensors.items():
            group, name = key.split("|", 1)
            groups.setdefault(group, {})[name] = tensor
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no checkpoint that can be read ({error})",
            hint="start again without --resume, or name the right file",
        ) from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} holds no facts", hint="start again without --resume")
    return groups, facts


def optimizer_tensors(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Take an optimizer's state apart into tensors and JSON values, keyed `<index>.<name>`."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {}
    # Not through state_dict(): bitsandbytes nests its 8-bit state there.
    for index, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                scalars[f"{index}.{name}"] = value
    for index, group in enumerate(optimizer.param_groups):  # prodigy keeps its step size there
        for name, value in group.items():
            if isinstance(value, int | float) and name != "lr":
                scalars[f"group{index}.{name}"] = value
    return tensors, scalars


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
    scalars: Mapping[str, Any],
) -> None:
    """Put back what `optimizer_tensors` took apart; the optimizer has the same parameters."""
    parameters = _parameters(optimizer)
    for key, value in {**tensors, **scalars}.items():
        index, name = key.split(".", 1)
        if index.startswith("group"):
            optimizer.param_groups[int(index.removeprefix("group"))][name] = value
            continue
        parameter = parameters[int(index)]
        if isinstance(value, torch.Tensor):
            on_cpu = name == "step" and value.dim() == 0  # torch keeps step counts on the CPU
            value = value.clone() if on_cpu else value.to(parameter.device, copy=True)
        optimizer.state[parameter][name] = value
