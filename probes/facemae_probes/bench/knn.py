"""The neighbour search against scikit-learn's brute force, with the same neighbours."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from facemae.bench.report import BenchResult, compare_rates, machine
from facemae.errors import ProbeError
from facemae_probes.bench.made import SAID, made_features
from facemae_probes.heads.knn import NEAR, neighbours
from facemae_probes.heads.standardise import Standardiser

Shape = tuple[int, int, int, int]
"""Bank, queries, dimensions, neighbours."""
SHAPES: tuple[Shape, ...] = ((25_000, 3_200, 384, 100), (25_000, 3_200, 768, 100), (5_000, 1_000, 384, 20))
_CHECKED_AT_ONCE = 128


def bench_knn(
    shapes: Sequence[Shape], rounds: int, *, tell: Callable[[str], None] = lambda _: None
) -> list[BenchResult]:
    """Time finding neighbours for some shapes; what scikit-learn's `fit` does counts as its own.

    Raises:
        ProbeError: Our neighbours are not those of brute force in double precision, or scikit-learn's differ by more
            than the rounding of its single precision.
    """
    return [_compare(shape, rounds, tell) for shape in shapes]


def _compare(shape: Shape, rounds: int, tell: Callable[[str], None]) -> BenchResult:
    bank_size, queries_size, dimensions, k = shape
    raw, _ = made_features(bank_size + queries_size, dimensions, 8)
    scale = Standardiser.fit(raw, np.arange(bank_size))
    bank, queries = scale(raw[:bank_size]), scale(raw[bank_size:])
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(rounds):
        tell(f"neighbours, {shape}: round {number + 1} of {rounds}")
        start = time.perf_counter()
        _, ours = neighbours(bank, queries, k)
        middle = time.perf_counter()
        model = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(bank)
        theirs = model.kneighbors(queries, return_distance=False)
        seconds["theirs"].append(time.perf_counter() - middle)
        seconds["ours"].append(middle - start)
    check_neighbours(bank, queries, ours, theirs)
    mine, other, ratio = compare_rates(seconds["ours"], seconds["theirs"])
    settings = {
        "baseline": "scikit-learn NearestNeighbors, brute force, cosine",
        **dict(zip(("bank", "queries", "dimensions", "neighbours"), shape, strict=True)),
        "features": SAID,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "places_where_the_baseline_rounds_otherwise": int((ours != theirs).sum()),
    }
    name = f"probe, {k} neighbours of {queries_size} in {bank_size} x {dimensions}"
    return BenchResult(name, mine, other, "s", 1 / ratio, settings, machine())


def check_neighbours(
    bank: NDArray[np.float32], queries: NDArray[np.float32], ours: NDArray[np.int64], theirs: NDArray[np.int64]
) -> None:
    """Compare rows found with brute force in double precision, and theirs with it up to single precision's rounding.

    Raises:
        ProbeError: They differ.
    """
    wide, asked = (each.astype(np.float64) for each in (bank, queries))
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    for start in range(0, len(asked), _CHECKED_AT_ONCE):
        part = slice(start, start + _CHECKED_AT_ONCE)
        cosine = asked[part] @ wide.T
        near = np.argpartition(-cosine, min(ours.shape[1], len(wide) - 1), axis=1)[:, : ours.shape[1]]
        best = -np.sort(-np.take_along_axis(cosine, near, axis=1), axis=1)
        # By similarity, so that rows that are equally near may stand for each other.
        for name, rows, allowed in (("ours", ours[part], 1e-12), ("the baseline's", theirs[part], NEAR)):
            off = float(np.abs(np.take_along_axis(cosine, rows, axis=1) - best).max())
            if off > allowed:
                raise ProbeError(f"{name} neighbours are off by {off:.1e} of cosine", expected=f"at most {allowed}")
