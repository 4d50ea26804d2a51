"""What chance is: an answer that is the same for every sample."""

from typing import Any

import numpy as np
import pytest

from facemae_probes.protocols.registry import parse_protocol
from facemae_probes.results.scoring import score_constant
from facemae_probes.tasks.columns import Columns
from facemae_probes.tasks.targets import Kind
from facemae_probes.tasks.task import make_task


def constant(kind: Kind, protocol: str = "official", **labels: list[Any]) -> dict[str, float | None]:
    """Of sixteen training samples and eight test samples, each of a person of its own."""
    values = {"key": [f"k{i}" for i in range(24)], "split": ["train"] * 16 + ["test"] * 8, **labels}
    values["subject"] = [f"s{i}" for i in range(24)]
    names = ",".join(name for name in labels if name != "part")
    task = make_task(Columns(np.arange(24), values), names, kind=kind, protocol=parse_protocol(protocol))
    return score_constant(task)


def test_for_classes_it_is_the_commonest_of_training() -> None:
    found = constant("classes", emotion=["a"] * 5 + ["b"] * 11 + ["a", "b", "a", "a"] * 2)
    assert found["accuracy"] == pytest.approx(0.25)
    assert found["mean_recall"] == pytest.approx(0.5)


def test_for_binary_columns_it_is_always_yes() -> None:
    found = constant("multilabel", AU1=[0, 0, 0, 1] * 4 + [1, 0, 0, 1] * 2)
    # Precision is the share of positives, recall is one; no order, no area.
    assert found == {"macro_f1": pytest.approx(2 * 0.5 / 1.5), "auc": pytest.approx(0.5)}


def test_for_shares_and_numbers_it_is_their_mean() -> None:
    found = constant("distribution", a=[1] * 16 + [4] * 8, b=[3] * 16 + [0] * 8)
    assert found["cross_entropy"] == pytest.approx(-np.log(0.25))
    found = constant("regression", valence=[1.0, None, 3.0, 2.0] * 4 + [1.0, 3.0] * 4)
    assert found == {"ccc": pytest.approx(0), "rmse": pytest.approx(1)}


def test_each_fold_has_that_of_its_own_training_samples() -> None:
    emotions = ["a"] * 9 + ["b"] * 3 + ["b"] * 9 + ["a"] * 3
    found = constant("classes", "folds:part", emotion=emotions, part=[1] * 12 + [2] * 12)
    assert found["accuracy"] == pytest.approx(0.25)
