"""A decoder that makes pictures of what other encoders heard and saw: nothing of the picture itself goes in."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from facemae.config import DecoderConfig
from facemae.models.attention import prepare_attention
from facemae.models.clip_positions import Position
from facemae.models.cross import CrossBlock
from facemae.models.decoder import PixelDecoder
from facemae.models.recompute import recompute


class ContextDecoder(PixelDecoder):
    """Each patch asks the tokens of one or more encodings, and patches do not see each other.

    So decoding some of them gives the same predictions as decoding all. What tells the encodings apart is a token of
    its own that is added to each.

    Args:
        config: Of kind `cross`.
        widths: Dimension of the tokens of each encoding.
        grid: Rows and columns of patches; of clips steps, rows and columns.
        patch_values: Numbers to predict for a patch.
        position: Kind of the positions of clips.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        widths: Sequence[int],
        grid: tuple[int, ...],
        patch_values: int,
        position: Position = "sincos",
    ) -> None:
        super().__init__(config, grid=grid, patch_values=patch_values, position=position)
        self.embed = nn.ModuleList(nn.Linear(width, config.width, bias=config.embed_bias) for width in widths)
        self.source_token = nn.Parameter(torch.empty(len(widths), 1, 1, config.width))
        self.blocks = nn.ModuleList(
            CrossBlock(config.width, config.heads, context_width=config.width) for _ in range(config.depth)
        )

    def forward(
        self, tokens: Sequence[torch.Tensor], grid: tuple[int, ...], targets: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Predict patches.

        Args:
            tokens: Of each encoding [B, K, width].
            grid: The grid of the picture or clip.
            targets: int64 [B, M], the patches to decode; None decodes all.

        Returns:
            [B, M, patch_values]
        """
        table = self.positions if grid == self.grid else self._tables(grid, self.positions.device)
        if targets is None:
            targets = torch.arange(math.prod(grid), device=table.device).expand(len(tokens[0]), -1)
        x = self.mask_token + F.embedding(targets, table)
        embedded = [embed(given) for embed, given in zip(self.embed, tokens, strict=True)]
        context = torch.cat([given + mark for given, mark in zip(embedded, self.source_token, strict=True)], dim=1)
        prepare_attention(self.blocks, x)
        for block in self.blocks:
            x = recompute(block, x, context) if self.checkpointing else block(x, context)
        return self.pred(self.norm(x))  # type: ignore[no-any-return]
