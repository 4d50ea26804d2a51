"""Mixing the samples of a pair: slots 2j and 2j + 1 of the global batch (Zhang et al., "mixup", 2018).

Shares are a function of seed, step and pair. The model mixes pixels by them and an objective the losses of the labels;
each draws them for itself. Where a pair's samples both have a label, and both shares of a pair are one and the other
way round, the weights of a pair's labels add up to what they are without mixing: counts stay what they were.
"""

import numpy as np
import torch

from facemae.data.schema import Batch
from facemae.errors import UsageError
from facemae.objectives.transfer import upload
from facemae.rng import generator

PAIR = 2
"""Samples that are mixed."""


def draw_shares(alpha: float, *, seed: int, step: int, view: str, batch: Batch) -> torch.Tensor:
    """How much of each mixed sample is its own; the rest is the other one of its pair.

    Args:
        alpha: Shares are drawn from Beta(alpha, alpha), one for a pair.
        seed: The run's seed.
        step: The optimiser step.
        view: Name of the view in the batch.
        batch: The batch.

    Returns:
        float32 [B], on the CPU.

    Raises:
        UsageError: The batch tears a pair apart. The trainer refuses such settings before.
    """
    if batch.first_slot % PAIR or len(batch) % PAIR:
        raise UsageError(
            f"slots {batch.first_slot} to {batch.first_slot + len(batch) - 1} tear a pair apart that is to be mixed",
            expected="an even number of samples in every process and micro-batch",
        )
    first, pairs = batch.first_slot // PAIR, len(batch) // PAIR
    # All pairs up to the last one are drawn: how many numbers a draw from Beta takes is not known before.
    drawn = generator(seed, "mixup", view, step).beta(alpha, alpha, first + pairs)[first:]
    return torch.from_numpy(np.repeat(drawn, PAIR).astype(np.float32))


def partners(rows: torch.Tensor) -> torch.Tensor:
    """[B, …] with the samples of each pair exchanged."""
    return rows.view(-1, PAIR, *rows.shape[1:]).flip(1).view_as(rows)


def mix(pixels: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Pixels [B, C, H, W], or those of clips [B, T, C, H, W], mixed by shares [B]."""
    shares = upload(shares, pixels.device).view(-1, *[1] * (pixels.ndim - 1))
    return shares * pixels + (1 - shares) * partners(pixels)
