"""Read safetensors weights and put them into a model, every tensor or none."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from spf_lora.errors import BaseModelError

Tensors = dict[str, torch.Tensor]


def read_tensors(
    files: Iterable[Path],
    wanted: Callable[[str], bool] = lambda name: True,
) -> Tensors:
    """Read the tensors of one or more safetensors files as they are stored.

    Args:
        files: shards of one model.
        wanted: tells by name whether a tensor is needed.

    Raises:
        BaseModelError: a file is damaged or no safetensors file.
    """
    tensors: Tensors = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                tensors |= {key: file.get_tensor(key) for key in file.keys() if wanted(key)}  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError) as error:
            raise unreadable(path, error) from error
    return tensors


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a safetensors file without reading the tensors.

    Raises:
        BaseModelError: the file is damaged or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> BaseModelError:
    """Return the error for a file that is not what its name says."""
    return BaseModelError(
        f"{path} cannot be read as safetensors: {str(error).splitlines()[0]}",
        hint="fetch it again; a pickled .ckpt does not become safetensors by its name",
    )


def fill(model: Any, tensors: Mapping[str, torch.Tensor], what: str) -> Any:
    """Give a model its weights; return it frozen and in evaluation mode.

    Args:
        model: its weights may be on the meta device.
        tensors: by the model's own names, of any floating dtype.
        what: the part's name, for the reader of an error.

    Raises:
        BaseModelError: tensors are missing, unknown or of another shape; they are named.
    """
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    given = {name: tensor for name, tensor in tensors.items() if name in shapes}
    faults = [
        _listed("lacks", sorted(set(shapes) - set(given))),
        _listed("does not know", sorted(set(tensors) - set(shapes))),
        _listed(
            "has in another shape",
            sorted(name for name, tensor in given.items() if tuple(tensor.shape) != shapes[name]),
        ),
    ]
    if any(faults):
        raise BaseModelError(
            f"the {what} {'; it '.join(fault for fault in faults if fault)}",
            hint="this is no Stable Diffusion 1.x model, or its download was cut short",
        )
    model.load_state_dict(given, strict=False, assign=True)
    return model.requires_grad_(False).eval()


def _listed(verb: str, names: list[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{verb} {', '.join(names[:2])}{more}" if names else ""
