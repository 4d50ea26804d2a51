"""Order and plan: a permutation, blind to world size, different by seed and epoch, and computed without a list."""

import copy
from collections import Counter

import numpy as np
import pytest

from facemae.data.order import Feistel, Order
from facemae.data.plan import Plan
from facemae.errors import UsageError
from facemae.rng import generator

SIZES = [101, 7, 33, 1, 60]
TOTAL = sum(SIZES)


def epoch_samples(order: Order, epoch: int) -> list[int]:
    positions = np.arange(epoch * order.lane_length, (epoch + 1) * order.lane_length)
    return [int(sample) for lane in range(order.lanes) for sample in order.samples(lane, positions)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 1000])
def test_the_keyed_permutation_is_one(size: int) -> None:
    assert sorted(Feistel(size, generator(0, size))(np.arange(size))) == list(range(size))


def test_the_keyed_permutation_reaches_all_orders_about_equally() -> None:
    counts = Counter(tuple(Feistel(4, generator(1, i))(np.arange(4)).tolist()) for i in range(4800))
    assert len(counts) == 24
    # 200 are expected of each; the bound is eight standard deviations.
    assert max(abs(count - 200) for count in counts.values()) < 8 * np.sqrt(200)


def test_neighbours_before_are_not_neighbours_after() -> None:
    moved = Feistel(10_000, generator(0, "spread"))(np.arange(10_000))
    assert abs(np.corrcoef(moved[:-1], moved[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(np.arange(10_000), moved)[0, 1]) < 0.05


@pytest.mark.parametrize("block", [None, 1, 7, 1000])
@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_an_epoch_reads_each_sample_at_most_once(lanes: int, block: int | None) -> None:
    order = Order(SIZES, seed=0, lanes=lanes, block=block)
    for epoch in range(3):
        samples = epoch_samples(order, epoch)
        assert len(samples) == len(set(samples)) == TOTAL // lanes * lanes
        assert 0 <= min(samples) <= max(samples) < TOTAL


def test_the_samples_that_sit_out_change_even_with_one_shard() -> None:
    order = Order([43], seed=0, lanes=8)
    out = {epoch: frozenset(range(43)) - set(epoch_samples(order, epoch)) for epoch in range(6)}
    assert {len(samples) for samples in out.values()} == {43 % 8}
    assert len(set(out.values())) > 1


def test_epochs_seeds_and_streams_differ() -> None:
    order = Order(SIZES, seed=0, lanes=4)
    first = epoch_samples(order, 0)
    assert first != epoch_samples(order, 1)
    assert first != epoch_samples(Order(SIZES, seed=1, lanes=4), 0)
    assert first != epoch_samples(Order(SIZES, seed=0, lanes=4, stream="other"), 0)
    assert first == epoch_samples(Order(SIZES, seed=0, lanes=4), 0)


def test_one_position_does_not_depend_on_what_was_asked_before() -> None:
    order = Order(SIZES, seed=0, lanes=4)
    positions = np.arange(3 * order.lane_length)
    together = order.samples(2, positions).tolist()
    fresh = copy.deepcopy(order)
    assert [fresh.sample(2, int(position)) for position in reversed(positions)] == together[::-1]


def test_blocks_keep_reads_close() -> None:
    order = Order([1000], seed=0, lanes=1, block=10)
    samples = order.samples(0, np.arange(1000)).reshape(-1, 10)
    # Ten samples in a row come from ten neighbouring places, unless the sequence's turn falls between them.
    assert sum(np.ptp(row) == 9 for row in samples) >= 99
    assert any((np.diff(row) < 0).any() for row in samples)


def test_a_lane_reads_only_its_shards() -> None:
    order = Order([100] * 40, seed=0, lanes=8)
    lane = order.samples(3, np.arange(order.lane_length))
    assert len(np.unique(lane // 100)) <= 6  # five shards' worth, and a cut at either end


def test_a_subset_is_read_and_nothing_else() -> None:
    subset = np.flatnonzero(np.arange(TOTAL) % 3 == 1)
    order = Order(SIZES, seed=0, lanes=4, subset=subset)
    samples = epoch_samples(order, 0)
    assert len(set(samples)) == len(subset) // 4 * 4
    assert set(samples) <= set(subset.tolist())


def test_neighbours_stay_in_the_subset_and_wrap() -> None:
    assert Order(SIZES, seed=0, lanes=1).neighbour(TOTAL - 1) == 0
    order = Order(SIZES, seed=0, lanes=1, subset=np.array([3, 50, 51]))
    assert [order.neighbour(i) for i in (3, 50, 51)] == [50, 51, 3]


def test_too_few_samples_and_bad_subsets_are_refused() -> None:
    with pytest.raises(UsageError, match="3 samples for 8 lanes"):
        Order([3], seed=0, lanes=8)
    with pytest.raises(UsageError, match="ascending"):
        Order([10], seed=0, lanes=1, subset=np.array([4, 3]))


def test_ten_million_samples_need_no_list() -> None:
    import tracemalloc

    tracemalloc.start()
    order = Order([10_000] * 1000, seed=0, lanes=8)
    order.samples(7, np.arange(10**9, 10**9 + 64))
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def plan(batch: int = 24, lanes: int = 4, shares: tuple[int, ...] = (1,)) -> Plan:
    names = ("faces", "others", "third")
    return Plan(
        [(name, Order(SIZES, seed=0, lanes=lanes, stream=name), share) for name, share in zip(names, shares)],  # noqa: B905
        batch,
        lanes,
    )


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("shares", [(1,), (1, 2)])
def test_all_processes_together_read_the_same_global_batch(world: int, shares: tuple[int, ...]) -> None:
    whole = plan(shares=shares)
    for step in (0, 1, 9, 1000):
        parts = [slot for rank in range(world) for slot in whole.slots(step, rank, world)]
        assert parts == whole.slots(step)
        assert len(parts) == 24
        assert whole.first_slot(world - 1, world) == 24 - 24 // world


def test_slot_j_reads_its_lane() -> None:
    assert [slot.lane for slot in plan().slots(5)] == [j * 4 // 24 for j in range(24)]


def test_batches_straddle_epochs_without_gap_or_repeat() -> None:
    p = plan()
    order = p.orders["faces"]
    steps = -(-order.lane_length // 6) + 1
    slots = [slot for step in range(steps) for slot in p.slots(step)]
    first = [slot.sample for slot in slots if slot.epoch == 0]
    assert len(first) == len(set(first)) == order.used_samples
    straddling = p.slots(order.lane_length // 6)
    assert {slot.epoch for slot in straddling} == {0, 1}


def test_illegal_settings_list_the_legal_ones() -> None:
    with pytest.raises(UsageError, match="one of 1, 2, 3, 4, 6, 12 processes"):
        plan(batch=24, lanes=12).slots(0, 0, 5)
    with pytest.raises(UsageError, match="a multiple of 4: 24, 28, 32"):
        plan(batch=25)
    with pytest.raises(UsageError, match=r"shares 1:2\n.*a multiple of 12: 12, 24, 36"):
        plan(batch=20, shares=(1, 2))
    with pytest.raises(UsageError, match="a multiple of 4: 4, 8"):
        plan(batch=0)
