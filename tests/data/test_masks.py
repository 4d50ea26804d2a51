"""Masks: exact counts, whole squares, and every patch hidden equally often."""

import numpy as np
import pytest

from facemae.data.masks import draw_mask
from facemae.data.schema import MaskSpec
from facemae.errors import UsageError
from facemae.rng import generator


@pytest.mark.parametrize("kind", ["random", "block"])
@pytest.mark.parametrize(
    ("grid", "keep", "block"), [((14, 14), 49, 2), ((14, 14), 49, 4), ((6, 6), 9, 3), ((3, 7), 1, 5)]
)
def test_the_count_is_exact_and_indices_ascend(kind: str, grid: tuple[int, int], keep: int, block: int) -> None:
    for number in range(50):
        visible = draw_mask(MaskSpec(kind, grid, keep, block), generator(0, number))
        assert visible.dtype == np.int64
        assert visible.shape == (keep,)
        assert (np.diff(visible) > 0).all()
        assert 0 <= visible[0] <= visible[-1] < grid[0] * grid[1]


@pytest.mark.parametrize(("grid", "block"), [((12, 12), 2), ((12, 12), 4)])
def test_blocks_are_whole_except_one(grid: tuple[int, int], block: int) -> None:
    for keep in (36, 37):
        for number in range(20):
            hidden = np.ones(grid, dtype=bool)
            hidden.flat[draw_mask(MaskSpec("block", grid, keep, block), generator(0, number))] = False
            side = grid[0] // block
            share = hidden.reshape(side, block, side, block).mean((1, 3))
            partial = ((share > 0) & (share < 1)).sum()
            assert partial == (0 if keep % block**2 == 0 else 1)


@pytest.mark.parametrize(
    "spec", [MaskSpec("random", (6, 6), 9), MaskSpec("block", (6, 6), 9, 2), MaskSpec("block", (7, 7), 12, 2)]
)
def test_every_patch_is_seen_about_equally_often(spec: MaskSpec) -> None:
    draws = 3000
    patches = spec.grid[0] * spec.grid[1]
    counts = np.zeros(patches)
    for number in range(draws):
        counts[draw_mask(spec, generator(0, "even", number))] += 1
    share = spec.keep / patches
    assert np.abs(counts / draws - share).max() < 6 * np.sqrt(share * (1 - share) / draws)


def test_draws_differ_and_repeat_by_generator() -> None:
    spec = MaskSpec("block", (14, 14), 49, 2)
    assert draw_mask(spec, generator(0, 1)).tolist() == draw_mask(spec, generator(0, 1)).tolist()
    assert draw_mask(spec, generator(0, 1)).tolist() != draw_mask(spec, generator(0, 2)).tolist()


@pytest.mark.parametrize(
    "spec", [MaskSpec("random", (4, 4), 0), MaskSpec("random", (4, 4), 17), MaskSpec("spiral", (4, 4), 4)]
)
def test_impossible_masks_are_refused(spec: MaskSpec) -> None:
    with pytest.raises(UsageError):
        draw_mask(spec, generator(0))


def hidden_by_step(spec: MaskSpec, number: int) -> np.ndarray:
    """[steps, rows * columns] of one draw."""
    visible = draw_mask(spec, generator(3, number))
    assert visible.dtype == np.int64
    assert visible.shape == (spec.keep,)
    assert (np.diff(visible) > 0).all()
    hidden = np.ones(spec.steps * spec.grid[0] * spec.grid[1], dtype=bool)
    hidden[visible] = False
    return hidden.reshape(spec.steps, -1)


def test_a_tube_hides_the_same_patches_in_every_step() -> None:
    spec = MaskSpec("tube", (3, 4), 15, steps=5)
    draws = [hidden_by_step(spec, number) for number in range(40)]
    assert all((hidden == hidden[0]).all() and hidden[0].sum() == 9 for hidden in draws)
    assert len({hidden.tobytes() for hidden in draws}) > 30


def test_frames_hide_as_many_patches_each_drawn_anew() -> None:
    spec = MaskSpec("frame", (3, 4), 15, steps=5)
    draws = [hidden_by_step(spec, number) for number in range(40)]
    assert all((hidden.sum(axis=1) == 9).all() for hidden in draws)
    assert all(len({row.tobytes() for row in hidden}) > 1 for hidden in draws)


def test_random_tubelets_are_drawn_among_all_steps() -> None:
    counts = np.array([hidden_by_step(MaskSpec("random", (3, 4), 15, steps=5), n).sum(axis=1) for n in range(40)])
    assert (counts.sum(axis=1) == 45).all()
    assert counts.std() > 0.5


@pytest.mark.parametrize("kind", ["tube", "frame", "random"])
def test_every_tubelet_is_seen_about_equally_often(kind: str) -> None:
    draws, spec = 3000, MaskSpec(kind, (3, 4), 15, steps=5)
    share = 1 - np.mean([hidden_by_step(spec, number) for number in range(draws)], axis=0)
    assert np.abs(share - 0.25).max() < 6 * np.sqrt(0.25 * 0.75 / draws)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (MaskSpec("tube", (3, 4), 16, steps=5), "kind 'tube' keeps 16 patches in 5 steps"),
        (MaskSpec("frame", (3, 4), 16, steps=5), "a multiple of the steps: as many in each"),
        (MaskSpec("block", (4, 4), 8, steps=2), "kind 'block' on 2 steps"),
        (MaskSpec("random", (4, 4), 33, steps=2), "1 to 32 on a grid of 2x4x4"),
    ],
)
def test_masks_that_do_not_suit_the_steps_are_refused(spec: MaskSpec, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        draw_mask(spec, generator(0))
