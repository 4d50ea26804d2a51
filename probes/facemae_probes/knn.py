"""kNN probe: cosine neighbours by faiss, votes weighted by similarity.

Features are standardised first: a frozen encoder's features share a large common direction, and cosines of raw features
would all be near one. A neighbour votes with ``exp(similarity / 0.07)`` (Wu et al. 2018, arXiv:1805.01978).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from facemae_probes.metrics import MISSING, TaskKind

NEIGHBOURS = (1, 5, 10, 20, 50, 100)
"""Numbers of neighbours tried."""
TEMPERATURE = 0.07
"""Scale of the similarities in the vote."""


def neighbours(
    bank: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k nearest rows of the bank by cosine.

    Args:
        bank: [N, D].
        queries: [M, D].
        k: Neighbours.

    Returns:
        Similarities and row numbers, both [M, k], nearest first.
    """
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(_unit(bank))
    similar, rows = index.search(_unit(queries), k)
    return np.asarray(similar), np.asarray(rows, dtype=np.int64)


def vote(
    similar: NDArray[np.float32],
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    classes: int,
    kind: TaskKind,
    k: int,
    temperature: float = TEMPERATURE,
) -> NDArray[np.float32]:
    """Weighted votes of the first k neighbours: [M, C], summing to one over classes, or a share per column.

    Args:
        similar: [M, K] similarities.
        rows: [M, K] rows of the bank.
        labels: The bank's labels, [N] or [N, C].
        classes: Number of classes or columns.
        kind: What the labels are.
        k: Neighbours that vote, at most K.
        temperature: Scale of the similarities.
    """
    near = similar[:, :k]
    # Subtracting the nearest's similarity leaves the shares unchanged and keeps exp() in range.
    weight = np.exp((near - near[:, :1]) / temperature)
    chosen = labels[rows[:, :k]]
    if kind == "classes":
        votes = np.zeros((len(rows), classes), dtype=np.float32)
        for column in range(k):
            votes[np.arange(len(rows)), chosen[:, column]] += weight[:, column]
        return np.asarray(votes / votes.sum(axis=1, keepdims=True))
    known = chosen != MISSING
    total = (weight[:, :, None] * known).sum(axis=1)
    positive = (weight[:, :, None] * (chosen == 1)).sum(axis=1)
    return np.asarray(np.divide(positive, total, out=np.zeros_like(positive), where=total > 0), dtype=np.float32)


@dataclass(frozen=True)
class KnnModel:
    """A bank of labelled features and a number of neighbours."""

    bank: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: int
    kind: TaskKind
    k: int

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Votes [M, C] for standardised features [M, D]."""
        similar, rows = neighbours(self.bank, features, self.k)
        return vote(similar, rows, self.labels, classes=self.classes, kind=self.kind, k=self.k)


def fit_neighbours(
    bank: NDArray[np.float32],
    labels: NDArray[np.int64],
    queries: NDArray[np.float32],
    *,
    classes: int,
    kind: TaskKind,
    counts: Sequence[int] = NEIGHBOURS,
) -> Iterator[tuple[KnnModel, NDArray[np.float32]]]:
    """Models of several k with their votes on `queries`, from one search.

    Args:
        bank: [N, D] standardised training features.
        labels: Their labels.
        queries: [M, D] standardised validation features.
        classes: Number of classes or columns.
        kind: What the labels are.
        counts: Values of k; those above N are left out.

    Yields:
        Model and its votes on the queries.
    """
    usable = sorted({k for k in counts if k <= len(bank)}) or [len(bank)]
    similar, rows = neighbours(bank, queries, usable[-1])
    for k in usable:
        yield (
            KnnModel(bank, labels, classes, kind, k),
            vote(similar, rows, labels, classes=classes, kind=kind, k=k),
        )


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.ascontiguousarray(features / np.maximum(norms, 1e-12), dtype=np.float32)
