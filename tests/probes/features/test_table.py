"""Tables of features: each setting is read once, of several sets rows only, of clips in the order of time."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from facemae.rng import generator
from facemae_probes.choosing.plan import ProbePlan
from facemae_probes.features.pool import Pool
from facemae_probes.features.rows import RowsOf, rows_of
from facemae_probes.features.sources import FeatureSource, Setting
from facemae_probes.features.table import ClipFeatures, StillFeatures
from facemae_probes.heads.attentive import TokenScale
from facemae_probes.heads.standardise import Standardiser, View
from facemae_probes.heads.temporal import Clips, mean_over_time
from facemae_probes.tasks.task import Task

SETTINGS = [Setting(0, "mean"), Setting(1, "mean")]
SOURCE = cast("FeatureSource", SimpleNamespace(settings=lambda *_: SETTINGS))


class CountingPool:
    """Features of sample n are n in both dimensions, times the layer and one; counts what is read."""

    def __init__(self) -> None:
        self.read: list[list[Setting]] = []

    def features(
        self, source: Any, settings: Sequence[Setting], samples: np.ndarray, *_: Any
    ) -> dict[Setting, np.ndarray]:
        self.read.append(list(settings))
        rows = np.repeat(samples[:, None], 2, axis=1).astype(np.float32)
        return {setting: rows * (setting.layer + 1) for setting in settings}


def _task(samples: Sequence[int]) -> Task:
    return cast("Task", SimpleNamespace(samples=np.array(samples)))


def test_each_setting_is_read_once_however_often_folds_ask(tmp_path: Path) -> None:
    pool = CountingPool()
    table = StillFeatures(cast("Pool", pool), SOURCE, _task([3, 5, 8]), ProbePlan(), tmp_path, print)
    table.compute(ProbePlan(), SETTINGS[:1])
    for _ in range(3):
        found = table.load("linear", SETTINGS[1:])
        assert list(found) == SETTINGS[1:]
        np.testing.assert_array_equal(found[SETTINGS[1]][:, 0], [6, 10, 16])
    assert pool.read == [SETTINGS]


def test_a_further_pass_for_tokens_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    table = StillFeatures(cast("Pool", CountingPool()), SOURCE, _task([3]), ProbePlan(), tmp_path, said.append)
    table.compute(ProbePlan(probes=("attentive",)), SETTINGS[:1])
    for _ in range(2):
        table.load("attentive", SETTINGS)
    assert said == ["tokens of layer 1: a further pass over the images where the cache lacks them"]


def test_frames_come_in_the_order_of_time_and_means_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, made = CountingPool(), list[int]()

    def counting(*given: Any) -> np.ndarray:
        made.append(1)
        return mean_over_time(*given)

    monkeypatch.setattr("facemae_probes.features.table.mean_over_time", counting)
    frames = {4: np.array([9, 4, 7]), 1: np.array([1, 2])}
    table = ClipFeatures(cast("Pool", pool), SOURCE, _task([4, 1]), frames, ProbePlan(), tmp_path, print)
    table.compute(ProbePlan(), [])
    for _ in range(3):
        clips = table.load("temporal", SETTINGS[:1])[SETTINGS[0]]
        assert isinstance(clips, Clips)
        assert clips.frames[clips.rows(np.array([1, 0]))][:, 0].tolist() == [1, 2, 9, 4, 7]
        means = table.load("linear", SETTINGS)
        np.testing.assert_allclose(means[SETTINGS[1]], np.array([[40 / 3, 40 / 3], [3, 3]]))
    assert pool.read == [SETTINGS]
    assert len(made) == len(SETTINGS)


@pytest.fixture
def parts(tmp_path: Path) -> list[Any]:
    """Two memory maps of half precision, [7, 3, 2] and [5, 3, 2]."""
    found = []
    for number, count in enumerate((7, 5)):
        path = tmp_path / f"{number}.npy"
        np.save(path, generator(0, "part", number).normal(size=(count, 3, 2)).astype(np.float16))
        found.append(np.load(path, mmap_mode="r"))
    return found


def test_rows_of_several_maps_are_those_of_the_maps_put_together(parts: list[Any]) -> None:
    whole, rows = np.concatenate(parts), rows_of(parts)
    assert (rows.shape, len(rows), rows.dtype, rows.ndim) == (whole.shape, 12, whole.dtype, 3)
    assert not rows.flags.writeable
    some = np.array([11, 0, 7, 6, 6])
    np.testing.assert_array_equal(rows[some], whole[some])
    np.testing.assert_array_equal(rows[5:9], whole[5:9])
    np.testing.assert_array_equal(rows[20:], whole[20:])
    np.testing.assert_array_equal(np.asarray(rows), whole)
    place = np.array([8, 2, 2, 10])
    np.testing.assert_array_equal(rows_of(parts, place)[np.array([3, 0])], whole[[10, 8]])
    np.testing.assert_array_equal(rows_of([rows], place)[1:], whole[[2, 2, 10]])
    assert rows_of(parts[:1]) is parts[0]
    with pytest.raises(IndexError, match="rows 3 to 12 of 12"):
        rows[np.array([3, 12])]
    with pytest.raises(IndexError, match="rows -1 to 3 of 12"):
        rows[np.array([3, -1])]


def test_heads_read_them_as_they_read_an_array(parts: list[Any]) -> None:
    whole, rows, some = np.concatenate(parts), rows_of(parts), np.array([9, 1, 4])
    torch.testing.assert_close(
        TokenScale.fit(rows, some).batch(rows, some), TokenScale.fit(whole, some).batch(whole, some)
    )
    flat, own = whole[:, 0].astype(np.float32), RowsOf([part[:, 0].astype(np.float32) for part in parts])
    pretend = cast("np.ndarray", own)
    np.testing.assert_array_equal(Standardiser.fit(pretend, some)(pretend), Standardiser.fit(flat, some)(flat))
    torch.testing.assert_close(View(pretend).held(), View(flat).held())
