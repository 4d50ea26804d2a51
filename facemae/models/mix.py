"""A learned mix of an encoder's layers for each block of a decoder."""

from collections.abc import Sequence

import torch
from timm.layers import LayerNorm
from torch import nn

from facemae.models.encoding import Encoding


class LayerMix(nn.Module):
    """For each decoder block, a linear combination of encoder blocks' outputs, then a norm of its own.

    CrossMAE's inter-block attention (Fu et al., "Rethinking Patch Dependence for Masked Autoencoders", 2024). As in its
    code the weights are plain numbers, one for each pair of blocks, initialised as any linear layer. One thing differs:
    the last block's output enters after the encoder's final norm, which would otherwise be exported untrained.

    Args:
        layers: 0-based encoder blocks, ascending; the last of them is the encoder's last.
        width: Dimension of the encoder's tokens.
        blocks: Number of decoder blocks.
    """

    def __init__(self, layers: Sequence[int], width: int, blocks: int) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.weights = nn.Linear(len(self.layers), blocks, bias=False)
        self.norms = nn.ModuleList(LayerNorm(width) for _ in range(blocks))

    def forward(self, encoding: Encoding) -> list[torch.Tensor]:
        """What each decoder block reads: [R, prefix + K, D], in the order of the blocks."""
        outputs = torch.stack([*(encoding.layers[number] for number in self.layers[:-1]), encoding.tokens], dim=1)
        # A copy of the weights for each sample, so that their gradients are added over samples in double precision: the
        # norms undo what the weights scale, terms cancel, and in fp32 the rest would depend on the order of adding.
        weights = self.weights.weight.double().expand(len(outputs), -1, -1).to(outputs.dtype)
        mixed = torch.bmm(weights, outputs.flatten(2)).view(len(outputs), -1, *outputs.shape[2:])
        return [norm(context) for norm, context in zip(self.norms, mixed.unbind(1), strict=True)]
