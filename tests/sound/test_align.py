"""The window of sound beneath sampled frames."""

import pytest

from facemae.config import MelSettings
from facemae.sound.align import beneath
from facemae.sound.mel import nominal_seconds


def test_sixteen_frames_at_a_stride_of_four_span_the_window_of_hicmae() -> None:
    first = 37 / 25
    window = beneath(first, first + 15 * 4 / 25, 4 / 25)
    assert window == pytest.approx((first, 2.56))
    assert window.seconds == pytest.approx(nominal_seconds(256, MelSettings()))


@pytest.mark.parametrize("seconds", [1.0, 2.56, 5.0])
def test_another_length_keeps_the_centre(seconds: float) -> None:
    natural = beneath(0.2, 2.2, 0.04)
    window = beneath(0.2, 2.2, 0.04, seconds=seconds)
    assert window.seconds == seconds
    assert window.start + seconds / 2 == pytest.approx(natural.start + natural.seconds / 2)


def test_one_frame_has_the_sound_of_its_own_time() -> None:
    assert beneath(1.0, 1.0, 0.04) == pytest.approx((1.0, 0.04))


def test_frames_in_no_order_and_of_no_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"frames from 2\.0 to 1\.0 s"):
        beneath(2.0, 1.0, 0.04)
    with pytest.raises(ValueError, match="each 0 s"):
        beneath(1.0, 2.0, 0)
