"""The attentive head."""

import numpy as np
import pytest

from facemae.errors import ProbeError
from facemae.rng import generator
from facemae_probes.heads.attentive import AttentiveModel, AttentiveSetting, fit_attentive
from facemae_probes.heads.linear import fit_path
from facemae_probes.heads.standardise import Standardiser
from facemae_probes.tasks.targets import KINDS, MISSING, Kind, Targets

SETTING = AttentiveSetting(lr=3e-2, epochs=12, queries=4, batch_size=32)
TRAIN, TEST = np.arange(400), np.arange(400, 600)


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


def _truth(labels: np.ndarray, kind: Kind = "classes") -> Targets:
    if kind == "classes":
        return Targets(kind, ("a", "b"), labels)
    both = np.stack([labels, 1 - labels], axis=1)
    if kind == "multilabel":
        both[::5, 1] = MISSING
        return Targets(kind, ("a", "b"), both)
    if kind == "distribution":
        return Targets(kind, ("a", "b"), 0.1 + 0.8 * both)
    numbers = 1000 + np.array([3.0, 0.01]) * both
    numbers[::5, 1] = np.nan
    return Targets(kind, ("a", "b"), numbers)


def _fit(tokens: np.ndarray, truth: Targets, seed: int = 0) -> AttentiveModel:
    models = fit_attentive(tokens, TRAIN, truth.take(TRAIN), setting=SETTING, seed=seed)
    return [model for _, model in models][-1]


def test_it_finds_the_token_that_a_mean_hides() -> None:
    tokens, labels = _tokens()
    attentive = np.mean(_fit(tokens, _truth(labels)).scores(tokens, TEST).argmax(axis=1) == labels[TEST])
    mean = tokens.astype(np.float32).mean(axis=1)
    scale = Standardiser.fit(mean, TRAIN)
    models = fit_path(scale(mean, TRAIN), _truth(labels).take(TRAIN))
    linear = max(np.mean(model.scores(scale(mean, TEST)).argmax(axis=1) == labels[TEST]) for model in models)
    assert attentive > 0.85
    assert attentive > linear + 0.1


def test_the_same_seed_gives_the_same_numbers_and_another_does_not() -> None:
    tokens, labels = _tokens()
    first, again, other = (_fit(tokens, _truth(labels), seed).scores(tokens, TEST) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_columns_shares_and_numbers_are_learned(kind: Kind) -> None:
    tokens, labels = _tokens()
    truth = _truth(labels, kind)
    scores = _fit(tokens, truth).scores(tokens, TEST)
    low, high = {"multilabel": (0, 1), "distribution": (0.1, 0.9), "regression": (1000, 1003)}[kind]
    assert np.mean((scores[:, 0] > (low + high) / 2) == labels[TEST]) > 0.85
    assert scores[labels[TEST] == 1, 0].mean() == pytest.approx(high, abs=0.25 * (high - low))
    if kind == "regression":
        assert np.mean((scores[:, 1] < 1000.005) == labels[TEST]) > 0.85
    else:
        assert scores[:, 0] + scores[:, 1] == pytest.approx(1, abs=0.4)


def test_it_is_small() -> None:
    tokens, labels = _tokens()
    pool = next(fit_attentive(tokens, TRAIN, _truth(labels[TRAIN]), setting=SETTING))[1].pool
    assert sum(p.numel() for p in pool.parameters()) == 4 * 8 + 4 * 16 + (4 * 8 + 1) * 2


def test_one_sample_is_too_few() -> None:
    tokens, labels = _tokens()
    with pytest.raises(ProbeError, match="cannot be trained on 1 samples"):
        next(fit_attentive(tokens, TRAIN[:1], _truth(labels[:1]), setting=SETTING))


@pytest.mark.parametrize("epochs", [1, 9, 10, 11, 20])
def test_any_number_of_steps_can_be_trained(epochs: int) -> None:
    """A schedule that rises over a tenth of ten steps divided by zero."""
    tokens = generator(0, "tokens").normal(size=(20, 4, 8)).astype(np.float16)
    truth = Targets("classes", ("a", "b"), np.arange(20) % 2)
    fits = list(fit_attentive(tokens, np.arange(20), truth, setting=AttentiveSetting(epochs=epochs), seed=0))
    assert [epoch for epoch, _ in fits] == list(range(1, epochs + 1))
    assert np.isfinite(fits[-1][1].scores(tokens, np.arange(20))).all()
