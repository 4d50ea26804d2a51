"""A critic of reconstructed patches."""

import torch
from torch import nn

from facemae.models.reversal import reverse_gradient


class PatchCritic(nn.Module):
    """Scores patches one by one: an MLP of MARLIN's shape (Cai et al., 2023), two linear layers and a leaky ReLU.

    The last layer has no bias, which would cancel: only differences of scores mean something.

    Args:
        values: Numbers in a patch.
        hidden: Numbers between the layers.
    """

    def __init__(self, values: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(values, hidden), nn.LeakyReLU(), nn.Linear(hidden, 1, bias=False))

    def forward(self, predicted: torch.Tensor, true: torch.Tensor, weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of reconstructed and of real patches, fp32 [B, M] each.

        The loss to add is mean(fake) - mean(real), the critic's of a Wasserstein GAN. The gradient that reaches
        `predicted` is that of -weight * mean(fake), the generator's part.

        Args:
            predicted: [B, M, values].
            true: Likewise; gets no gradient.
            weight: Weight of the generator's part.
        """
        fake = self.layers(reverse_gradient(predicted, weight))
        real = self.layers(true.detach())
        return fake.squeeze(-1).float(), real.squeeze(-1).float()
