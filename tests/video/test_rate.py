"""A constant rate out of any, against a search over all frames."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest

from facemae.rng import generator
from facemae.video.rate import END, TIE, at_rate
from facemae.video.source import Frame

PICTURE = np.zeros((1, 1, 3), np.uint8)


def frames(times: Sequence[float], last: float) -> Iterator[Frame]:
    ends = [*times[1:], times[-1] + last]
    for number, (time, end) in enumerate(zip(times, ends, strict=True)):
        yield Frame(number, time, PICTURE, end - time)


def reference(times: Sequence[float], last: float, fps: float) -> list[int]:
    """For each output the nearest of all frames; the earliest of those within `TIE` of the nearest."""
    shown: list[int] = []
    every = np.asarray(times)
    while (time := len(shown) / fps) <= every[-1] or time < every[-1] + last - END:
        distance = np.abs(every - time)
        # A tie is one between neighbours: half of `TIE` on either side of their middle.
        shown.append(int(np.flatnonzero(distance <= distance.min() + TIE)[0]))
    return shown


@pytest.mark.parametrize("source", [24, 25, Fraction(30000, 1001), 30, 50, 60, 15])
@pytest.mark.parametrize("fps", [25.0, 29.97, Fraction(30000, 1001), 30.0, 12.5, 8.0, 60.0])
@pytest.mark.parametrize("rounded", [False, True])
def test_constant_rates(source: Fraction | int, fps: float | Fraction, rounded: bool) -> None:
    times = [float(number / Fraction(source)) for number in range(77)]
    if rounded:
        times = [round(time, 3) for time in times]  # as Matroska has them
    found = [frame.number for _, frame in at_rate(frames(times, float(1 / Fraction(source))), fps)]
    assert found == reference(times, float(1 / Fraction(source)), float(fps))


@pytest.mark.parametrize("seed", range(20))
def test_a_variable_rate(seed: int) -> None:
    rng = generator(seed, "times")
    times = [0.0, *np.cumsum(rng.exponential(rng.choice([0.01, 0.04, 0.2]), 60)).tolist()]
    for fps in (8.0, 25.0, 29.97, 100.0):
        pairs = list(at_rate(frames(times, 0.05), fps))
        assert [number for number, _ in pairs] == list(range(len(pairs)))
        assert [frame.number for _, frame in pairs] == reference(times, 0.05, fps)


def test_the_same_rate_changes_nothing() -> None:
    for rate in (24, 25, Fraction(30000, 1001), 30, 60):
        times = [round(float(number / Fraction(rate)), 3) for number in range(500)]
        found = [frame.number for _, frame in at_rate(frames(times, round(float(1 / rate), 3)), rate)]
        assert found == list(range(500))


def test_ties_go_to_the_earlier_frame() -> None:
    found = [frame.number for _, frame in at_rate(frames([number / 25 for number in range(4)], 0.04), 50)]
    assert found == [0, 0, 1, 1, 2, 2, 3, 3]


def test_no_output_lies_beyond_the_last_frame() -> None:
    assert len(list(at_rate(frames([0.0, 0.5], 0.5), 4))) == 4
    assert len(list(at_rate(frames([0.0], 0.0), 25))) == 1
    assert not list(at_rate([], 25))


def test_frames_are_taken_one_at_a_time() -> None:
    taken = []

    def source() -> Iterator[Frame]:
        for frame in frames([number / 50 for number in range(100)], 0.02):
            taken.append(frame.number)
            yield frame

    for _, frame in at_rate(source(), 25):
        assert taken[-1] <= frame.number + 1


@pytest.mark.parametrize("fps", [0, -1.0, float("nan")])
def test_a_rate_that_is_none(fps: float) -> None:
    with pytest.raises(ValueError, match=r"fps is .*; it must be above zero"):
        at_rate([], fps)
