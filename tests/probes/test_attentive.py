"""The attentive probe."""

import numpy as np
import pytest

from facemae.rng import generator
from facemae_probes.attentive import AttentiveModel, AttentiveSetting, fit_attentive
from facemae_probes.linear import Standardiser, fit_path
from facemae_probes.metrics import decide, score

SETTING = AttentiveSetting(lr=3e-2, epochs=12, queries=4, batch_size=32)


def _tokens() -> tuple[np.ndarray, np.ndarray]:
    """Each image has one marked token at a random place; its sign in another dimension is the class."""
    rng = generator(0, "attentive-data")
    tokens = rng.normal(size=(600, 16, 8))
    labels = rng.integers(2, size=600)
    place = rng.integers(16, size=600)
    tokens[:, :, 1] *= 3
    tokens[np.arange(600), place, 0] += 6
    tokens[np.arange(600), place, 1] = np.where(labels, 2, -2)
    return tokens.astype(np.float16), labels.astype(np.int64)


def _fit(tokens: np.ndarray, labels: np.ndarray, seed: int = 0) -> AttentiveModel:
    rows = np.arange(400)
    models = fit_attentive(tokens, rows, labels[rows], classes=2, kind="classes", setting=SETTING, seed=seed)
    return [model for _, model in models][-1]


def test_it_finds_the_token_that_a_mean_hides() -> None:
    tokens, labels = _tokens()
    held_out = np.arange(400, 600)
    attentive = score(labels[held_out], decide(_fit(tokens, labels).scores(tokens, held_out), "classes"), 2, "classes")

    mean = tokens.astype(np.float32).mean(axis=1)
    scale = Standardiser.fit(mean[:400])
    linear = max(
        score(labels[held_out], decide(model.scores(scale(mean[held_out])), "classes"), 2, "classes")
        for model in fit_path(scale(mean[:400]), labels[:400], classes=2, kind="classes")
    )
    assert attentive > 0.85
    assert attentive > linear + 0.1


def test_the_same_seed_gives_the_same_numbers_and_another_does_not() -> None:
    tokens, labels = _tokens()
    rows = np.arange(400, 600)
    first, again, other = (_fit(tokens, labels, seed).scores(tokens, rows) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_columns_are_probabilities_of_their_own() -> None:
    tokens, labels = _tokens()
    both = np.stack([labels, 1 - labels], axis=1)
    rows = np.arange(400)
    models = fit_attentive(tokens, rows, both[rows], classes=2, kind="multilabel", setting=SETTING)
    scores = [model for _, model in models][-1].scores(tokens, np.arange(400, 600))
    assert np.mean((scores[:, 0] >= 0.5) == labels[400:]) > 0.85
    assert scores[:, 0] + scores[:, 1] == pytest.approx(1, abs=0.4)


def test_it_is_small() -> None:
    tokens, labels = _tokens()
    pool = _fit(tokens, labels).pool
    assert sum(p.numel() for p in pool.parameters()) == 4 * 8 + 4 * 16 + (4 * 8 + 1) * 2
