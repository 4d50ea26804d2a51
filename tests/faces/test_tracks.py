"""Detections become persons: linked, bridged, told apart; what is no face is dropped."""

from collections.abc import Sequence

import numpy as np
import pytest

from facemae.errors import DataError
from facemae.faces import Face, Frame, Track, Tracker
from facemae.faces.cascade import CascadeDetector
from facemae.faces.detector import best_first
from facemae.rng import generator

RATE = 25.0


def _face(x: float, y: float = 50.0, side: float = 40.0, score: float = 0.8) -> Face:
    return Face((x, y, x + side, y + side), score)


def _track(frames: Sequence[Sequence[Face]], tracker: Tracker | None = None) -> list[Track]:
    tracker = tracker or Tracker()
    for number, faces in enumerate(frames):
        tracker.add(number, number / RATE, faces)
    return tracker.finish()


def test_one_face_is_one_track_of_all_its_frames() -> None:
    (track,) = _track([[_face(10 + 3 * number)] for number in range(30)])
    assert track.numbers.tolist() == list(range(30))
    np.testing.assert_allclose(track.times, np.arange(30) / RATE)
    assert track.boxes.dtype == np.float32
    assert track.boxes[29].tolist() == [97, 50, 137, 90]
    assert (len(track), track.looked) == (30, 30)


def test_two_faces_in_drawn_frames_are_two_tracks(detector: CascadeDetector, two_faces: Frame) -> None:
    frames = [np.roll(two_faces, shift, axis=1) for shift in (0, 2, 4, 6)]
    left, right = sorted(_track([detector.detect(frame) for frame in frames]), key=lambda track: track.boxes[0, 0])
    assert len(left) == len(right) == 4
    assert left.boxes[:, 2].max() < 175
    assert right.boxes[:, 0].min() > 160


def test_faces_in_any_order_keep_their_tracks() -> None:
    frames = [[_face(10 + number), _face(200 - number)][:: 1 if number % 2 else -1] for number in range(20)]
    tracks = _track(frames)
    assert sorted(track.boxes[0, 0] for track in tracks) == [10, 200]
    assert all(np.abs(np.diff(track.boxes[:, 0])).max() == 1 for track in tracks)


def test_the_pairs_overlap_most_in_sum() -> None:
    # Nearest first would give the second face to the first track, and leave the first without one.
    frames = [[_face(0), _face(30)]] * 15 + [[_face(12), _face(44)]] * 15
    tracks = _track(frames)
    assert sorted(track.boxes[-1, 0] for track in tracks) == [12, 44]
    assert [len(track) for track in tracks] == [30, 30]


def test_gaps_are_bridged_up_to_a_time() -> None:
    frames = [[_face(10)] for _ in range(40)]
    frames[15:27] = [[]] * 12  # 0.52 s from the last detection to the next
    assert len(_track(frames)) == 2
    (track,) = _track(frames, Tracker(bridge=0.53))
    assert (len(track), track.looked) == (28, 40)
    assert track.numbers.tolist() == [*range(15), *range(27, 40)]


def test_a_false_positive_is_dropped() -> None:
    frames = [[_face(10)] for _ in range(40)]
    frames[20] = [_face(10), _face(200)]
    frames[21] = [_face(10), _face(201)]
    (track,) = _track(frames)
    assert track.boxes[:, 0].tolist() == [10] * 40


def test_what_is_seen_seldom_or_weakly_is_dropped() -> None:
    seldom = [[_face(10)] if number % 5 == 0 else [] for number in range(40)]
    assert _track(seldom) == []
    assert len(_track(seldom, Tracker(least_share=0.2))) == 1
    weak = [[_face(10, score=0.6 if number == 0 else 0.2)] for number in range(40)]
    assert _track(weak) == []
    assert len(_track(weak, Tracker(least_score=0.2))) == 1


def test_weak_detections_continue_a_track_but_start_none() -> None:
    weak, strong = [_face(10, score=0.35)], [_face(10, score=0.7)]
    assert _track([weak] * 40) == []
    (track,) = _track([weak] * 10 + [strong] + [weak] * 29)
    assert track.numbers[0] == 10
    assert len(track) == 30


def test_a_clip_shorter_than_a_track_may_be_keeps_its_face() -> None:
    (track,) = _track([[_face(10)]] * 3)
    assert len(track) == 3
    tracker = Tracker()
    tracker.add(0, 0.0, [_face(10)])
    assert len(tracker.finish()) == 1


