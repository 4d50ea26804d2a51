"""Decoders that predict the pixels of hidden patches from an encoding."""

import math

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm
from torch import nn

from facemae.config import DecoderConfig
from facemae.errors import UsageError
from facemae.models.attention import SelfBlock, prepare_attention
from facemae.models.clip_positions import Position, fixed_positions, fixed_tables
from facemae.models.cross import CrossBlock, CrossSelfBlock
from facemae.models.encoding import Encoding
from facemae.models.mix import LayerMix
from facemae.models.patches import hidden_patches
from facemae.models.recompute import recompute


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
    """MAE's decoder: self-attention over visible and hidden patches together.

    With `skips` each block but the first looks at the output of an encoder block first, mapped like the encoder's
    output and with the same positions: the hierarchical skip connections of HiCMAE (Sun et al., 2024, section 3.4). The
    encoder's final norm is applied to all of them, as in its code.
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
        self.skips = config.skips or ()
        self.embed = nn.Linear(encoder_width, config.width, bias=config.embed_bias)
        width, heads, looking = config.width, config.heads, len(self.skips)
        blocks = [SelfBlock(width, heads) for _ in range(config.depth - looking)]
        blocks += [CrossSelfBlock(width, heads, context_width=width) for _ in range(looking)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, encoding: Encoding, targets: torch.Tensor | None = None) -> torch.Tensor:
        """Predict patches.

        Args:
            encoding: An encoding of visible patches, with the layers that are skipped to.
            targets: int64 [B, M], the hidden patches to decode; the blocks see these and the visible ones. None
                decodes all hidden patches, in ascending order: MAE.

        Returns:
            [B, M, patch_values]
        """
        targets = self._targets(encoding, targets)
        assert encoding.visible is not None
        places = F.embedding(encoding.visible, self._places(encoding))
        seen = self._placed(encoding.tokens, encoding.prefix, places)
        contexts = [self._placed(encoding.level(number), encoding.prefix, places) for number in self.skips]
        # Positions tell the blocks where a token is, so the tokens need not be put back into the order of the grid.
        x = torch.cat([seen, self._queries(encoding, targets).to(seen.dtype)], dim=1)
        prepare_attention(self.blocks, x)
        plain: list[tuple[torch.Tensor, ...]] = [()] * (len(self.blocks) - len(contexts))
        *before, (last, given) = zip(self.blocks, [*plain, *((context,) for context in contexts)], strict=True)
        for block, context in before:
            x = recompute(block, x, *context) if self.checkpointing else block(x, *context)
        # The backward pass begins with it: what it keeps takes no more memory than computing it again would.
        hidden = last(x, *given, last=targets.shape[1])
        return self.pred(self.norm(hidden))  # type: ignore[no-any-return]

    def _placed(self, tokens: torch.Tensor, prefix: int, places: torch.Tensor) -> torch.Tensor:
        """Tokens of the encoder, [R, prefix + K, D], in the decoder's width, with the positions of their patches."""
        x = self.embed(tokens)
        first, seen = x[:, :prefix], x[:, prefix:] + places
        return torch.cat([first.to(seen.dtype), seen], dim=1)


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
            x = recompute(block, x, context) if self.checkpointing else block(x, context)
        return self.pred(self.norm(x))  # type: ignore[no-any-return]
