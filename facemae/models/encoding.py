"""What an encoder hands to objectives, probes and extractors."""

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Encoding:
    """The tokens of one view.

    Attributes:
        tokens: [B, prefix + K, D], after the encoder's final norm. K is the number of patches that were encoded.
        prefix: Leading tokens that are no patches: the class token, if any, then the registers.
        visible: int64 [B, K], which patches were encoded, in row-major order of the grid; None when all were.
        layers: Outputs of blocks by 0-based block number, [B, prefix + K, D]; as the block left them unless the norm
            was asked for.
    """

    tokens: torch.Tensor
    prefix: int
    visible: torch.Tensor | None = None
    layers: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def patches(self) -> torch.Tensor:
        """The patch tokens alone, [B, K, D]."""
        return self.tokens[:, self.prefix :]
