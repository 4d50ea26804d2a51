"""The steady box: still for a still face, with a moving one, blind to outliers; and what jitter means."""

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from facemae.errors import DataError
from facemae.faces import Track, jitter, share_inside, share_seen, steady_path
from facemae.faces.steady import agreed, per_frame
from facemae.rng import generator

TIMES = np.arange(100) / 25


def _track(
    x: ArrayLike, y: ArrayLike = 120.0, side: ArrayLike = 80.0, *, keep: NDArray[np.bool_] | None = None
) -> Track:
    """A face with its centre and side at `TIMES`, detected in the frames kept."""
    x, y, half = (np.broadcast_to(np.asarray(value, np.float64), TIMES.shape) for value in (x, y, np.divide(side, 2)))
    keep = np.ones(len(TIMES), bool) if keep is None else keep
    boxes = np.column_stack([x - half, y - half, x + half, y + half])[keep].astype(np.float32)
    count = int(keep.sum())
    return Track(np.flatnonzero(keep), TIMES[keep], boxes, np.full(count, 0.8, np.float32), len(TIMES))


def _noise(name: str, spread: float) -> NDArray[np.float64]:
    return generator(0, "steady", name).normal(0, spread, len(TIMES))


def _steady(track: Track, times: ArrayLike = TIMES, margin: float = 0.0) -> NDArray[np.float64]:
    return steady_path(track, times, margin=margin, smoothing=0.4)


def test_a_nearly_still_face_has_a_constant_box() -> None:
    path = _steady(_track(160 + _noise("x", 1.5), 120 + _noise("y", 1.5), 80 + _noise("side", 2)))
    assert path.shape == (100, 3)
    assert np.ptp(path, axis=0).tolist() == [0, 0, 0]
    np.testing.assert_allclose(path[0], (160, 120, 80), atol=1)
    assert jitter(path, 160) == 0


def test_a_moving_face_is_followed_without_delay() -> None:
    x = 160 + 30 * np.sin(2 * np.pi * 0.4 * TIMES)
    path = _steady(_track(x + _noise("x", 1.5)))
    assert np.abs(path[:, 0] - x).max() < 6
    lags = [np.abs(np.roll(path[:, 0], -lag) - x)[10:-10].mean() for lag in range(-5, 6)]
    assert int(np.argmin(lags)) == 5
    assert np.ptp(path[:, 2]) == 0


def test_a_face_that_walks_is_followed_to_the_ends() -> None:
    x = 100 + 40 * TIMES
    path = _steady(_track(x))
    np.testing.assert_allclose(path[:, 0], x, atol=0.5)


def test_it_is_steadier_than_the_detected_boxes() -> None:
    x = 160 + 30 * np.sin(2 * np.pi * 0.4 * TIMES)
    track = _track(x + _noise("x", 1.5), 120 + _noise("y", 1.5), 80 + _noise("side", 2))
    shaken, steady = jitter(per_frame(track, margin=0.2), 160), jitter(_steady(track, margin=0.2), 160)
    assert steady < shaken / 20
    assert shaken > 2


def test_outliers_do_not_pull_the_box_along() -> None:
    x = np.full(100, 160.0)
    x[[0, 40, 41, 99]] = 230
    side = np.full(100, 80.0)
    side[[0, 40, 41, 99]] = 150
    np.testing.assert_allclose(_steady(_track(x, side=side)), np.tile((160, 120, 80), (100, 1)), atol=1e-3)
    moving = 100 + 40 * TIMES
    pulled = np.where(np.isin(np.arange(100), [40, 41]), moving + 70, moving)
    np.testing.assert_allclose(_steady(_track(pulled))[:, 0], moving, atol=2)


def _ramp(*corners: tuple[float, float]) -> NDArray[np.float64]:
    """Piecewise linear in time: pairs of seconds and value."""
    return np.interp(TIMES, [seconds for seconds, _ in corners], [value for _, value in corners])


SWAY = 160 + 96 * np.sin(2 * np.pi * 0.5 * TIMES)
LEAN = _ramp((1.5, 160), (1.8, 240), (2.1, 240), (2.4, 160))


@pytest.mark.parametrize(
    ("x", "side"),
    [
        pytest.param(SWAY, 80.0, id="sways by more than its width"),
        pytest.param(160 + 40 * np.sin(2 * np.pi * TIMES), 80.0, id="sways fast"),
        pytest.param(LEAN, 80.0, id="leans aside for less than a second"),
        pytest.param(_ramp((1.5, 160), (1.8, 280)), 80.0, id="moves and stays"),
        pytest.param(160.0, _ramp((1, 80), (1.5, 160), (2.5, 160), (3, 80)), id="comes near and goes"),
    ],
)
@pytest.mark.parametrize("rate", [10, 25])
def test_the_face_stays_in_the_crop(x: ArrayLike, side: ArrayLike, rate: int) -> None:
    looked = np.diff(np.ceil(np.arange(-1, 100) * rate / 25)) > 0
    everywhere = _track(x, side=side)
    path = steady_path(_track(x, side=side, keep=looked), TIMES[:95], margin=0.1, smoothing=1.0)
    inside = share_inside(everywhere, TIMES[:95], path, smoothing=0)
    assert inside.min() >= 0.85


