"""Attentive probe: a few learned queries pool frozen tokens, a linear layer reads what they found.

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

from facemae.rng import torch_generator
from facemae_probes.heads.losses import Labels, LabelScale, activate
from facemae_probes.heads.standardise import Floats, Rows
from facemae_probes.heads.training import PooledHead, TrainSetting, train
from facemae_probes.tasks.targets import Kind, Targets

AttentiveSetting = TrainSetting
"""Hyper-parameters of the attentive probe."""
SETTINGS = (AttentiveSetting(lr=3e-3), AttentiveSetting(lr=1e-2))
"""Settings tried by default."""
SCORED_AT_ONCE = 512


class AttentivePool(nn.Module):
    """M queries over tokens, then a linear layer.

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
        self.read = PooledHead(queries * width, classes, dropout)

    def forward(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits [B, C] of standardised tokens [B, T, D]; `keep` [B, M·D] says which pooled values are kept."""
        attention = torch.einsum("btd,md->bmt", tokens, self.query) * tokens.shape[-1] ** -0.5 + self.place
        pooled = torch.bmm(attention.softmax(dim=-1), tokens).flatten(1)
        return torch.as_tensor(self.read(pooled, keep))


@dataclass(frozen=True)
class TokenScale:
    """Mean and scale of each token dimension over training samples and positions."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, tokens: Floats, rows: Rows) -> "TokenScale":
        """Measure [N, T, D] tokens on up to 2,048 evenly spaced rows; more would not change three digits."""
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), 2048)).astype(np.int64)]
        flat = torch.from_numpy(tokens[chosen]).float().flatten(0, 1)
        return cls(flat.mean(dim=0), flat.std(dim=0, correction=0).clamp_min(1e-6))

    def batch(self, tokens: Floats, rows: Rows) -> Tensor:
        """Standardised fp32 tokens of some rows: [B, T, D]."""
        return torch.from_numpy(tokens[rows]).float().sub_(self.mean).div_(self.scale)


@dataclass(frozen=True)
class AttentiveModel:
    """A fitted attentive probe with its token scale."""

    pool: AttentivePool
    scale: TokenScale
    kind: Kind
    label_scale: LabelScale

    def scores(self, tokens: Floats, rows: Rows) -> NDArray[np.float32]:
        """What is predicted for some rows of [N, T, D] tokens: [len(rows), C] probabilities or numbers."""
        self.pool.eval()
        out = np.empty((len(rows), len(self.label_scale.centre)), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(rows), SCORED_AT_ONCE):
                logits = self.pool(self.scale.batch(tokens, rows[start : start + SCORED_AT_ONCE]))
                out[start : start + len(logits)] = activate(logits, self.kind, self.label_scale).numpy()
        return out


def fit_attentive(
    tokens: Floats, rows: Rows, targets: Targets, *, setting: AttentiveSetting, seed: int = 0
) -> Iterator[tuple[int, AttentiveModel]]:
    """Train one setting.

    Args:
        tokens: [N, T, D] frozen tokens; may be memory-mapped half precision.
        rows: Training rows.
        targets: Of exactly these rows, of any kind.
        setting: Hyper-parameters.
        seed: Seed of initial values, order and dropout.

    Yields:
        Epoch (from 1) and the model as it stands; the caller copies what it wants to keep.

    Raises:
        ProbeError: There are fewer than two rows.
    """
    scale, label_scale = TokenScale.fit(tokens, rows), LabelScale.of(targets)
    pool = AttentivePool(
        tokens.shape[1], tokens.shape[2], targets.width, queries=setting.queries, dropout=setting.dropout, seed=seed
    )
    labels = Labels.of(label_scale.standard(targets))

    def read(chosen: Rows) -> tuple[Tensor, ...]:
        return (scale.batch(tokens, rows[chosen]),)

    for epoch in train(pool, pool.read, read, labels, setting, seed=seed, purpose="attentive"):
        yield epoch, AttentiveModel(pool, scale, targets.kind, label_scale)
