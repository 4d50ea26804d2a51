"""Random labels: the honest way stays at chance, choosing on test does not."""

from pathlib import Path

import numpy as np
import pytest

from facemae.errors import ProbeError
from facemae.rng import generator
from facemae_probes.choosing.plan import ProbePlan
from facemae_probes.features.sources import PixelSource, Setting, pixel_input
from facemae_probes.studies.leak import LeakSize, leak_study, leak_test, lines

PLAN = ProbePlan(probes=("linear", "knn"), strengths=(1.0, 0.1, 0.01), neighbours=tuple(range(1, 48, 2)))


def features(count: int, settings: int = 4) -> dict[Setting, np.ndarray]:
    return {
        Setting(layer, "mean"): generator(5, "features", layer).normal(size=(count, 12)).astype(np.float32)
        for layer in range(settings)
    }


def test_honest_choice_is_at_chance_and_choice_on_test_is_not() -> None:
    size = LeakSize(train=150, valid=100, test=200, classes=4, permutations=50)
    rows = np.arange(450)
    found = leak_test(features(450), rows[:150], rows[150:250], rows[250:], size, PLAN, lambda _: None)
    assert found["candidates"] == 108
    assert found["chance"]["mean"] == pytest.approx(0.25, abs=0.01)
    assert found["honest"]["inside_band"], lines(found)
    assert found["paper"]["above_percentile_99"], lines(found)
    assert found["paper"]["mean"] > found["chance"]["mean"] + 0.03
    assert len(found["honest"]["each"]) == 50


def test_what_the_test_needs_is_said(labelled_shards: Path, tmp_path: Path) -> None:
    rows = np.arange(120)
    with pytest.raises(ProbeError, match="the plan has 27 candidates"):
        leak_test(features(120, 1), rows[:60], rows[60:90], rows[90:], LeakSize(classes=2), PLAN, lambda _: None)
    with pytest.raises(ProbeError, match="401 test samples"):
        LeakSize(test=401)
    source = PixelSource(pixel_input(labelled_shards))
    with pytest.raises(ProbeError, match="samples of split train"):
        leak_study(labelled_shards, source, tmp_path, LeakSize(), PLAN, lambda _: None)