def test_a_box_moves_no_more_than_it_takes_to_hold_the_face() -> None:
    """Noise beside a lean is smoothed as it is without one."""
    x = LEAN + _noise("x", 1)
    track = _track(x, 120 + _noise("y", 1), keep=np.arange(100) % 2 == 0)
    path = steady_path(track, TIMES, margin=0.1, smoothing=1.0)
    assert jitter(path[70:], 160) < 0.3 < jitter(per_frame(track, margin=0.1)[35:], 160) / 5
    assert share_inside(track, TIMES, path, smoothing=1.0).min() > 0.8


def test_detections_that_stand_alone_are_no_face_and_those_that_agree_are() -> None:
    slips = np.full(100, 160.0)
    slips[[20, 50, 51]] = 200
    assert np.flatnonzero(~agreed(_track(slips), 1.0)).tolist() == [20, 50, 51]
    assert agreed(_track(slips), 0).all()
    assert agreed(_track(LEAN), 1.0).all()
    apart = np.full(100, 160.0)
    apart[50:53] = (200, 120, 200)
    assert np.flatnonzero(~agreed(_track(apart), 1.0)).tolist() == [50, 51, 52]


def test_the_share_inside_is_that_of_the_faces_area() -> None:
    track = _track(160.0, keep=np.isin(np.arange(100), [0, 50]))
    path = np.array([[160, 120, 80], [200, 120, 80], [160, 120, 40], [300, 120, 80]], float)
    assert share_inside(track, TIMES[:4], path, smoothing=1.0).tolist() == [1, 0.5, 0.25, 0]


def test_frames_without_a_detection_are_interpolated_and_ends_held() -> None:
    keep = np.ones(100, bool)
    keep[40:52] = False
    keep[:10] = False
    x = 100 + 40 * TIMES
    path = _steady(_track(x, keep=keep))
    np.testing.assert_allclose(path[10:, 0], x[10:], atol=1)
    assert np.ptp(path[:11, 0]) == 0


def test_the_side_follows_a_face_that_really_comes_nearer() -> None:
    side = 60 + 15 * TIMES
    path = _steady(_track(160.0, side=side + _noise("side", 2)))
    assert np.abs(path[:, 2] - side).max() < 6
    assert jitter(path, 160) < 0.2
    slightly = _steady(_track(160.0, side=80 + 2 * TIMES))
    assert np.ptp(slightly[:, 2]) == 0


def test_the_margin_is_added_on_each_side() -> None:
    assert _steady(_track(160.0), margin=0.25)[0].tolist() == [160, 120, 120]


def test_any_frames_may_be_asked_for() -> None:
    track = _track(100 + 40 * TIMES)
    uneven = np.array([0.0, 0.013, 1.5, 1.501, 9.0])
    path = _steady(track, uneven)
    np.testing.assert_allclose(path[:4, 0], 100 + 40 * uneven[:4], atol=0.5)
    assert path[4, 0] == pytest.approx(100 + 40 * TIMES[-1], abs=0.5)
    assert _steady(track, []).shape == (0, 3)


def test_the_frames_asked_for_do_not_change_each_others_boxes() -> None:
    """A face that stands still for a second and then moves moves in that second's window alike."""
    track = _track(160 + 30 * np.maximum(TIMES - 2, 0), side=80 + 20 * np.maximum(TIMES - 2, 0))
    np.testing.assert_array_equal(_steady(track, TIMES[:40]), _steady(track)[:40])
    np.testing.assert_array_equal(_steady(track, TIMES[::7]), _steady(track)[::7])


def test_one_detection_is_a_constant_box() -> None:
    keep = np.arange(100) == 7
    assert _steady(_track(160.0, keep=keep)).tolist() == [[160, 120, 80]] * 100


def test_without_smoothing_boxes_are_as_detected() -> None:
    x = 160 + _noise("x", 3)
    path = steady_path(_track(x), TIMES, margin=0, smoothing=0)
    np.testing.assert_allclose(path[:, 0], x, atol=1e-4)


def test_jitter_is_the_second_difference_of_corners_in_pixels_of_the_crop() -> None:
    path = np.tile((100.0, 100.0, 50.0), (3, 1))
    path[1, 0] += 1
    # Every corner moves by one pixel to and fro: a second difference of two pixels, four of a crop twice as large.
    assert jitter(path, 100) == pytest.approx(4)
    path[1, 0] -= 1
    path[1, 2] += 2
    # The side grows by two: every corner by one pixel in x and one in y.
    assert jitter(path, 100) == pytest.approx(2 * np.sqrt(2) * 100 / 52)
    walking = np.column_stack([np.arange(9) * 7.0, np.arange(9) * -3.0, np.full(9, 50.0)])
    assert jitter(walking, 160) == pytest.approx(0, abs=1e-9)
    assert jitter(path[:2], 100) == 0


def test_share_seen_counts_frames_of_the_track_or_the_clip() -> None:
    track = _track(160.0, keep=np.arange(100) % 4 != 0)
    assert share_seen(track) == 0.75
    assert share_seen(track, 150) == 0.5


def test_wrong_arguments_are_errors() -> None:
    track = _track(160.0)
    with pytest.raises(DataError, match=r"times of shape \[2\] that do not ascend"):
        _steady(track, [1.0, 0.5])
    with pytest.raises(DataError, match=r"margin -0.7 and smoothing 0.4 s\n  expected: a margin between"):
        _steady(track, margin=-0.7)
    with pytest.raises(DataError, match="a track without detections"):
        _steady(_track(160.0, keep=np.zeros(100, bool)))
