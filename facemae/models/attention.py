"""Attention: which of two equal computations of it runs, and a block of which a part is wanted."""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
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


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, fused: bool) -> torch.Tensor:
    """Multi-head attention of queries [B, H, M, d] to keys and values [B, H, N, d]; gives [B, M, H * d].

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        fused: Whether torch's fused kernel runs; see `choose_attention`.
    """
    if fused:
        y = F.scaled_dot_product_attention(q, k, v)
    else:
        y = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
    return y.transpose(1, 2).flatten(2)


def last_tokens(block: Block, x: torch.Tensor, count: int) -> torch.Tensor:
    """What a plain block of timm gives for the last `count` tokens, [B, count, D], of x, [B, tokens, D].

    The other tokens are keys and values only: where nobody asks for their outputs, a block need not compute them. In a
    joint decoder's last block that is a fifth of the work.
    """
    attention, batch, width = block.attn, len(x), x.shape[-1]
    normed = block.norm1(x)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    q = F.linear(normed[:, -count:], weight[:width], bias[:width])
    kv = F.linear(normed, weight[width:], bias[width:])
    q = q.view(batch, count, attention.num_heads, -1).transpose(1, 2)
    k, v = kv.view(batch, -1, 2, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    x = x[:, -count:] + attention.proj(attend(q, k, v, fused=attention.fused_attn))
    return x + block.mlp(block.norm2(x))  # type: ignore[no-any-return]
