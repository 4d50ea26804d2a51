"""A metric by the values of a column."""

import json
from typing import Any

import numpy as np
import pytest

from facemae.errors import ProbeError, UsageError
from facemae.rng import generator
from facemae_probes.metrics import evaluate, group_samples, interval, slices
from facemae_probes.tasks.targets import Targets


def _groups() -> tuple[Targets, np.ndarray, list[Any]]:
    """Accuracy 0.9 in 200 samples of `f`, 0.6 in 200 of `m`, 0 in 6 of `x`; 94 without a value."""
    values = ["f"] * 200 + ["m"] * 200 + ["x"] * 6 + [None] * 50 + [""] * 44
    rate = np.select([np.array([v == name for v in values]) for name in ("f", "m", "x")], [0.9, 0.6, 0.0], 0.5)
    right = generator(0, "slices").random(500) < rate
    scores = np.stack([1 - right, right], axis=1).astype(np.float32)
    return Targets("classes", ("no", "yes"), np.ones(500, dtype=np.int64)), scores, values


def test_each_value_is_measured_and_the_gap_is_between_groups_with_enough_units() -> None:
    targets, scores, values = _groups()
    found = slices(targets, scores, np.arange(500), "accuracy", column="sex", values=values, unit="sample")
    assert [(group.value, group.count, group.units) for group in found.groups] == [
        ("f", 200, 200),
        ("m", 200, 200),
        ("x", 6, 6),
    ]
    for group, rows in zip(found.groups, (slice(0, 200), slice(200, 400), slice(400, 406)), strict=True):
        assert group.interval.value == evaluate(targets.take(np.arange(500)[rows]), scores[rows])["accuracy"]
    assert found.unknown is not None
    assert (found.unknown.value, found.unknown.count) == (None, 94)
    gap = found.gap
    assert gap is not None
    assert (gap.first, gap.second, gap.pairs, gap.interval.units) == ("f", "m", 1, 400)
    assert gap.interval.value is not None
    assert gap.interval.value == pytest.approx(scores[:200, 1].mean() - scores[200:400, 1].mean())
    assert gap.interval.low is not None
    assert gap.interval.high is not None
    assert 0.15 < gap.interval.low < gap.interval.value < gap.interval.high < 0.45
    assert "larger than the true one" in gap.note
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["gap"]["second"] == "m"


def test_few_units_count_as_few_however_many_samples_they_have() -> None:
    targets, scores, values = _groups()
    units = np.where(np.arange(500) < 200, np.arange(500) // 50, np.arange(500))
    found = slices(targets, scores, units, "accuracy", column="sex", values=values, unit="subject", least=5)
    assert found.groups[0].units == 4
    assert found.gap is not None
    assert (found.gap.first, found.gap.second) == ("m", "x")
    alone = slices(targets, scores, units, "accuracy", column="sex", values=values, unit="subject", least=50)
    assert alone.gap is None


def test_where_lower_is_better_the_first_has_the_larger_number() -> None:
    targets, scores, values = _groups()
    found = slices(targets, scores, np.arange(500), "cross_entropy", column="sex", values=values, unit="sample")
    assert found.gap is not None
    assert (found.gap.first, found.gap.second) == ("m", "f")


def test_one_group_of_all_is_the_whole() -> None:
    targets, scores, _ = _groups()
    found = slices(targets, scores, np.arange(500), "war", column="one", values=["a"] * 500, unit="sample")
    assert found.groups[0].interval == interval(targets, scores, np.arange(500), "war", unit="sample")
    assert found.unknown is None
    assert found.gap is None


def test_a_unit_in_two_groups_is_drawn_for_both() -> None:
    # Each unit has one sample in either group and is right in both or wrong in both: the gap is zero in every draw.
    right = np.repeat(generator(3, "both").random(50) < 0.5, 2)
    scores = np.stack([1 - right, right], axis=1).astype(np.float32)
    targets = Targets("classes", ("no", "yes"), np.ones(100, dtype=np.int64))
    units = np.repeat(np.arange(50), 2)
    found = slices(targets, scores, units, "accuracy", column="half", values=[0, 1] * 50, unit="source")
    assert found.gap is not None
    assert found.gap.interval.units == 50
    assert (found.gap.interval.value, found.gap.interval.low, found.gap.interval.high) == (0, 0, 0)


def test_numbers_are_cut_into_quartiles() -> None:
    ages = [*range(100), None, float("nan")]
    found = group_samples("age", [None if age is None else float(age) for age in ages])
    assert list(found) == ["[0, 25)", "[25, 50)", "[50, 75)", "[75, 99]", None]
    assert [len(rows) for rows in found.values()] == [25, 25, 25, 25, 2]
    assert list(group_samples("age", [str(age) for age in range(100)])) == list(found)[:4]
    # Many equal numbers: two quartiles fall together.
    uneven = group_samples("dose", [0] * 60 + list(range(1, 41)))
    assert list(uneven) == ["[0, 16)", "[16, 40]"]
    assert sum(len(rows) for rows in uneven.values()) == 100


def test_few_numbers_are_values_in_their_order() -> None:
    assert list(group_samples("n", [10.0, 9, "2", 9.0, True])) == ["2", "9", "10", "True"]


def test_a_column_that_names_every_sample_is_refused() -> None:
    with pytest.raises(UsageError, match="column 'key' has 200 values"):
        group_samples("key", [f"s{i}" for i in range(200)])
    targets, scores, values = _groups()
    with pytest.raises(ProbeError, match="499 values of column 'sex' for 500 samples"):
        slices(targets, scores, np.arange(500), "war", column="sex", values=values[1:], unit="sample")
