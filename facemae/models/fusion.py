"""Fusion: blocks in which the tokens of a view and those of its sound look at each other."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from timm.layers import LayerNorm
from torch import nn

from facemae.config import FusionConfig
from facemae.errors import ConfigError
from facemae.models.attention import prepare_attention
from facemae.models.cross import CrossSelfBlock
from facemae.models.drop_path import count_branches, give_branches, run_block
from facemae.models.encoding import Encoding
from facemae.models.recompute import recompute

Factors = Sequence[torch.Tensor]
"""For each block [B, branches]; see `facemae.models.drop_path.draw_factors`."""


class Fusion(nn.Module):
    """HiCMAE's fusion of two encoders (Sun et al., 2024, section 3.3).

    Both sides of a block read what the block before left on the other side; a norm for each side follows the last one.
    In a sample without sound nothing is looked at: its branches of cross-attention are left out, exactly, so what
    stands in place of the sound changes no number of the view and gets no gradient.

    Args:
        config: Depth and heads.
        width: Dimension of the view's tokens.
        sound_width: Dimension of the sound's.

    Attributes:
        checkpointing: Whether blocks are computed again in the backward pass.
        drop_path: Rate of stochastic depth in training.
        branches: For each block of a side, how many residual branches can be left out; 0 where the rate is 0.

    Raises:
        ConfigError: The heads divide one of the widths not.
    """

    def __init__(self, config: FusionConfig, *, width: int, sound_width: int) -> None:
        super().__init__()
        for name, size in (("encoder", width), ("sound_encoder", sound_width)):
            if size % config.heads:
                raise ConfigError(
                    f"fusion.heads is {config.heads} and tokens of {name} have {size} numbers",
                    expected="a divisor of the widths of both encoders",
                )
        self.checkpointing = False
        self.drop_path = config.drop_path
        self.view_blocks = _blocks(config, width, sound_width)
        self.view_norm = LayerNorm(width)
        self.sound_blocks = _blocks(config, sound_width, width)
        self.sound_norm = LayerNorm(sound_width)
        self.branches = count_branches(self.view_blocks)

    def forward(
        self,
        view: Encoding,
        sound: Encoding,
        present: torch.Tensor,
        view_factors: Factors = (),
        sound_factors: Factors = (),
    ) -> tuple[Encoding, Encoding]:
        """Both encodings with their tokens after fusion: `Encoding.fused`.

        Args:
            view: The encoding of B samples.
            sound: That of their sounds.
            present: Bool [B], which samples have sound.
            view_factors: By which the branches of the view's blocks are scaled; empty leaves all as they are.
            sound_factors: Those of the sound's.
        """
        x, y = view.tokens, sound.tokens
        prepare_attention(self.view_blocks, x)
        prepare_attention(self.sound_blocks, y)
        for number, (block, sound_block) in enumerate(zip(self.view_blocks, self.sound_blocks, strict=True)):
            x, y = (
                self._run(block, x, view_factors[number] if view_factors else None, y, present),
                self._run(sound_block, y, sound_factors[number] if sound_factors else None, x, present),
            )
        return replace(view, fused=self.view_norm(x)), replace(sound, fused=self.sound_norm(y))

    def _run(self, block: nn.Module, x: torch.Tensor, *given: torch.Tensor | None) -> torch.Tensor:
        return recompute(run_block, block, x, *given) if self.checkpointing else run_block(block, x, *given)


def _blocks(config: FusionConfig, width: int, context_width: int) -> nn.ModuleList:
    blocks = nn.ModuleList(
        CrossSelfBlock(width, config.heads, context_width=context_width) for _ in range(config.depth)
    )
    if config.drop_path:
        give_branches(blocks)
    return blocks
