"""Which of two equal attention computations runs: torch's fused kernel or plain matrix products."""

import torch
from torch import nn

PLAIN_TOKENS = 1024
"""Above this many tokens the plain computation's tokens * tokens scores would take too much memory."""


def choose_attention(device: torch.device, dtype: torch.dtype, tokens: int) -> bool:
    """Whether torch's fused kernel runs rather than plain matrix products.

    The fused kernel is the faster one except in bf16 on the CPU, where it takes two to five times as long at the token
    counts of a masked encoder; measured, see docs/decisions/0020-attention-kernel.md.
    """
    return device.type != "cpu" or dtype != torch.bfloat16 or tokens > PLAIN_TOKENS


def prepare_attention(module: nn.Module, x: torch.Tensor) -> None:
    """Let every attention under `module` compute in the way that is fastest for `x`, [B, tokens, D].

    timm's attention layers, and our cross-attention, read the choice from their flag `fused_attn` at each call.
    """
    device = x.device
    dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else x.dtype
    fused = choose_attention(device, dtype, x.shape[1])
    for layer in module.modules():
        if hasattr(layer, "fused_attn"):
            setattr(layer, "fused_attn", fused)  # noqa: B010 - no static type has this flag
