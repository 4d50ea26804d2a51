"""Heads on an encoding: a summary of its tokens, projected to a vector of length one, and learned numbers.

The published projection heads of SimCLR and SwAV have batch norm. Its statistics depend on how a batch is divided into
micro-batches and processes, which here may not change a run; layer norm, which looks at one sample, takes its place.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm
from torch import nn

from facemae.config import HeadConfig
from facemae.models.encoding import Encoding

Pool = Literal["cls", "mean"]


def summary(encoding: Encoding, pool: Pool) -> torch.Tensor:
    """One vector a sample, [B, D]: the class token, or the mean of the patch tokens that were encoded."""
    return encoding.tokens[:, 0] if pool == "cls" else encoding.patches.mean(dim=1)


class ProjectionHead(nn.Module):
    """An MLP with ReLU whose output is divided by its length: g(·) of Chen et al., "SimCLR", 2020, section 2.1.

    Args:
        config: Depth, dimensions and norm.
        width: Dimension of the input.
    """

    def __init__(self, config: HeadConfig, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(config.depth - 1):
            layers.append(nn.Linear(width, config.hidden))
            if config.norm == "layer":
                layers.append(LayerNorm(config.hidden))
            layers.append(nn.ReLU())
            width = config.hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, config.out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, width] gives fp32 [B, out] of length one, also under autocast."""
        return F.normalize(self.layers(x).float(), dim=-1)


class LearnedNumber(nn.Module):
    """A scalar that is learned from a given start; without weight decay, as everything of one dimension.

    Args:
        start: Its initial value.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start
        self.value = nn.Parameter(torch.empty(1))

    @torch.no_grad()
    def reset_values(self) -> None:
        """Set it to its start."""
        self.value.fill_(self.start)

    def forward(self) -> torch.Tensor:
        """The number, [1]."""
        return self.value
