"""How heads that read whole token maps or clips are trained: AdamW under a one-cycle schedule, every draw keyed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facemae.errors import ProbeError
from facemae.rng import generator, torch_generator
from facemae_probes.heads.losses import Labels, label_loss

_RISE = 0.1
"""Share of the steps in which the learning rate rises."""


@dataclass(frozen=True)
class TrainSetting:
    """What is chosen on training units, with the epochs.

    Attributes:
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay of matrices.
        queries: Number of queries that pool.
        epochs: Longest training; every epoch is a candidate.
        dropout: Share of pooled values dropped in training.
        batch_size: Samples a step.
    """

    lr: float = 3e-3
    weight_decay: float = 0.05
    queries: int = 12
    epochs: int = 15
    dropout: float = 0.2
    batch_size: int = 256


class PooledHead(nn.Module):
    """Values that queries pooled, normalised over the batch, then a linear layer that starts at zero.

    Args:
        width: Pooled values a sample.
        classes: Outputs, C.
        dropout: Share of pooled values dropped in training.
    """

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.dropout = dropout
        self.head = nn.utils.skip_init(nn.Linear, width, classes)  # type: ignore[no-untyped-call]
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, pooled: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits [B, C] of pooled values [B, width]; `keep`, bool of the same shape, is drawn by the caller."""
        pooled = self.norm(pooled)
        if keep is not None:
            pooled = pooled * keep / (1 - self.dropout)
        return torch.as_tensor(self.head(pooled))


def train(
    net: nn.Module,
    head: PooledHead,
    read: Callable[[NDArray[np.int64]], tuple[Tensor, ...]],
    labels: Labels,
    setting: TrainSetting,
    *,
    seed: int,
    purpose: str,
) -> Iterator[int]:
    """Train in place.

    Args:
        net: Called with what `read` gives, and `keep`; vectors and what is named `query` or `place` do not decay.
        head: Its head.
        read: Gives inputs of some samples, by their numbers among `labels`, ascending.
        labels: Of the training samples.
        setting: Hyper-parameters.
        seed: Seed of order and dropout.
        purpose: Name under which they are drawn.

    Yields:
        Each epoch, from 1, when it is done.

    Raises:
        ProbeError: There are fewer than two samples, which cannot be normalised over.
    """
    count = len(labels)
    if count < 2:
        raise ProbeError(f"a head cannot be trained on {count} samples", expected="at least two")
    batch = min(setting.batch_size, count)
    steps = count // batch
    plain: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        free = parameter.ndim < 2 or name.rpartition(".")[2] in ("query", "place")
        (plain if free else decayed).append(parameter)
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": setting.weight_decay}]
    optimiser = torch.optim.AdamW(groups, lr=setting.lr)
    total = steps * setting.epochs
    # A rise that ends with the very first step, as a tenth of ten steps does, makes OneCycleLR divide by zero.
    rise = _RISE if _RISE * total != 1 else 1.5 / total
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, setting.lr, total_steps=total, pct_start=rise, cycle_momentum=False
    )
    for epoch in range(1, setting.epochs + 1):
        order = generator(seed, purpose, "order", epoch).permutation(count)
        draws = torch_generator(seed, purpose, "dropout", epoch)
        net.train()
        for step in range(steps):
            chosen = np.sort(order[step * batch : (step + 1) * batch])
            keep = torch.rand(len(chosen), head.head.in_features, generator=draws) >= head.dropout
            loss = label_loss(net(*read(chosen), keep), labels[torch.from_numpy(chosen)])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        yield epoch
