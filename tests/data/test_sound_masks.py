"""Masks of spectrograms: exact counts, whole moments and bands, every patch seen about equally often."""

import numpy as np
import pytest

from facemae.data.schema import MaskSpec
from facemae.data.sound_masks import KINDS, draw_sound_mask
from facemae.errors import UsageError
from facemae.rng import generator

GRID = (12, 6)


def hidden(spec: MaskSpec, number: int) -> np.ndarray:
    mask = np.ones(spec.grid, dtype=bool)
    mask.flat[draw_sound_mask(spec, generator(0, number))] = False
    return mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [1, 14, 18, 71, 72])
def test_masks_keep_the_exact_count_in_ascending_order(kind: str, keep: int) -> None:
    for number in range(20):
        visible = draw_sound_mask(MaskSpec(kind, GRID, keep), generator(0, number))
        assert visible.dtype == np.int64
        assert visible.shape == (keep,)
        assert (np.diff(visible) > 0).all()
        assert 0 <= visible[0] <= visible[-1] < 72


@pytest.mark.parametrize(("kind", "axis"), [("time", 1), ("frequency", 0)])
def test_moments_and_bands_are_hidden_whole_but_for_one(kind: str, axis: int) -> None:
    for keep in (24, 25):
        for number in range(20):
            share = hidden(MaskSpec(kind, GRID, keep), number).mean(axis=axis)
            assert ((share > 0) & (share < 1)).sum() == (keep == 25)


def test_time_and_frequency_together_hide_equal_shares_of_both() -> None:
    # Half of 12 moments and half of 6 bands leave 6 x 3 patches.
    for number in range(20):
        mask = hidden(MaskSpec("time_frequency", GRID, 18), number)
        assert (mask.all(axis=1).sum(), mask.all(axis=0).sum()) == (6, 3)
        seen = ~mask[~mask.all(axis=1)][:, ~mask.all(axis=0)]
        assert seen.all()


def test_random_masks_hide_no_whole_moments_as_a_rule() -> None:
    whole = [int(hidden(MaskSpec("random", GRID, 36), number).all(axis=1).sum()) for number in range(50)]
    assert np.mean(whole) < 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_patch_is_heard_about_equally_often(kind: str) -> None:
    draws, keep = 3000, 18
    counts = np.zeros(72)
    for number in range(draws):
        counts[draw_sound_mask(MaskSpec(kind, GRID, keep), generator(0, "even", number))] += 1
    share = keep / 72
    assert np.abs(counts / draws - share).max() < 6 * np.sqrt(share * (1 - share) / draws)


def test_draws_differ_and_repeat_by_generator() -> None:
    spec = MaskSpec("time_frequency", GRID, 18)
    first, again, other = (draw_sound_mask(spec, generator(0, number)).tolist() for number in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (MaskSpec("random", (4, 2), 0), r"keeps 0 patches\n.*1 to 8 on a grid of 4x2"),
        (MaskSpec("time", (4, 2), 9), "keeps 9 patches"),
        (MaskSpec("block", (4, 2), 4), r"'block' is unknown\n.*random, time, frequency, time_frequency"),
    ],
)
def test_impossible_masks_are_refused(spec: MaskSpec, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        draw_sound_mask(spec, generator(0))
