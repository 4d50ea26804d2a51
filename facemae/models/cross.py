"""Blocks whose tokens look at those of another sequence."""

import torch
from timm.layers import LayerNorm, Mlp
from torch import nn

from facemae.models.attention import SelfBlock, attend


class CrossAttention(nn.Module):
    """Multi-head attention from queries to a context of another width.

    Attributes:
        fused_attn: Whether torch's fused kernel runs; see `facemae.models.attention`.
    """

    def __init__(self, width: int, heads: int, *, context_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.fused_attn = True
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(context_width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Queries [B, M, width] and context [B, K, context_width] give [B, M, width]."""
        batch, queries, _ = x.shape
        q = self.q(x).view(batch, queries, self.heads, -1)
        kv = self.kv(context).view(batch, context.shape[1], 2, self.heads, -1)
        return self.proj(attend(q, kv, fused=self.fused_attn))  # type: ignore[no-any-return]


class CrossBlock(nn.Module):
    """Pre-norm cross-attention and MLP, each with a residual."""

    def __init__(self, width: int, heads: int, *, context_width: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn = CrossAttention(width, heads, context_width=context_width)
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Queries [B, M, width] and context [B, K, context_width] give [B, M, width]."""
        x = x + self.attn(self.norm1(x), context)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class CrossSelfBlock(SelfBlock):
    """Cross-attention to a context, then a plain block: self-attention and MLP; all pre-norm, each with a residual.

    The block of HiCMAE's fusion and of its decoder (Sun et al., 2024, code: `CSBlock`). Queries and context have a norm
    each. Names of the second part are those of timm's block.
    """

    def __init__(self, width: int, heads: int, *, context_width: int) -> None:
        super().__init__(width, heads)
        self.cross_norm = LayerNorm(width)
        self.context_norm = LayerNorm(context_width)
        self.cross = CrossAttention(width, heads, context_width=context_width)
        # A place where stochastic depth can leave the branch out: `facemae.models.drop_path`.
        self.drop_path_cross = nn.Identity()

    def forward(  # type: ignore[override]  # it needs what it looks at
        self, x: torch.Tensor, context: torch.Tensor, present: torch.Tensor | None = None, last: int | None = None
    ) -> torch.Tensor:
        """Tokens [B, N, width] and context [B, K, context_width] give [B, N, width].

        Args:
            x: The tokens.
            context: What they look at.
            present: Bool [B], which samples have a context; the others' tokens look at nothing. None where all have.
            last: As in `SelfBlock`.
        """
        seen: torch.Tensor = self.drop_path_cross(self.cross(self.cross_norm(x), self.context_norm(context)))
        if present is not None:
            seen = torch.where(present.view(-1, 1, 1), seen, 0.0)
        return super().forward(x + seen, last)
