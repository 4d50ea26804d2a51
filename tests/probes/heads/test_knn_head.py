"""The kNN head against brute force in double precision, for every kind of targets."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from facemae.errors import ProbeError
from facemae.rng import generator
from facemae_probes.heads import knn
from facemae_probes.heads.knn import fit_neighbours, neighbours, votes
from facemae_probes.heads.standardise import Standardiser
from facemae_probes.tasks.targets import KINDS, MISSING, Kind, Targets
from tests.probes.heads.made import features, targets


def _brute(bank: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of products, not matrix products: equal rows have equal similarities."""
    wide, asked = (each.astype(np.float64) for each in (bank, queries))
    wide, asked = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (wide, asked))
    cosine = np.stack([(wide * query).sum(axis=1) for query in asked])
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosine, order, axis=1), order


@pytest.mark.parametrize("k", [1, 11, 70])
@pytest.mark.parametrize("elements", [2**24, 100])
def test_neighbours_are_those_of_brute_force(k: int, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "BANK_ELEMENTS", elements)
    monkeypatch.setattr(knn, "QUERIES", 7)
    rng = generator(0, "knn")
    bank, queries = (rng.normal(size=(n, 9)).astype(np.float32) for n in (70, 20))
    similar, rows = neighbours(bank, queries, k)
    expected, order = _brute(bank, queries, k)
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(similar, expected, atol=1e-6)
    theirs = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(bank.astype(np.float64))
    np.testing.assert_array_equal(rows, theirs.kneighbors(queries.astype(np.float64), return_distance=False))


@pytest.mark.parametrize("elements", [2**24, 200])
def test_of_equal_neighbours_the_first_comes_first(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies within the k nearest, and more copies than are looked at first."""
    monkeypatch.setattr(knn, "BANK_ELEMENTS", elements)
    rng = generator(1, "knn")
    apart = rng.normal(size=(6, 5)).astype(np.float32)
    bank = np.concatenate([apart[[0, 1, 2]], np.repeat(apart[3:4], 60, axis=0), apart[[4, 0, 5, 1]]])
    bank = bank[rng.permutation(len(bank))]
    for k in (1, 3, 20, len(bank)):
        similar, rows = neighbours(bank, apart, k)
        expected, order = _brute(bank, apart, k)
        np.testing.assert_array_equal(rows, order)
        np.testing.assert_allclose(similar, expected, atol=1e-6)


def test_neighbours_nearer_to_each_other_than_single_precision_tells_are_sorted() -> None:
    rng = generator(2, "knn")
    centre = rng.normal(size=64)
    bank = (centre + 1e-4 * rng.normal(size=(200, 64))).astype(np.float32)
    _, rows = neighbours(bank, centre[None].astype(np.float32), 50)
    np.testing.assert_array_equal(rows, _brute(bank, centre[None].astype(np.float32), 50)[1])


def test_a_bank_read_from_a_map_has_the_same_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", features(300, 16).astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    bank_rows, query_rows = np.arange(0, 300, 2), np.arange(1, 60, 2)
    scale = Standardiser.fit(mapped, bank_rows)
    expected = neighbours(scale(mapped, bank_rows), scale(mapped, query_rows), 10)
    monkeypatch.setattr(knn, "BANK_ELEMENTS", 400)
    found = neighbours(scale.view(mapped, bank_rows), scale.view(mapped, query_rows), 10)
    np.testing.assert_array_equal(found[1], expected[1])


def _vote(similar: object, rows: object, truth: Targets, k: int, **options: float) -> np.ndarray:
    ((_, found),) = votes(np.asarray(similar, dtype=np.float32), np.asarray(rows), truth, [k], **options)
    return found


def test_near_neighbours_outvote_many_far_ones() -> None:
    truth = Targets("classes", ("a", "b", "c"), np.array([2, 0, 0, 0]))
    similar = [[0.99, 0.5, 0.5, 0.5]]
    found = _vote(similar, [[0, 1, 2, 3]], truth, 4)
    assert found.argmax() == 2
    assert found.sum() == pytest.approx(1)
    assert _vote(similar, [[0, 1, 2, 3]], truth, 4, temperature=100.0).argmax() == 0


def test_columns_vote_with_coded_neighbours_and_else_say_the_mean() -> None:
    values = np.array([[1, MISSING, 0], [0, MISSING, MISSING], [1, 1, MISSING], [0, 0, 1], [0, 1, 0]])
    truth = Targets("multilabel", ("a", "b", "c"), values)
    np.testing.assert_allclose(_vote([[0.9] * 3], [[0, 1, 2]], truth, 3), [[2 / 3, 1, 0]], rtol=1e-6)
    np.testing.assert_allclose(_vote([[0.9] * 2], [[1, 2]], truth, 2), [[1 / 2, 1, 1 / 3]], rtol=1e-6)


def test_numbers_and_shares_are_weighted_means() -> None:
    weight = np.exp([0.0, -0.1 / 0.07])
    numbers = Targets("regression", ("a", "b"), np.array([[1.0, np.nan], [4.0, 8.0], [np.nan, 2.0]]))
    found = _vote([[0.9, 0.8]], [[0, 1]], numbers, 2)
    np.testing.assert_allclose(found, [[(weight * [1, 4]).sum() / weight.sum(), 8]], rtol=1e-5)
    np.testing.assert_allclose(_vote([[0.9]], [[0]], numbers, 1), [[1, 5]], rtol=1e-5)
    shares = Targets("distribution", ("a", "b"), np.array([[0.25, 0.75], [1, 0]]))
    mean = (weight[:, None] * shares.values).sum(axis=0) / weight.sum()
    np.testing.assert_allclose(_vote([[0.9, 0.8]], [[0, 1]], shares, 2), [mean], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_models_repeat_the_votes_they_were_chosen_by(kind: Kind) -> None:
    x = features(40, 6)
    truth = targets(kind, x, missing=True)
    queries = features(10, 6)
    found = list(fit_neighbours(x, truth, queries, counts=(1, 5, 4000)))
    assert [model.k for model, _ in found] == [1, 5]
    for model, scores in found:
        assert scores.dtype == np.float32
        assert scores.shape == (10, 4)
        np.testing.assert_allclose(model.scores(queries), scores, atol=1e-6)
    assert [model.k for model, _ in fit_neighbours(x, truth, queries, counts=(100,))] == [40]


def test_a_bank_and_labels_that_do_not_fit_are_named() -> None:
    x = features(40, 6)
    with pytest.raises(ProbeError, match="features of 39 samples and labels of 40"):
        next(fit_neighbours(x[1:], targets("classes", x), x))
