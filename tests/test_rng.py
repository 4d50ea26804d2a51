"""Randomness is a pure function of seed and path."""

import numpy as np

from facemae.rng import generator, integer_seed, torch_generator


def test_same_path_same_numbers_whatever_was_drawn_before() -> None:
    first = generator(1, "crop", 7).random(4)
    generator(1, "other").random(100)
    np.testing.assert_array_equal(first, generator(1, "crop", 7).random(4))


def test_different_paths_give_different_numbers() -> None:
    paths: list[tuple[str | int, ...]] = [("a", 1), ("a", "1"), ("a1",), ("a",), ("a", 1, 1), ("a", 11)]
    draws = {generator(seed, *path).random() for seed in (0, 1) for path in paths}
    assert len(draws) == 2 * len(paths)


def test_numpy_integers_key_as_python_integers() -> None:
    assert generator(0, "a", int(np.int64(3))).random() == generator(np.int64(0), "a", np.int64(3)).random()  # type: ignore[arg-type]


def test_integer_seeds_fit_every_library() -> None:
    seeds = [integer_seed(s, "x") for s in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= s < 2**63 for s in seeds)
    assert torch_generator(0, "x").initial_seed() == seeds[0]
