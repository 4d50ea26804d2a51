"""What an encoder hands to objectives, probes and extractors."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

START = -(2**31)
"""Under this number `Encoding.layers` holds the tokens before the first block, where they are asked for: a number that
nobody takes for a block counted from the end."""


@dataclass(frozen=True)
class Encoding:
    """The tokens of one view.

    Attributes:
        tokens: [R, prefix + K, D], after the encoder's final norm. K is the number of patches that were encoded. R is
            the number of samples times `masks`; the masked versions of a sample follow each other.
        prefix: Leading tokens that are no patches: the class token, if any, then the registers.
        visible: int64 [R, K], which patches were encoded, in row-major order of the grid, of clips by step, row and
            column; None when all were.
        layers: Outputs of blocks by 0-based block number, [R, prefix + K, D]; as the block left them unless the norm
            was asked for.
        grid: Rows and columns of the image's patches, of an encoder of clips steps, rows and columns; None stands for
            the grid the encoder was built for.
        masks: Masked versions of each sample.
        norm: The encoder's final norm, which `layers` lack; None where nobody asks for it.
        normed: Blocks' outputs after that norm, as far as they are known; see `level`.
        fused: Tokens after fusion with those of another encoding, [R, prefix + K, D]; None where there is none.
    """

    tokens: torch.Tensor
    prefix: int
    visible: torch.Tensor | None = None
    layers: dict[int, torch.Tensor] = field(default_factory=dict)
    grid: tuple[int, ...] | None = None
    masks: int = 1
    norm: Callable[[torch.Tensor], torch.Tensor] | None = None
    normed: dict[int, torch.Tensor] = field(default_factory=dict)
    fused: torch.Tensor | None = None

    @property
    def patches(self) -> torch.Tensor:
        """The patch tokens alone, [R, K, D]."""
        return self.tokens[:, self.prefix :]

    def level(self, block: int) -> torch.Tensor:
        """The output of a block, one of `layers`, after the encoder's final norm: [R, prefix + K, D].

        Computed once, however many ask for it.
        """
        if block not in self.normed:
            assert self.norm is not None, "encoders give theirs"
            self.normed[block] = self.norm(self.layers[block])
        return self.normed[block]

    def first_rows(self, count: int) -> "Encoding":
        """The first `count` of the R rows."""
        visible = None if self.visible is None else self.visible[:count]
        layers = {number: tokens[:count] for number, tokens in self.layers.items()}
        return replace(self, tokens=self.tokens[:count], visible=visible, layers=layers, normed={})

    def after_fusion(self) -> "Encoding":
        """The encoding whose tokens are those after fusion; its layers stay what the encoder gave."""
        assert self.fused is not None, "asked for with Need.fused"
        return replace(self, tokens=self.fused, fused=None)

    def first_mask(self) -> "Encoding":
        """The first masked version of each sample: R is then the number of samples."""
        if self.masks == 1:
            return self
        visible = None if self.visible is None else self.visible[:: self.masks]
        layers = {number: tokens[:: self.masks] for number, tokens in self.layers.items()}
        return Encoding(self.tokens[:: self.masks], self.prefix, visible, layers, self.grid, norm=self.norm)