def test_the_most_prominent_comes_first() -> None:
    frames = [[_face(10, side=30), _face(100, side=60)] for _ in range(20)] + [[_face(10, side=30)]] * 10
    assert [track.boxes[0, 0] for track in _track(frames)] == [100, 10]


def test_no_face_at_all_is_no_track() -> None:
    assert _track([[]] * 10) == []
    assert Tracker().finish() == []


def test_a_tracker_can_be_used_again() -> None:
    tracker = Tracker(bridge=0.2)
    for _ in range(2):
        (track,) = _track([[_face(10)]] * 20, tracker)
        assert track.numbers[0] == 0


def test_frames_out_of_order_are_an_error() -> None:
    tracker = Tracker()
    tracker.add(3, 0.12, [])
    with pytest.raises(
        DataError, match=r"frame 3 at 0.160 s after frame 3 at 0.120 s\n  expected: frames in the order"
    ):
        tracker.add(3, 0.16, [])
    with pytest.raises(DataError, match=r"frame 4 at 0.080 s"):
        tracker.add(4, 0.08, [])


def _crossings(way: str, trials: int = 60) -> tuple[int, int]:
    """Tracks of two noisy faces that meet, and those of them that hold detections of both."""
    tracks = mixed = 0
    for trial in range(trials):
        rng = generator(0, "crossing", trial)
        speed, apart, nearest = rng.uniform(3, 20), rng.uniform(-10, 10), rng.uniform(0, 50)
        tracker, owners = Tracker(), dict[float, int]()
        for number in range(int(300 / speed)):
            x = number * speed
            if way == "bounce":
                x = min(x, 300 - nearest - x)
            faces = []
            for owner, (left, top) in enumerate([(x, 50.0), (300 - x, 50 + apart)]):
                score = float(np.clip(rng.normal(0.7, 0.1), 0.3, 1.0))
                face = _face(left + float(rng.normal(0, 2)), top, 60, score)
                owners[float(np.float32(face.box[0]))] = owner
                faces.append(face)
            tracker.add(number, number / 10, best_first(faces))
        for track in tracker.finish():
            tracks += 1
            mixed += len({owners[float(box[0])] for box in track.boxes}) > 1
    return tracks, mixed


@pytest.mark.parametrize("way", ["pass", "bounce"])
def test_faces_that_cross_are_not_mixed(way: str) -> None:
    tracks, mixed = _crossings(way)
    assert tracks > 150
    assert mixed <= 0.04 * tracks


def test_nobody_is_followed_through_a_crossing_and_both_go_on_behind_it() -> None:
    frames = [best_first([_face(4 * number), _face(200 - 4 * number, score=0.7)]) for number in range(50)]
    tracks = _track(frames)
    assert len(tracks) == 4
    assert sorted(bool(track.boxes[-1, 0] > track.boxes[0, 0]) for track in tracks) == [False, False, True, True]
    assert all(np.all(np.diff(np.sign(np.diff(track.boxes[:, 0]))) == 0) for track in tracks)


def test_a_cut_ends_all_tracks() -> None:
    tracker = Tracker()
    for number in range(40):
        if number == 25:
            tracker.cut()
        tracker.add(number, number / RATE, [_face(10)])
    assert [track.numbers[[0, -1]].tolist() for track in tracker.finish()] == [[0, 24], [25, 39]]


def test_what_is_dropped_is_told_with_its_reason() -> None:
    tracker = Tracker()
    frames: list[list[Face]] = [[] for _ in range(80)]
    frames[3] = frames[4] = [_face(10)]
    for number in range(30, 60, 6):
        frames[number] = [_face(10)]
    frames[70] = [_face(10, score=0.2)]
    assert _track(frames, tracker) == []
    assert [(drop.kind, drop.start, drop.frames) for drop in tracker.dropped] == [
        ("short", 0.12, 2),
        ("seldom", 1.2, 5),
        ("weak", 2.8, 1),
    ]
    assert [drop.reason for drop in tracker.dropped] == [
        "0.08 s, less than 0.4 s",
        "detected in 20% of the frames, less than 30%",
        "a score of at most 0.20, below 0.4, starts no track",
    ]
    _track([[_face(10)]] * 20, tracker)
    assert tracker.dropped == ()
