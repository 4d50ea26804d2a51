"""The kNN probe against brute force."""

import numpy as np
import pytest

from facemae.rng import generator
from facemae_probes.knn import fit_neighbours, neighbours, vote
from facemae_probes.metrics import MISSING


def test_neighbours_are_those_of_brute_force() -> None:
    rng = generator(0, "knn")
    bank, queries = (rng.normal(size=(n, 9)).astype(np.float32) for n in (70, 20))
    similar, rows = neighbours(bank, queries, 11)
    unit_bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    unit_queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    cosine = unit_queries @ unit_bank.T
    expected = np.argsort(-cosine, axis=1)[:, :11]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(similar, np.take_along_axis(cosine, expected, axis=1), atol=1e-6)


def test_near_neighbours_outvote_many_far_ones() -> None:
    similar = np.array([[0.99, 0.5, 0.5, 0.5]], dtype=np.float32)
    labels = np.array([2, 0, 0, 0])
    votes = vote(similar, np.arange(4)[None], labels, classes=3, kind="classes", k=4)
    assert votes.argmax() == 2
    assert votes.sum() == pytest.approx(1)
    even = vote(similar, np.arange(4)[None], labels, classes=3, kind="classes", k=4, temperature=100)
    assert even.argmax() == 0


def test_columns_vote_with_coded_neighbours_only() -> None:
    similar = np.full((1, 3), 0.9, dtype=np.float32)
    labels = np.array([[1, MISSING], [0, MISSING], [1, 1]])
    votes = vote(similar, np.arange(3)[None], labels, classes=2, kind="multilabel", k=3)
    np.testing.assert_allclose(votes, [[2 / 3, 1]], rtol=1e-6)


def test_models_repeat_the_votes_they_were_chosen_by() -> None:
    rng = generator(1, "knn")
    bank, queries = (rng.normal(size=(n, 6)).astype(np.float32) for n in (40, 10))
    labels = rng.integers(3, size=40)
    found = list(fit_neighbours(bank, labels, queries, classes=3, kind="classes", counts=(1, 5, 4000)))
    assert [model.k for model, _ in found] == [1, 5]
    for model, votes in found:
        np.testing.assert_allclose(model.scores(queries), votes, atol=1e-6)
