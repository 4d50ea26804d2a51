"""Talking faces: what is seen. Determinism, expressions that come and go, micro-expressions, the true box."""

import numpy as np
import pytest

from facemae.data.synthetic import EXPRESSIONS, Region, render, sample_identity
from facemae.data.synthetic.talking import Film, Talk, sample_talk
from facemae.errors import UsageError

SIZE = 48


def pictures(talk: Talk, fps: float = 25) -> np.ndarray:
    return np.stack(list(Film(talk, SIZE).frames(fps)))


def test_the_same_numbers_give_the_same_bytes() -> None:
    first, again = (sample_talk(0, 5, 2, seconds=1) for _ in range(2))
    assert pictures(first).tobytes() == pictures(again).tobytes()
    assert first.wave().tobytes() == again.wave().tobytes()
    assert first.labels() == again.labels()
    for name, curve in first.curves().items():
        assert np.array_equal(curve, again.curves()[name]), name


@pytest.mark.parametrize("other", [(1, 5, 2), (0, 6, 2), (0, 5, 3)])
def test_seed_identity_and_sample_each_change_picture_and_sound(other: tuple[int, int, int]) -> None:
    one, two = sample_talk(0, 5, 2, seconds=1), sample_talk(*other, seconds=1)
    assert not np.array_equal(Film(one, SIZE).frame(0.5).image, Film(two, SIZE).frame(0.5).image)
    assert not np.array_equal(one.wave(), two.wave())


@pytest.mark.parametrize("whole", [False, True])
def test_a_film_draws_what_stills_are_drawn_as(whole: bool) -> None:
    talk = sample_talk(0, 3, 1, whole=whole)
    film = Film(talk, 64)
    film.frame(2.0)
    for time in (0.0, 0.9):
        frame, still = film.frame(time), render(talk.at(time), 64)
        assert np.array_equal(frame.image, still.image)
        assert np.array_equal(frame.regions, still.regions)
        assert frame.labels == still.labels


def test_the_face_is_that_of_the_stills() -> None:
    assert sample_talk(0, 4, 7).rest.identity == sample_identity(0, 4)


def test_nothing_stands_before_the_face() -> None:
    assert {sample_talk(0, i, 0).rest.scene.occlusion for i in range(60)} == {"none"}


@pytest.mark.parametrize("kind", ["talk", "silent"])
def test_an_expression_comes_stays_and_goes(kind: str) -> None:
    for identity in range(25):
        talk = sample_talk(1, identity, 0, kind=kind, seconds=2.5)  # type: ignore[arg-type]
        curve = talk.expression
        assert 0 < curve.onset < curve.top < curve.leave < curve.offset < talk.seconds
        assert curve.onset < curve.apex < curve.offset
        assert curve.level([0, curve.onset, curve.offset, talk.seconds]).tolist() == pytest.approx([0, 0, 0, 0])
        assert float(curve.level(curve.apex)) == 1
        assert set(talk.at(0).action.left) <= ({43} if kind == "silent" else {18, 20, 24, 25, 26, 43})


def test_at_the_apex_the_face_does_what_the_labels_say() -> None:
    for number, emotion in enumerate(EXPRESSIONS):
        talk = sample_talk(0, number, 0, kind="silent", emotion=emotion)
        labels, shown = talk.labels(), talk.at(talk.expression.apex).action.labels()
        assert labels["emotion"] == emotion
        closed = {
            "AU43",
            "intensity_AU43",
            *(("AU05", "AU07", "intensity_AU05", "intensity_AU07") if shown["AU43"] else ()),
        }
        for name in shown.keys() - closed:
            assert labels[name] == shown[name], (emotion, name)


def test_curves_are_smooth_and_finite() -> None:
    talk = sample_talk(0, 2, 1, emotion="surprise")
    for name, curve in talk.curves(200).items():
        assert len(curve) == 600
        assert np.isfinite(curve).all(), name
        if name.startswith("AU"):
            assert np.abs(np.diff(curve)).max() < 0.15, name
            assert 0 <= curve.min() <= curve.max() <= 1


def test_there_are_blinks() -> None:
    closed = [(sample_talk(0, i, 0, kind="silent").curves(25)["AU43"] > 0.8).mean() for i in range(20)]
    assert 0.01 < np.mean(closed) < 0.2


def test_a_micro_expression_is_short_faint_and_seen() -> None:
    for identity in range(30):
        talk = sample_talk(2, identity, 0, kind="micro", seconds=1.2)
        curve, labels = talk.expression, talk.labels(25)
        assert 0.04 <= curve.offset - curve.onset <= 0.5
        levels = [*talk.apex.left.values(), *talk.apex.right.values()]
        assert 0.25 <= min(levels) <= max(levels) <= 0.5
        first, top, last = (int(labels[f"{name}_frame"]) for name in ("onset", "apex", "offset"))
        assert 0 < first <= top <= last < 30
        assert float(curve.level(top / 25)) == pytest.approx(1)
        if identity < 6:
            change = np.abs(pictures(talk).astype(float) - pictures(talk)[0]).max(axis=(1, 2, 3))
            assert (change[:first] == 0).all()
            assert (change[last + 1 :] == 0).all()
            assert change[top] > 8
            assert change[top] >= 0.9 * change.max()


def test_frame_numbers_of_a_micro_expression_follow_the_frame_rate() -> None:
    talk = sample_talk(2, 3, 0, kind="micro")
    labels, curve = talk.labels(200), talk.expression
    assert labels["apex_frame"] == round(curve.apex * 200)
    level = curve.level(np.arange(600) / 200)
    assert [labels["onset_frame"], labels["offset_frame"]] == np.flatnonzero(level)[[0, -1]].tolist()


@pytest.mark.parametrize("whole", [False, True])
def test_the_box_is_where_the_face_is(whole: bool) -> None:
    talk = sample_talk(0, 1, 4, whole=whole)
    side = 160
    for time in (0.3, 1.7):
        left, top, right, bottom = (round(edge * side) for edge in talk.box(time))
        regions = Film(talk, side).frame(time).regions
        rows, columns = np.nonzero(np.isin(regions, [Region.SKIN, Region.NOSE, Region.UPPER_LIP, Region.LEFT_EYE]))
        assert abs(rows.max() - bottom) <= 3
        assert left - 3 <= columns.min() <= columns.max() <= right + 3
        assert top <= rows.min() + 3
        if whole:
            assert (right - left) < 0.5 * side
            assert (regions == Region.BACKGROUND).mean() > 0.3
            assert (regions[-1] == Region.CLOTHES).any()


def test_whole_frames_hold_the_whole_face_all_the_time() -> None:
    for identity in range(30):
        talk = sample_talk(0, identity, 0, whole=True)
        boxes = np.array([talk.box(time) for time in np.linspace(0, 3, 7)])
        assert boxes.min() > 0
        assert boxes.max() < 1
        assert np.ptp(boxes[:, 0]) > 0.002


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "song"}, "kind 'song'"),
        ({"emotion": "joy"}, "emotion 'joy'"),
        ({"kind": "micro", "emotion": "neutral"}, "kind micro with emotion 'neutral'"),
        ({"seconds": 0.5}, "0.5 seconds"),
        ({"seconds": float("nan")}, "nan seconds"),
        ({"lag": 1.0}, "1.0 seconds late"),
        ({"lag": 0.3, "kind": "silent"}, "kind silent"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UsageError, match=message) as raised:
        sample_talk(0, 0, 0, **wrong)
    assert raised.value.expected
