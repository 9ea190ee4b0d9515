"""The selective subspace: which directions of the text states an adapter may read (ours).

On keys and values an adapter sees nothing but text states. The directions chosen here carry much of
the target and next to nothing of states that must not move, so prompts that never ask barely reach
the adapter; the result is an ordinary LoRA that every app loads. See docs/method.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

LEAST_SELECTIVE = 10.0  # below it some 40 other tokens outweigh the target's (docs/method.md)
RIDGE = 1e-4  # of the protected states' mean energy; below it rounding decides the directions


@dataclass(frozen=True, eq=False)
class Subspace:
    """Directions an adapter may read.

    Attributes:
        basis: orthonormal, (width, rank).
        selectivity: energy of the target's states over that of the protected ones in the span,
            per token, on states that did not choose it.
        leak: largest share of a protected state's energy that lies in the span.
    """

    basis: torch.Tensor
    selectivity: float
    leak: float


def choose_subspace(
    target: torch.Tensor,
    protected: torch.Tensor,
    *,
    rank: int,
    held_out_target: torch.Tensor,
    held_out_protected: torch.Tensor,
    ridge: float = RIDGE,
) -> Subspace:
    """Return the span of the leading generalised eigenvectors of target against protected energy.

    The w of C_target w = lambda (C_protected + ridge) w with the largest lambda, C the
    uncentred second moments.

    Args:
        target: states that should be read, (n, width).
        protected: states that must not be, (m, width).
        rank: number of directions, at most width.
        held_out_target: states like `target` for judging only.
        held_out_protected: states like `protected` for judging only.
        ridge: share of the protected states' mean energy added to every direction.
    """
    wanted = _moment(target)
    width = wanted.shape[0]
    against = _moment(protected)
    against += ridge * against.diagonal().mean() * torch.eye(width, dtype=torch.float64)
    lower = torch.linalg.cholesky(against)
    half = torch.linalg.solve_triangular(lower, wanted, upper=False)
    core = torch.linalg.solve_triangular(lower, half.T, upper=False)  # L^-1 C_target L^-T
    _, vectors = torch.linalg.eigh((core + core.T) / 2)  # ascending
    leading = torch.linalg.solve_triangular(lower.T, vectors[:, -rank:], upper=True)
    basis = torch.linalg.qr(leading.flip(1))[0]  # (width, rank)
    read, leaked = _shares(held_out_target, basis), _shares(held_out_protected, basis)
    ratio = read.mean() / leaked.mean().clamp(min=1e-12)
    return Subspace(basis.float(), ratio.item(), leaked.max().item())


def _moment(states: torch.Tensor) -> torch.Tensor:
    wide = states.double().cpu()
    return wide.T @ wide / len(wide)


def _shares(states: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    wide = states.double().cpu()
    return (wide @ basis).square().sum(-1) / wide.square().sum(-1).clamp(min=1e-12)


def reads_text(name: str) -> bool:
    """Tell whether a layer reads text states: keys and values of cross-attention."""
    return ".attn2.to_k." in name or ".attn2.to_v." in name


@torch.no_grad()
def project_(
    parameters: Mapping[str, torch.nn.Parameter], basis: torch.Tensor, *, lengths: bool = False
) -> None:
    """Keep every down factor that reads text in the span of `basis`, in place.

    Args:
        parameters: the adapter's, by peft's names; `lora_A` is the down factor, (rank, width).
        basis: orthonormal, (width, directions).
        lengths: give each row back its length. One direction of `width` keeps 1 / sqrt(width) of a
            random row; so short, what reads the text learns last, and what reads the picture, and
            cannot tell who asked, learns in its stead.
    """
    for name, parameter in parameters.items():
        if ".lora_A." in name and reads_text(name):
            span = basis.to(parameter)
            inside = parameter @ span @ span.T  # (rank, width)
            if lengths:
                before, after = (rows.norm(dim=1, keepdim=True) for rows in (parameter, inside))
                inside *= before / after.clamp(min=1e-12)
            parameter.copy_(inside)
