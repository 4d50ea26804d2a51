"""Attentive probe: a few learned queries pool frozen tokens, a linear layer classifies.

Masked-image encoders keep what they know in patch tokens, where a mean cannot read it. Following efficient probing
(arXiv:2506.10178), each of M queries attends over the tokens directly, without key projections. Because pooling and
projection are both linear in the tokens, a value projection followed by the classifier is one matrix: it is left out,
which also makes the probe cheap (tokens are read twice, nothing is projected). A bias per query and position lets a
query prefer a place; faces are roughly aligned.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facemae.rng import generator, torch_generator
from facemae_probes.linear import label_loss
from facemae_probes.metrics import TaskKind


@dataclass(frozen=True)
class AttentiveSetting:
    """What is chosen on the validation part, with the epochs.

    Attributes:
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay of the classifier.
        queries: Number of queries.
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


SETTINGS = (AttentiveSetting(lr=3e-3), AttentiveSetting(lr=1e-2))
"""Settings tried by default."""


class AttentivePool(nn.Module):
    """M queries over tokens, then a linear classifier.

    Args:
        tokens: Tokens an image, T.
        width: Their dimension, D.
        classes: Outputs, C.
        queries: M.
        dropout: Share of pooled values dropped in training.
        seed: Seed of the initial queries.
    """

    def __init__(self, tokens: int, width: int, classes: int, *, queries: int, dropout: float, seed: int) -> None:
        super().__init__()
        start = torch.randn(queries, width, generator=torch_generator(seed, "attentive", "queries"))
        self.query = nn.Parameter(start * width**-0.5)
        self.place = nn.Parameter(
            torch.randn(queries, tokens, generator=torch_generator(seed, "attentive", "place")) * 0.5
        )
        self.norm = nn.BatchNorm1d(queries * width, affine=False)
        self.dropout = dropout
        self.head = nn.Linear(queries * width, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            tokens: [B, T, D], standardised.
            keep: Optional bool [B, M·D] of pooled values to keep, drawn by the caller.

        Returns:
            [B, C].
        """
        attention = torch.einsum("btd,md->bmt", tokens, self.query) * tokens.shape[-1] ** -0.5 + self.place
        pooled = torch.bmm(attention.softmax(dim=-1), tokens).flatten(1)
        pooled = self.norm(pooled)
        if keep is not None:
            pooled = pooled * keep / (1 - self.dropout)
        return torch.as_tensor(self.head(pooled))


@dataclass(frozen=True)
class TokenScale:
    """Mean and scale of each token dimension over training samples and positions."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, tokens: NDArray[np.floating], rows: NDArray[np.int64]) -> "TokenScale":
        """Measure [N, T, D] tokens on up to 2,048 evenly spaced rows; more would not change three digits."""
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), 2048)).astype(np.int64)]
        flat = torch.from_numpy(np.asarray(tokens[chosen], dtype=np.float32)).flatten(0, 1)
        return cls(flat.mean(dim=0), flat.std(dim=0).clamp_min(1e-6))

    def batch(self, tokens: NDArray[np.floating], rows: NDArray[np.int64]) -> Tensor:
        """Standardised fp32 tokens of some rows: [B, T, D]."""
        block = torch.from_numpy(np.asarray(tokens[rows], dtype=np.float32))
        return block.sub_(self.mean).div_(self.scale)


@dataclass(frozen=True)
class AttentiveModel:
    """A fitted attentive probe with its token scale."""

    pool: AttentivePool
    scale: TokenScale
    kind: TaskKind

    def scores(self, tokens: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities [len(rows), C] for some rows of [N, T, D] tokens."""
        self.pool.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(rows), 512):
                logits = self.pool(self.scale.batch(tokens, rows[start : start + 512]))
                parts.append(logits.softmax(1) if self.kind == "classes" else logits.sigmoid())
        return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)


def fit_attentive(
    tokens: NDArray[np.floating],
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    classes: int,
    kind: TaskKind,
    setting: AttentiveSetting,
    seed: int = 0,
) -> Iterator[tuple[int, AttentiveModel]]:
    """Train one setting by AdamW under a cosine schedule.

    Args:
        tokens: [N, T, D] frozen tokens; may be memory-mapped half precision.
        rows: Training rows.
        labels: Labels of those rows, [len(rows)] or [len(rows), C].
        classes: Number of classes or columns.
        kind: What the labels are.
        setting: Hyper-parameters.
        seed: Seed of initial values, order and dropout.

    Yields:
        Epoch (from 1) and the model as it stands; the caller copies what it wants to keep.
    """
    scale = TokenScale.fit(tokens, rows)
    pool = AttentivePool(
        tokens.shape[1], tokens.shape[2], classes, queries=setting.queries, dropout=setting.dropout, seed=seed
    )
    steps = max(1, len(rows) // setting.batch_size)
    optimiser = torch.optim.AdamW(
        [
            {"params": [pool.query, pool.place, pool.head.bias], "weight_decay": 0.0},
            {"params": [pool.head.weight], "weight_decay": setting.weight_decay},
        ],
        lr=setting.lr,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, setting.lr, total_steps=steps * setting.epochs, pct_start=0.1, cycle_momentum=False
    )
    y = torch.from_numpy(np.ascontiguousarray(labels))
    for epoch in range(1, setting.epochs + 1):
        order = generator(seed, "attentive", "order", epoch).permutation(len(rows))
        draws = torch_generator(seed, "attentive", "dropout", epoch)
        pool.train()
        for step in range(steps):
            chosen = np.sort(order[step * setting.batch_size : (step + 1) * setting.batch_size])
            batch = scale.batch(tokens, rows[chosen])
            keep = torch.rand(len(chosen), pool.head.in_features, generator=draws) >= setting.dropout
            loss = label_loss(pool(batch, keep), y[chosen], kind)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        yield epoch, AttentiveModel(pool, scale, kind)
