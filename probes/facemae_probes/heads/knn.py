"""kNN probe: cosine neighbours, votes weighted by similarity.

Features are standardised first: a frozen encoder's features share a large common direction, and cosines of raw features
would all be near one. A neighbour votes with ``exp(similarity / 0.07)`` (Wu et al. 2018, arXiv:1805.01978).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from facemae.errors import ProbeError
from facemae_probes.heads.standardise import Floats, View, as_view
from facemae_probes.tasks.targets import Targets

NEIGHBOURS = (1, 5, 10, 20, 50, 100)
"""Numbers of neighbours tried."""
TEMPERATURE = 0.07
"""Scale of the similarities in the vote."""
NEAR = 1e-6
"""Similarities closer than this are compared again in double precision: single precision does not order them surely."""
BANK_ELEMENTS = 2**24
"""Values of the bank searched at once: 64 MB in single precision."""
QUERIES = 4096
"""Queries searched at once."""

Found = tuple[NDArray[np.float32], NDArray[np.int64]]


def neighbours(bank: Floats | View, queries: Floats | View, k: int) -> Found:
    """The k nearest rows of the bank by cosine, those of brute force in double precision.

    Of equal similarities the lower row number comes first. The search runs in single precision, block by block of the
    bank; where its rounding could decide, it looks further and compares in double precision.

    Args:
        bank: [N, D], or a view.
        queries: [M, D], or a view.
        k: Neighbours, at most N.

    Returns:
        Similarities and row numbers, both [M, k], nearest first.
    """
    bank, queries = as_view(bank), as_view(queries)
    if not len(queries):
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    parts = [
        _nearest(bank, queries.take(np.arange(start, min(start + QUERIES, len(queries)))), k, 8)
        for start in range(0, len(queries), QUERIES)
    ]
    similar, rows = zip(*parts, strict=True)
    return np.concatenate(similar), np.concatenate(rows)


def _nearest(bank: View, queries: View, k: int, more: int) -> Found:
    """Those of some queries, having looked at `more` candidates than are wanted."""
    wide = min(k + more, len(bank))
    similar, rows = _search(bank, queries, wide)
    unsure = np.flatnonzero((similar[:, : wide - 1] - similar[:, 1:])[:, :k].min(axis=1, initial=np.inf) <= NEAR)
    # Where as many as were looked at may be the k-th, there may be others that were not.
    open_ended = similar[unsure, k - 1] - similar[unsure, wide - 1] <= NEAR
    further = unsure[open_ended] if wide < len(bank) else unsure[:0]
    for query in np.setdiff1d(unsure, further):
        similar[query], rows[query] = _settle(bank, queries.take(np.array([query])), np.sort(rows[query]))
    similar, rows = similar[:, :k], rows[:, :k]
    if len(further):
        similar[further], rows[further] = _nearest(bank, queries.take(further), k, 8 * more)
    return similar, rows


def _search(bank: View, queries: View, k: int) -> Found:
    wanted = _unit(queries.held()).numpy()
    size = max(k, BANK_ELEMENTS // bank.width)
    best: tuple[Tensor, Tensor] | None = None
    for start, block in bank.blocks(size=size):
        similar, rows = faiss.knn(wanted, _unit(block).numpy(), min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        found = torch.from_numpy(similar), torch.from_numpy(rows.astype(np.int64) + start)
        if best is not None:
            found = torch.cat([best[0], found[0]], dim=1), torch.cat([best[1], found[1]], dim=1)
            top, place = found[0].topk(k)
            found = top, found[1].gather(1, place)
        best = found
    assert best is not None
    return best[0].numpy(), best[1].numpy()


def _settle(bank: View, query: View, rows: NDArray[np.int64]) -> Found:
    """Similarities of one query to some rows, given in ascending order, as double precision sorts them."""
    near = _unit(bank.take(rows).held().double())
    # A product and a sum, not a matrix product: equal rows must give equal numbers wherever they stand.
    similar = (near * _unit(query.held().double())).sum(dim=1).numpy()
    order = np.argsort(-similar, kind="stable")
    return similar[order].astype(np.float32), rows[order]


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features, dim=1)


def votes(
    similar: NDArray[np.float32],
    rows: NDArray[np.int64],
    targets: Targets,
    counts: Sequence[int],
    *,
    temperature: float = TEMPERATURE,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Weighted votes of the nearest neighbours.

    Args:
        similar: [M, K] similarities, nearest first.
        rows: [M, K] rows of the bank.
        targets: The bank's. Labels that are not known do not vote; where none of the neighbours' is, the column's mean
            over the bank stands in.
        counts: Numbers of neighbours that vote, ascending, at most K.
        temperature: Scale of the similarities.

    Yields:
        Each count with the scores [M, C]: shares of the vote, or weighted means of shares and numbers.
    """
    # Subtracting the nearest's similarity leaves the shares unchanged and keeps exp() in range.
    weight = np.exp((similar - similar[:, :1]) / temperature)
    known = np.broadcast_to(targets.known, (len(targets), targets.width))
    values = np.eye(targets.width, dtype=np.float32)[targets.values] if targets.kind == "classes" else targets.values
    values = np.where(known, values, 0).astype(np.float32, copy=False)
    means = values.sum(axis=0, dtype=np.float64) / np.maximum(known.sum(axis=0), 1)
    total = np.zeros((len(rows), targets.width), dtype=np.float32)
    given = np.zeros_like(total)
    done = 0
    for count in counts:
        for column in range(done, count):
            voters = rows[:, column]
            given += weight[:, column, None] * values[voters]
            total += weight[:, column, None] * known[voters]
        done = count
        yield count, np.where(total > 0, given / np.maximum(total, 1e-30), means).astype(np.float32)


@dataclass(frozen=True)
class KnnModel:
    """A bank of labelled features and a number of neighbours.

    Attributes:
        bank: [N, D] standardised features, or a view.
        targets: Theirs.
        k: Neighbours that vote.
    """

    bank: Floats | View
    targets: Targets
    k: int

    def scores(self, features: Floats | View) -> NDArray[np.float32]:
        """Votes [M, C] for standardised features [M, D]."""
        similar, rows = neighbours(self.bank, features, self.k)
        ((_, found),) = votes(similar, rows, self.targets, [self.k])
        return found


def fit_neighbours(
    bank: Floats | View, targets: Targets, queries: Floats | View, *, counts: Sequence[int] = NEIGHBOURS
) -> Iterator[tuple[KnnModel, NDArray[np.float32]]]:
    """Models of several k with their votes on `queries`, from one search.

    Args:
        bank: [N, D] standardised training features, or a view.
        targets: Theirs, of any kind.
        queries: [M, D] standardised features that are voted on, or a view.
        counts: Values of k; those above N are left out, and where none is left, N is taken.

    Yields:
        Model and its votes [M, C] on the queries.

    Raises:
        ProbeError: Bank and targets do not fit.
    """
    if len(bank) != len(targets) or not len(targets):
        raise ProbeError(f"features of {len(bank)} samples and labels of {len(targets)}", expected="as many, not none")
    usable = sorted({k for k in counts if k <= len(bank)}) or [len(bank)]
    similar, rows = neighbours(bank, queries, usable[-1])
    for k, scores in votes(similar, rows, targets, usable):
        yield KnnModel(bank, targets, k), scores
