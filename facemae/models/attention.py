"""Attention: which of two equal computations of it runs, and a block of which a part is wanted."""

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import nn

from facemae.models.plain_attention import plain_attention

PLAIN_TOKENS = 1024
"""Above this many tokens the plain computation's tokens * tokens scores would take too much memory."""


def choose_attention(device: torch.device, dtype: torch.dtype, tokens: int) -> bool:
    """Whether torch's fused kernel runs rather than plain matrix products.

    In bf16 on the CPU it takes two to six times as long as they do at the token counts of a masked encoder, by
    `facemae bench attention`. Why it stays for all else: docs/decisions/0020-attention-kernel.md.
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


class SelfAttention(Attention):  # type: ignore[misc]  # timm has no types
    """timm's attention with its names of weights; where the fused kernel does not run, `plain_attention` does."""

    def forward(self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False) -> torch.Tensor:
        """Tokens [B, N, D] give [B, N, D]; arguments as in timm."""
        more = attn_mask is not None or is_causal or self.gate is not None or self.attn_drop.p
        if self.fused_attn or more or not isinstance(self.q_norm, nn.Identity):
            return super().forward(x, attn_mask=attn_mask, is_causal=is_causal)  # type: ignore[no-any-return]
        qkv = self.qkv(x).view(*x.shape[:2], 3, self.num_heads, self.head_dim)
        return self.proj_drop(self.proj(self.norm(plain_attention(qkv))))  # type: ignore[no-any-return]


def give_attention(module: nn.Module) -> None:
    """Make every plain attention of timm under `module` a `SelfAttention`; others, such as differential, stay."""
    for layer in module.modules():
        if type(layer) is Attention:
            layer.__class__ = SelfAttention


def attend(q: torch.Tensor, kv: torch.Tensor, *, fused: bool) -> torch.Tensor:
    """Multi-head attention; gives [B, M, H * d].

    Args:
        q: Queries, [B, M, H, d].
        kv: Keys and values, [B, N, 2, H, d].
        fused: Whether torch's fused kernel runs; see `choose_attention`.
    """
    if not fused:
        return plain_attention(q.unsqueeze(2), kv)
    k, v = kv.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q.transpose(1, 2), k, v).transpose(1, 2).flatten(2)


class SelfBlock(Block):  # type: ignore[misc]  # timm has no types
    """timm's plain block with its names of weights and `SelfAttention`; it can leave out tokens nobody asks for."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, qkv_bias=True, attn_layer=SelfAttention)

    def forward(self, x: torch.Tensor, last: int | None = None) -> torch.Tensor:
        """Tokens [B, N, D] give [B, N, D], or only what the last ones become, [B, last, D].

        The others are then keys and values only. In a joint decoder's last block that saves a fifth of the work.
        """
        return super().forward(x) if last is None else _last_tokens(self, x, last)


def _last_tokens(block: Block, x: torch.Tensor, count: int) -> torch.Tensor:
    attention, batch, width = block.attn, len(x), x.shape[-1]
    normed = block.norm1(x)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    q = F.linear(normed[:, -count:], weight[:width], bias[:width])
    kv = F.linear(normed, weight[width:], bias[width:])
    q = q.view(batch, count, attention.num_heads, attention.head_dim)
    kv = kv.view(batch, -1, 2, attention.num_heads, attention.head_dim)
    x = x[:, -count:] + attention.proj(attend(q, kv, fused=attention.fused_attn))
    return x + block.mlp(block.norm2(x))  # type: ignore[no-any-return]
