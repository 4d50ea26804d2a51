"""Talking faces: what single frames tell and what only motion or sound does."""

from collections import Counter
from itertools import combinations, compress

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from facemae.data.synthetic import ACTION_UNITS
from facemae.data.synthetic.talking import Circle, Talk, sample_talk

UNITS = (*ACTION_UNITS, 18)
COUNT = 400
PEOPLE = 40


@pytest.fixture(scope="module")
def talks() -> list[Talk]:
    return [sample_talk(7, k % PEOPLE, k // PEOPLE) for k in range(COUNT)]


def still(talk: Talk, time: float) -> list[float]:
    """All that one frame shows of what changes: action units and pose."""
    params = talk.at(time)
    pose = params.scene.pose
    rest = talk.rest.scene.pose
    return [*(params.action.level(unit) for unit in UNITS), pose.yaw - rest.yaw, pose.pitch - rest.pitch]


def motion(talk: Talk) -> list[float]:
    """What the order of frames shows: which way the head goes round, how fast mouth and expression change."""
    times = np.arange(0, 3, 1 / 15)
    frames = np.array([still(talk, time) for time in times.tolist()])
    yaw, nod = frames[:, -2], frames[:, -1]
    turning = np.mean(yaw[:-1] * np.diff(nod) - nod[:-1] * np.diff(yaw))
    mouth = np.abs(np.diff(frames[:, UNITS.index(26)])).mean()
    steps = np.diff(talk.expression.level(times))
    return [float(turning), float(mouth), float((np.abs(steps) * steps).sum())]


@pytest.fixture(scope="module")
def moved(talks: list[Talk]) -> list[list[float]]:
    return [motion(talk) for talk in talks]


def accuracy(features: list[list[float]], labels: list[bool], degree: int = 2) -> float:
    model = make_pipeline(
        StandardScaler(), PolynomialFeatures(degree), StandardScaler(), LogisticRegression(C=0.01, max_iter=500)
    )
    return float(cross_val_score(model, np.array(features), np.array(labels), cv=5).mean())


@pytest.mark.parametrize(
    ("label", "value", "least"), [("circling", "clockwise", 0.97), ("tempo", "sudden", 0.9), ("rate", "fast", 0.85)]
)
def test_motion_tells_what_no_single_frame_does(
    talks: list[Talk], moved: list[list[float]], label: str, value: str, least: float
) -> None:
    has = [label in talk.labels() for talk in talks]
    chosen = list(compress(talks, has))
    truth = [talk.labels()[label] == value for talk in chosen]
    times = np.random.Generator(np.random.Philox(5)).uniform(0, 3, len(chosen))
    frames = [still(talk, time) for talk, time in zip(chosen, times.tolist(), strict=True)]
    assert abs(accuracy(frames, truth) - 0.5) < 0.1
    assert accuracy(list(compress(moved, has)), truth) > least


def test_all_frames_without_their_order_do_not_tell_tempo_or_circling(talks: list[Talk]) -> None:
    chosen = [talk for talk in talks if "tempo" in talk.labels()]
    times = np.arange(0, 3, 1 / 12)
    bags = []
    for talk in chosen:
        frames = np.array([still(talk, time) for time in times])[:, [-2, -1]]
        level = talk.expression.level(times)
        bags.append([level.mean(), level.std(), *np.quantile(level, [0.3, 0.5, 0.7]), *frames.mean(0), *frames.std(0)])
    for label, value in (("tempo", "sudden"), ("circling", "clockwise")):
        assert abs(accuracy(bags, [talk.labels()[label] == value for talk in chosen]) - 0.5) < 0.1


def test_where_a_head_is_says_nothing_about_its_way_round() -> None:
    """For every clip one with the other turn is as likely and is in the same place at any one time."""
    for time in (0.0, 0.7, 2.3):
        one = Circle(8, 5, period=2.0, phase=1.0, turn=1)
        two = Circle(8, 5, period=2.0, phase=1.0 + 4 * np.pi * time / 2.0, turn=-1)
        assert one.at(time) == pytest.approx(two.at(time))
        assert one.at(time + 0.1) != pytest.approx(two.at(time + 0.1))


def test_sound_tells_what_no_picture_does(talks: list[Talk], moved: list[list[float]]) -> None:
    """Pitch over the person's usual one, and whether it rises in phrases; nothing that is seen is related to either."""
    seen = [order + still(talk, 1.5) for talk, order in zip(talks, moved, strict=True)]
    for label, value in (("register", "high"), ("intonation", "rising")):
        truth = [talk.labels()[label] == value for talk in talks]
        assert abs(accuracy(seen, truth, degree=1) - 0.5) < 0.1
    heard = []
    for talk in talks[:200]:
        labels, curves = talk.labels(), talk.curves(25)
        pitch = 12 * np.log2(curves["pitch"])
        slope = np.median(np.diff(pitch)[curves["loudness"][1:] > 0.02])
        heard.append([12 * np.log2(float(labels["pitch"]) / float(labels["base_pitch"])), float(slope)])
    for label, value in (("register", "high"), ("intonation", "rising")):
        assert accuracy(heard, [talk.labels()[label] == value for talk in talks[:200]], degree=1) > 0.9


def test_labels_are_independent_of_the_person_and_of_each_other(talks: list[Talk]) -> None:
    names = {"circling": "clockwise", "tempo": "sudden", "rate": "fast", "register": "high", "intonation": "rising"}
    rows = [talk.labels() for talk in talks if "tempo" in talk.labels()]
    coins = np.array([[row[name] == value for name, value in names.items()] for row in rows], float)
    assert np.abs(coins.mean(axis=0) - 0.5).max() < 0.1
    for one, two in combinations(range(len(names)), 2):
        assert abs(np.corrcoef(coins[:, one], coins[:, two])[0, 1]) < 0.18
    emotions = sorted({str(row["emotion"]) for row in rows})
    for emotion in emotions:
        assert np.abs(coins[[row["emotion"] == emotion for row in rows]].mean(axis=0) - 0.5).max() < 0.3
    people = Counter(str(row["identity"]) for row in rows)
    mixed = [len({row[name] for row in rows if row["identity"] == person}) for person in people for name in names]
    assert np.mean(np.array(mixed) == 2) > 0.95


def test_a_label_without_meaning_is_left_out() -> None:
    talk, silent, micro = (
        sample_talk(0, 1, 1, kind=kind, emotion="fear").labels() for kind in ("talk", "silent", "micro")
    )
    assert {"rate", "register", "intonation", "pitch", "synchronous"} <= talk.keys() - silent.keys()
    assert {"tempo", "circling", "onset", "apex", "offset"} <= silent.keys()
    assert {"onset_frame", "apex_frame", "offset_frame"} <= micro.keys() - silent.keys()
    assert not {"tempo", "circling", "rate"} & micro.keys()
    calm = sample_talk(0, 1, 1, emotion="neutral").labels()
    assert not {"tempo", "onset", "apex", "offset"} & calm.keys()
