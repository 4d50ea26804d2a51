"""Labels, parts and units."""

from typing import Any

import numpy as np
import pytest

from facemae.errors import ProbeError
from facemae_probes.task import Columns, make_task


def _columns(**changes: list[Any]) -> Columns:
    values: dict[str, list[Any]] = {
        "key": [f"k{i}" for i in range(24)],
        "split": ["train"] * 16 + ["test"] * 8,
        "subject": [f"s{i // 2}" for i in range(24)],
        "source": [f"p{i}.png" for i in range(24)],
        "emotion": ["happy", "sad"] * 12,
        "AU1": [0.0, 1.0] * 11 + [None, 1.0],
        "AU12": [True, False] * 12,
    }
    values.update(changes)
    return Columns(np.arange(100, 124), values)


def test_a_missing_validation_part_is_taken_from_whole_training_subjects() -> None:
    task = make_task(_columns(), "emotion")
    assert task.unit == "subject"
    assert "train split" in task.valid_from
    assert "subject" in task.valid_from
    train, valid = (set(task.units[task.parts[part]].tolist()) for part in ("train", "valid"))
    assert not train & valid
    assert len(task.parts["train"]) + len(task.parts["valid"]) == 16
    assert len(task.parts["test"]) == 8
    assert make_task(_columns(), "emotion").parts["valid"].tolist() == task.parts["valid"].tolist()
    assert any(
        make_task(_columns(), "emotion", seed=seed).parts["valid"].tolist() != task.parts["valid"].tolist()
        for seed in (1, 2, 3)
    )


def test_an_official_validation_part_is_used_as_it_is() -> None:
    task = make_task(_columns(split=["train"] * 12 + ["valid"] * 4 + ["test"] * 8), "emotion")
    assert task.valid_from == "official valid split"
    assert task.parts["valid"].tolist() == [12, 13, 14, 15]


def test_without_subjects_the_unit_is_the_sample_and_can_be_named() -> None:
    assert make_task(_columns(subject=[None] * 24), "emotion").unit == "sample"
    assert make_task(_columns(subject=[None] * 24, source=["a", "b", "c"] * 8), "emotion").unit == "source"
    assert make_task(_columns(), "emotion", unit="source").unit == "source"
    with pytest.raises(ProbeError, match="no column 'video'"):
        make_task(_columns(), "emotion", unit="video")


def test_samples_without_a_subject_are_units_of_their_own_and_are_told() -> None:
    subjects: list[Any] = [f"s{i // 3}" for i in range(24)]
    subjects[4] = subjects[5] = None
    subjects[20] = ""
    task = make_task(_columns(subject=subjects), "emotion")
    assert task.unit == "subject"
    assert any("3 of 24 labelled samples have no subject" in text for text in task.warnings)
    assert len({task.units[row] for row in (4, 5, 20)}) == 3
    assert not {task.units[row] for row in (4, 5, 20)} & {unit for i, unit in enumerate(task.units) if subjects[i]}
    assert task.units[0] == task.units[1] == task.units[2] != task.units[6]
    assert make_task(_columns(subject=subjects), "emotion", unit="subject").units.tolist() == task.units.tolist()


def test_units_that_are_mostly_missing_are_refused_with_a_way_out() -> None:
    subjects = ["a", "a", "a", "b", "b", "b", *[None] * 18]
    with pytest.raises(ProbeError, match="no value in 18 of 24") as caught:
        make_task(_columns(subject=subjects), "emotion")
    assert "--unit sample" in str(caught.value)
    task = make_task(_columns(subject=subjects), "emotion", unit="sample")
    assert task.unit == "sample"
    assert len(set(task.units.tolist())) == 24


def test_subjects_on_both_sides_are_told() -> None:
    task = make_task(_columns(subject=["same"] * 2 + [f"s{i}" for i in range(20)] + ["same"] * 2), "emotion")
    assert any("1 values of subject" in text for text in task.warnings)


def test_patterns_and_lists_name_binary_columns() -> None:
    task = make_task(_columns(), "AU*")
    assert task.kind == "multilabel"
    assert task.names == ("AU1", "AU12")
    assert task.labels[22].tolist() == [-1, 1]
    assert make_task(_columns(), "AU12,AU1").names == ("AU12", "AU1")


def test_unlabelled_samples_are_left_out() -> None:
    task = make_task(_columns(emotion=[None, ""] * 4 + ["happy", "sad"] * 8), "emotion")
    assert task.samples.tolist() == list(range(108, 124))
    assert task.keys[0] == "k8"


def test_classes_are_those_of_training_and_others_are_told() -> None:
    task = make_task(_columns(emotion=[2.0, 10.0] * 11 + [3.0, 10.0]), "emotion")
    assert task.names == ("2", "10", "3")
    assert any("'3' is not in the training split" in text for text in task.warnings)
    assert task.counts()["test"] == {"samples": 8, "2": 3, "10": 4, "3": 1}


@pytest.mark.parametrize(
    ("changes", "label", "message"),
    [
        ({}, "emotions", "did you mean 'emotion'"),
        ({}, "AU9*", "AU1, AU12"),
        ({"split": ["train"] * 24}, "emotion", "no labelled sample has split 'test'"),
        ({"split": [None] * 24}, "emotion", "splits here: none"),
        ({"emotion": [None] * 24}, "emotion", "no value"),
        ({"emotion": ["happy"] * 24}, "emotion", "one class"),
        ({"AU1": [0, 5] * 12}, "AU*", "holds 5"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, list[Any]], label: str, message: str) -> None:
    with pytest.raises(ProbeError) as caught:
        make_task(_columns(**changes), label)
    assert message in str(caught.value)
