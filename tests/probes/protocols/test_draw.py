"""Dealing many units to parts: whole units, the classes evenly, by the seed alone."""

import numpy as np
import pytest
from numpy.typing import NDArray

from facemae.rng import generator
from facemae_probes.protocols.draw import MANY, deal_units, group_folds
from facemae_probes.tasks.targets import Targets

SHARES = (0.5, 0.3, 0.15, 0.05)


def made(singles: int, groups: int, seed: int = 0) -> tuple[NDArray[np.int64], Targets]:
    """Units of one sample, and units of two to nine samples of which most are of one class."""
    rng = generator(seed, "draw")
    sizes = np.concatenate([np.ones(singles, dtype=np.int64), rng.integers(2, 10, groups)])
    units = np.repeat(rng.permutation(len(sizes)), sizes)
    main = np.repeat(rng.choice(len(SHARES), len(sizes), p=SHARES), sizes)
    other = rng.choice(len(SHARES), len(units), p=SHARES)
    classes = np.where(rng.random(len(units)) < 0.2, other, main)
    order = rng.permutation(len(units))
    return units[order], Targets("classes", tuple("abcd"), classes[order].astype(np.int64))


@pytest.mark.parametrize(("singles", "groups"), [(29_000, 1000), (2000, 200), (0, 3000)])
def test_many_units_are_dealt_whole_and_their_classes_evenly(singles: int, groups: int) -> None:
    units, targets = made(singles, groups)
    assert singles + groups > MANY
    rows = np.arange(len(units))
    parts = group_folds(rows, units, targets, 5, 0, "folds")
    assert np.sort(np.concatenate(parts)).tolist() == rows.tolist()
    assert sum(len(np.unique(units[part])) for part in parts) == singles + groups
    counts = np.stack([np.bincount(targets.values[part], minlength=4) for part in parts])
    assert (np.ptp(counts, axis=0) <= np.maximum(2, 0.02 * counts.mean(axis=0))).all(), counts


def test_the_deal_is_that_of_the_seed_and_purpose() -> None:
    units, targets = made(1500, 100)
    rows = np.arange(len(units))

    def drawn(seed: int, purpose: str) -> list[list[int]]:
        return [part.tolist() for part in group_folds(rows, units, targets, 3, seed, purpose)]

    assert drawn(0, "folds") == drawn(0, "folds")
    assert drawn(0, "folds") != drawn(1, "folds")
    assert drawn(0, "folds") != drawn(0, "inner")


def test_units_of_one_sample_fill_up_what_large_units_leave_uneven() -> None:
    units = np.array([0] * 6 + list(range(1, 13)))
    classes = np.zeros(18, dtype=np.int64)
    part = deal_units(units, classes, 3, generator(0, "deal"))
    assert np.bincount(part).tolist() == [6, 6, 6]
    assert len(set(part[:6].tolist())) == 1


def test_what_does_not_divide_goes_to_different_parts() -> None:
    units = np.array([0, 0, *range(1, 9)])
    classes = np.array([0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    part = deal_units(units, classes, 3, generator(0, "deal"))
    assert sorted(np.bincount(part).tolist()) == [3, 3, 4]
