"""Decoders that predict the pixels of hidden patches from an encoding."""

import math

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm, Mlp
from timm.models import checkpoint
from timm.models.vision_transformer import Block
from torch import nn

from facemae.config import DecoderConfig
from facemae.errors import UsageError
from facemae.models.attention import attend, last_tokens, prepare_attention
from facemae.models.clip_positions import Position, fixed_positions, fixed_tables
from facemae.models.encoding import Encoding
from facemae.models.mix import LayerMix
from facemae.models.patches import hidden_patches


def build_decoder(
    config: DecoderConfig,
    *,
    encoder_width: int,
    grid: tuple[int, ...],
    patch_values: int,
    position: Position = "sincos",
) -> "PixelDecoder":
    """Build the decoder a recipe asks for.

    Args:
        config: Kind, width, depth and heads.
        encoder_width: Dimension of the encoder's tokens.
        grid: Rows and columns of patches; of clips steps, rows and columns of tubelets.
        patch_values: Numbers to predict for a patch: side * side * channels, of a tubelet times its frames.
        position: Kind of the positions of clips.
    """
    kind = JointDecoder if config.kind == "joint" else CrossDecoder
    return kind(config, encoder_width=encoder_width, grid=grid, patch_values=patch_values, position=position)


class PixelDecoder(nn.Module):
    """What both decoders share: the mask token, fixed sine-cosine positions, the last norm and the prediction.

    Images and clips of another grid than the one it was built for get positions that mean the same places in them.

    Attributes:
        grid: Rows and columns of patches of the image size it was built for; of clips steps, rows and columns.
    """

    positions: torch.Tensor

    def __init__(
        self, config: DecoderConfig, *, grid: tuple[int, ...], patch_values: int, position: Position = "sincos"
    ) -> None:
        super().__init__()
        self.grid, self.position = grid, position
        self.width = config.width
        self.checkpointing = False
        self._tables = fixed_tables(position, grid, config.width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.width))
        # A function of the grid alone: rebuilt, not saved.
        self.register_buffer("positions", fixed_positions(position, grid, config.width), persistent=False)
        self.norm = LayerNorm(config.width)
        self.pred = nn.Linear(config.width, patch_values)

    @torch.no_grad()
    def reset_positions(self) -> None:
        """Set the positions to sine-cosine."""
        self.positions.copy_(fixed_positions(self.position, self.grid, self.width))

    def _targets(self, encoding: Encoding, targets: torch.Tensor | None) -> torch.Tensor:
        if encoding.visible is None:
            raise UsageError("a decoder was given an encoding of all patches", expected="an encoding with a mask")
        if targets is not None:
            return targets
        return hidden_patches(encoding.visible, math.prod(encoding.grid or self.grid))

    def _places(self, encoding: Encoding) -> torch.Tensor:
        """Positions of the patches of an encoding's grid, [patches, width]."""
        grid = encoding.grid or self.grid
        return self.positions if grid == self.grid else self._tables(grid, self.positions.device)

    def _queries(self, encoding: Encoding, targets: torch.Tensor) -> torch.Tensor:
        return self.mask_token + F.embedding(targets, self._places(encoding))


class JointDecoder(PixelDecoder):
    """MAE's decoder: self-attention over visible and hidden patches together."""

    def __init__(
        self,
        config: DecoderConfig,
        *,
        encoder_width: int,
        grid: tuple[int, ...],
        patch_values: int,
        position: Position = "sincos",
    ) -> None:
        super().__init__(config, grid=grid, patch_values=patch_values, position=position)
        self.embed = nn.Linear(encoder_width, config.width, bias=config.embed_bias)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, qkv_bias=True) for _ in range(config.depth))

    def forward(self, encoding: Encoding, targets: torch.Tensor | None = None) -> torch.Tensor:
        """Predict patches.

        Args:
            encoding: An encoding of visible patches.
            targets: int64 [B, M], the hidden patches to decode; the blocks see these and the visible ones. None
                decodes all hidden patches, in ascending order: MAE.

        Returns:
            [B, M, patch_values]
        """
        targets = self._targets(encoding, targets)
        x = self.embed(encoding.tokens)
        prefix, seen = x[:, : encoding.prefix], x[:, encoding.prefix :]
        assert encoding.visible is not None
        seen = seen + F.embedding(encoding.visible, self._places(encoding))
        # Positions tell the blocks where a token is, so the tokens need not be put back into the order of the grid.
        x = torch.cat([prefix.to(seen.dtype), seen, self._queries(encoding, targets).to(seen.dtype)], dim=1)
        prepare_attention(self.blocks, x)
        *blocks, last = self.blocks
        for block in blocks:
            x = checkpoint(block, x) if self.checkpointing else block(x)
        assert isinstance(last, Block)
        hidden = last_tokens(last, x, targets.shape[1])
        return self.pred(self.norm(hidden))  # type: ignore[no-any-return]


class CrossDecoder(PixelDecoder):
    """CrossMAE's decoder: each hidden patch asks the visible ones, and hidden patches do not see each other.

    Decoding some of them therefore gives the same predictions as decoding all. Fu et al., "Rethinking Patch Dependence
    for Masked Autoencoders", 2024. All blocks read the encoder's output, or each a mix of its layers: `LayerMix`.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        encoder_width: int,
        grid: tuple[int, ...],
        patch_values: int,
        position: Position = "sincos",
    ) -> None:
        super().__init__(config, grid=grid, patch_values=patch_values, position=position)
        self.blocks = nn.ModuleList(
            CrossBlock(config.width, config.heads, context_width=encoder_width) for _ in range(config.depth)
        )
        self.mix = None if config.mix_layers is None else LayerMix(config.mix_layers, encoder_width, config.depth)

    def forward(self, encoding: Encoding, targets: torch.Tensor | None = None) -> torch.Tensor:
        """Predict patches.

        Args:
            encoding: An encoding of visible patches.
            targets: int64 [B, M], the hidden patches to decode; None decodes all, in ascending order.

        Returns:
            [B, M, patch_values]
        """
        x = self._queries(encoding, self._targets(encoding, targets))
        prepare_attention(self.blocks, x)
        contexts = [encoding.tokens] * len(self.blocks) if self.mix is None else self.mix(encoding)
        for block, context in zip(self.blocks, contexts, strict=True):
            x = checkpoint(block, x, context) if self.checkpointing else block(x, context)
        return self.pred(self.norm(x))  # type: ignore[no-any-return]


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
        q = self.q(x).view(batch, queries, self.heads, -1).transpose(1, 2)
        k, v = self.kv(context).view(batch, context.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v, fused=self.fused_attn))  # type: ignore[no-any-return]
