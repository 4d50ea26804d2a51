"""Blocks that are computed again in the backward pass, where their memory does not suffice."""

from collections.abc import Callable
from typing import Any

import torch
from timm.models import checkpoint
from torch import nn


def recompute(function: Callable[..., torch.Tensor], *given: Any) -> torch.Tensor:
    """What a function of the given things gives, keeping its input only and computing the rest again backward.

    Which attention runs (`facemae.models.attention.prepare_attention`) is kept too: by then a view of another number of
    tokens may have chosen the other one for the same block, which saves other tensors.

    Args:
        function: A block, or what runs one.
        given: Its arguments; modules among them are blocks too.
    """
    blocks = [part for part in (function, *given) if isinstance(part, nn.Module)]
    layers = [layer for block in blocks for layer in block.modules() if hasattr(layer, "fused_attn")]
    chosen = [(layer, layer.fused_attn) for layer in layers]

    def run(*arguments: Any) -> Any:
        for layer, fused in chosen:
            setattr(layer, "fused_attn", fused)  # noqa: B010 - no static type has this flag
        return function(*arguments)

    again: torch.Tensor = checkpoint(run, *given)
    return again
