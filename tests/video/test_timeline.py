"""Times of frames where a file gives none or contradictory ones."""

from collections.abc import Sequence
from fractions import Fraction

import pytest

from facemae.video.timeline import Timeline


def place(stamps: Sequence[int | None], durations: Sequence[int] | None = None) -> tuple[list[float], Timeline]:
    """Times of stamps in hundredths of a second at 10 frames a second."""
    line = Timeline(Fraction(1, 100), 0.1)
    times = [
        line.place(stamp, None if durations is None else durations[number])[0] for number, stamp in enumerate(stamps)
    ]
    return times, line


def test_good_timestamps_are_kept() -> None:
    times, line = place([250, 253, 300, 1000])
    assert times == pytest.approx([0, 0.03, 0.5, 7.5])
    assert (line.repaired, line.origin) == (0, 2.5)


def test_a_missing_timestamp_follows_the_frame_before() -> None:
    times, line = place([0, None, None, 30], [10, 10, 10, 10])
    assert times == pytest.approx([0, 0.1, 0.2, 0.3])
    assert line.repaired == 2
    times, line = place([None, None, 700, 710], [10, 10, 10, 10])
    assert times == pytest.approx([0, 0.1, 0.2, 0.3])
    assert (line.repaired, line.origin) == (2, pytest.approx(6.8))


def test_one_that_does_not_rise_moves_that_frame_only() -> None:
    times, line = place([0, 10, 20, 20, 15, 30, 40])
    assert times == pytest.approx([0, 0.1, 0.2, 0.21, 0.22, 0.3, 0.4])
    assert line.repaired == 2


def test_one_that_goes_far_back_begins_a_section() -> None:
    """Two files joined: the second one's clock starts anew."""
    times, line = place([900, 910, 920, 0, 10, 25])
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.55])
    assert (line.repaired, line.origin) == (1, 9.0)


def test_durations_are_the_files_or_the_distance_before() -> None:
    line = Timeline(Fraction(1, 100), 0.1)
    found = [line.place(stamp, duration) for stamp, duration in ((0, None), (30, None), (40, 7))]
    assert found == [pytest.approx(pair) for pair in ((0, 0.1), (0.3, 0.3), (0.4, 0.07))]
