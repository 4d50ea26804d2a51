"""Gradient reversal: two parts of a model that want opposite things, trained by one backward pass."""

from typing import Any

import torch


class _Reversal(torch.autograd.Function):
    """The identity; what flows back is multiplied by a negative number."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0] * -ctx.scale, None


def reverse_gradient(x: torch.Tensor, scale: float) -> torch.Tensor:
    """The tensor itself, with its gradient turned round (Ganin and Lempitsky, "Domain-adversarial training", 2015).

    An adversary that reads its input through this learns to lower a loss, as if the reversal were not there, and
    whatever made the input learns to raise `scale` times that loss, in one backward pass and from the same weights. No
    second optimiser is needed. An objective keeps its adversary under the name `adversary`: gradients of that name are
    clipped apart from the others (decision 0055).

    Args:
        x: Any tensor.
        scale: How much the maker's gradient weighs against the adversary's; from 0 up.
    """
    found: torch.Tensor = _Reversal.apply(x, scale)
    return found
