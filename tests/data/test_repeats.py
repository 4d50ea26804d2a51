"""Batches repeat persons and shards as random batches would; a small shuffle buffer over sorted data would not."""

import numpy as np
import pytest

from facemae.data.order import Order
from facemae.data.repeats import batch_repeats
from facemae.errors import UsageError
from facemae.rng import generator

SHARDS, SIZE, BATCH, LANES = 100, 200, 128, 8
TOTAL = SHARDS * SIZE
SIZES = np.full(SHARDS, SIZE)
SHARD_OF = np.repeat(np.arange(SHARDS), SIZE)


def test_persons_repeat_as_in_random_batches() -> None:
    persons = generator(0, "persons").permutation(TOTAL) // 100
    found = batch_repeats(Order(SIZES, seed=0, lanes=LANES), persons, BATCH, epochs=10)
    assert found.batches == 10 * (TOTAL // BATCH)
    assert abs(found.ratio - 1) <= 0.02
    assert abs(found.stratified_ratio - 1) <= 0.02


def test_shards_repeat_as_in_stratified_batches_and_no_more_than_in_plain_random_ones() -> None:
    found = batch_repeats(Order(SIZES, seed=0, lanes=LANES), SHARD_OF, BATCH, epochs=10)
    assert abs(found.stratified_ratio - 1) <= 0.02
    assert found.ratio <= 1.02
    # Where lanes cut hardly any shard, only the pairs within a lane are left.
    assert abs(found.stratified / found.random / ((BATCH - LANES) / (BATCH - 1)) - 1) <= 0.02


def test_the_stratified_expectation_is_that_of_drawing() -> None:
    order = Order([7, 5, 9, 3, 8], seed=2, lanes=4)
    shard_of = np.repeat(np.arange(5), [7, 5, 9, 3, 8])
    lanes = [shard_of[order.samples(lane, np.arange(order.lane_length))] for lane in range(4)]
    rng, pairs, draws = generator(0, "draws"), 0, 4000
    for _ in range(draws):
        batch = np.concatenate([rng.permutation(lane)[:3] for lane in lanes])
        counts = np.bincount(batch)
        pairs += int((counts * (counts - 1)).sum()) // 2
    assert batch_repeats(order, shard_of, 12, epochs=1).stratified == pytest.approx(pairs / draws, rel=0.02)


def test_one_lane_repeats_shards_as_random_batches_do() -> None:
    found = batch_repeats(Order(SIZES, seed=0, lanes=1), SHARD_OF, BATCH, epochs=10)
    assert abs(found.ratio - 1) <= 0.02


def test_the_measure_sees_a_small_block_over_sorted_persons() -> None:
    sorted_persons = np.arange(TOTAL) // 100
    found = batch_repeats(Order(SIZES, seed=0, lanes=LANES, block=50), sorted_persons, BATCH, epochs=1)
    assert found.ratio > 10


def test_pairs_are_counted_within_batches_and_unknown_groups_with_none() -> None:
    order = Order([6], seed=0, lanes=1, block=1)
    same = batch_repeats(order, np.zeros(6, dtype=np.int64), 3, epochs=1)
    assert (same.pairs, same.random, same.stratified, same.batches) == (3, 3, 3, 2)
    unknown = batch_repeats(order, np.array([0, 0, 0, 0, -1, -1]), 6, epochs=1)
    assert unknown.pairs == 6


def test_what_cannot_be_measured_is_refused() -> None:
    order = Order([16], seed=0, lanes=4)
    with pytest.raises(UsageError, match="a multiple of 4, at most 16"):
        batch_repeats(order, np.zeros(16, dtype=np.int64), 6, epochs=1)
    with pytest.raises(UsageError, match="no two samples share"):
        batch_repeats(order, np.arange(16), 8, epochs=1)
