"""Times of frames where a file gives none or contradictory ones."""

from collections.abc import Sequence
from fractions import Fraction

import pytest

from facemae.video.timeline import LOOK_AHEAD, Timeline


def place(stamps: Sequence[int | None], durations: Sequence[int] | None = None) -> tuple[list[float], Timeline]:
    """Times of stamps in hundredths of a second at 10 frames a second."""
    line = Timeline(Fraction(1, 100), 0.1)
    times = []
    for number, stamp in enumerate(stamps):
        following = stamps[number + 1 :][:LOOK_AHEAD] if line.doubtful(stamp) else ()
        times.append(line.place(stamp, None if durations is None else durations[number], following)[0])
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
    assert line.repaired == 2
    assert line.origin == pytest.approx(6.8)


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


@pytest.mark.parametrize(
    ("stamps", "wrong"),
    [
        ([0, 10, 20, 530, 40, 50, 60], 1),
        ([0, 10, 20, 530, 540, 50, 60, 70], 2),
        ([0, 10, 20, 540, 530, 50, 60, 70], 2),
        ([900, 910, 920, 30, 940, 950, 960], 1),
        ([900, 910, 920, 30, 40, 950, 960, 970], 2),
        ([0, 10, 20, 70, 40, 50, 60, 70], 1),
        ([0, 10, 20, 530, 40], 1),
        ([900, 10, 20, 30, 40], 1),
        ([900, None, 20, 30, 40], 2),
    ],
)
def test_stamps_that_leave_the_others_and_come_back_move_no_other_frame(stamps: list[int | None], wrong: int) -> None:
    times, line = place(stamps)
    assert times == pytest.approx([number / 10 for number in range(len(stamps))])
    assert line.repaired == wrong


def test_the_origin_is_not_that_of_a_wrong_first_stamp() -> None:
    assert place([900, 310, 320, 330])[1].origin == pytest.approx(3.0)


def test_a_pause_is_none() -> None:
    times, line = place([0, 10, 500, 510, 520, 1500])
    assert times == pytest.approx([0, 0.1, 5, 5.1, 5.2, 15])
    assert line.repaired == 0


def test_a_section_goes_back_and_a_wrong_stamp_does_not() -> None:
    _, line = place([900, 910, 1110])
    assert line.goes_back(0, [10, 20, 30]) == pytest.approx(11.1)
    assert line.goes_back(905, [1120, 1130, 1140]) == 0
    assert line.goes_back(1020, [1030, 1040, 1050]) == 0
    assert (line.starts_anew(890), line.starts_anew(1005)) == (True, False)
