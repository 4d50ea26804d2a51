"""Labels, parts and units."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facemae.errors import ProbeError, StorageError
from facemae_probes.protocols.base import Inner
from facemae_probes.tasks.columns import Columns
from facemae_probes.tasks.task import make_task


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
    assert "train split" in task.splits.chosen_on
    assert "subject" in task.splits.chosen_on

    def aside(seed: int = 0) -> Inner:
        return make_task(_columns(), "emotion", seed=seed).splits.repeats[0][0].inner[0]

    assert not set(task.units[aside().fit].tolist()) & set(task.units[aside().judge].tolist())
    assert len(aside().fit) + len(aside().judge) == 16
    assert task.parts()["train"].tolist() == list(range(16))
    assert task.parts()["test"].tolist() == list(range(16, 24))
    assert aside().judge.tolist() == aside().judge.tolist()
    assert any(aside(seed).judge.tolist() != aside().judge.tolist() for seed in (1, 2, 3))


def test_an_official_validation_part_is_used_as_it_is() -> None:
    task = make_task(_columns(split=["train"] * 12 + ["valid"] * 4 + ["test"] * 8), "emotion")
    assert task.splits.chosen_on == "official valid split"
    assert task.parts()["valid"].tolist() == [12, 13, 14, 15]
    assert task.counts()["valid"] == {"samples": 4, "happy": 2, "sad": 2}


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


def test_one_training_subject_leaves_none_to_choose_on() -> None:
    subjects = ["a"] * 16 + [f"s{i}" for i in range(8)]
    with pytest.raises(ProbeError, match=r"has one subject, none can be set aside(.|\n)*in a split `valid`"):
        make_task(_columns(subject=subjects), "emotion")


def test_subjects_on_both_sides_are_told() -> None:
    task = make_task(_columns(subject=["same"] * 2 + [f"s{i}" for i in range(20)] + ["same"] * 2), "emotion")
    assert any("1 values of subject" in text for text in task.warnings)


def test_patterns_and_lists_name_binary_columns() -> None:
    task = make_task(_columns(), "AU*")
    assert task.targets.kind == "multilabel"
    assert task.targets.names == ("AU1", "AU12")
    assert task.targets.values[22].tolist() == [-1, 1]
    assert make_task(_columns(), "AU12,AU1").targets.names == ("AU12", "AU1")


def test_unlabelled_samples_are_left_out() -> None:
    task = make_task(_columns(emotion=[None, ""] * 4 + ["happy", "sad"] * 8), "emotion")
    assert task.samples.tolist() == list(range(108, 124))
    assert task.keys[0] == "k8"


def test_a_class_without_test_samples_is_told_and_counts_zero_in_a_set_of_its_own() -> None:
    task = make_task(_columns(emotion=["happy", "sad", "calm", "sad"] * 4 + ["happy", "sad"] * 4), "emotion")
    assert (
        "no test sample is of class 'calm': macro means (UAR, macro F1, macro precision) count zero for it"
        in task.warnings
    )
    assert task.tested.meant is None


def test_classes_are_those_of_training_and_others_are_told() -> None:
    task = make_task(_columns(emotion=[2.0, 10.0] * 11 + [3.0, 10.0]), "emotion")
    assert task.targets.names == ("2", "10", "3")
    assert task.targets.values[-2:].tolist() == [2, 1]
    assert any("'3' is not in the training split" in text for text in task.warnings)
    assert task.counts()["test"] == {"samples": 8, "2": 3, "10": 4, "3": 1}


def test_votes_become_shares_and_those_that_sum_to_nothing_are_left_out() -> None:
    votes: dict[str, list[Any]] = {"a": [3, 0] * 12, "b": [1, 0] * 11 + [1, 4], "c": [0] * 24}
    task = make_task(_columns(**votes), "a,b,c", kind="distribution", classes=("x", "y", "z"))
    assert task.targets.names == ("x", "y", "z")
    assert len(task.targets) == 13
    assert task.targets.values[0].tolist() == [0.75, 0.25, 0]
    assert task.targets.values[-1].tolist() == [0, 1, 0]
    with pytest.raises(ProbeError, match="negative votes"):
        make_task(_columns(**{**votes, "a": [3, 1, -1, 1] * 6}), "a,b,c", kind="distribution")


def test_numbers_may_be_missing_and_must_be_numbers() -> None:
    numbers: dict[str, list[Any]] = {"valence": [0.5, None, -1.0] * 8, "arousal": ["1", None, None] * 8}
    task = make_task(_columns(**numbers), "valence,arousal", kind="regression", slices=["emotion=sad"])
    assert len(task.targets) == 16
    assert task.targets.values[0].tolist() == [0.5, 1.0]
    assert np.isnan(task.targets.values[1, 1])
    assert task.counts()["test"] == {"samples": 5, "valence": 5, "arousal": 2}
    for wrong in ("high", "inf"):
        with pytest.raises(ProbeError, match=f"column 'valence' holds '{wrong}'"):
            make_task(_columns(valence=[wrong] * 24), "valence", kind="regression")


def test_a_slice_may_be_a_list_of_keys(tmp_path: Path) -> None:
    (tmp_path / "clean.txt").write_text("k20\nk3\nk17\n")
    task = make_task(_columns(), "emotion", slices=[f"@{tmp_path}/clean.txt"])
    assert task.slices["@clean.txt"].tolist() == [17, 20]
    (tmp_path / "clean.txt").write_text("k3\n")
    with pytest.raises(ProbeError, match="none of the 1 keys"):
        make_task(_columns(), "emotion", slices=[f"@{tmp_path}/clean.txt"])
    with pytest.raises(StorageError, match=r"missing\.txt"):
        make_task(_columns(), "emotion", slices=["@missing.txt"])


def test_near_duplicates_are_units_where_nothing_else_is_known() -> None:
    columns = _columns(subject=[None] * 24, cluster=[f"c{i // 3}" for i in range(24)])
    assert make_task(columns, "emotion").unit == "cluster"


def test_where_nothing_says_what_belongs_together_that_is_said() -> None:
    task = make_task(_columns(subject=[None] * 24), "emotion")
    assert task.unit == "sample"
    assert any("each counts as independent, and intervals are too narrow" in text for text in task.warnings)
    assert not any(
        "independent" in text for text in make_task(_columns(subject=[None] * 24), "emotion", unit="sample").warnings
    )


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


def test_samples_without_a_label_are_counted() -> None:
    none = [None if i in (0, 1, 2, 20) else ["happy", "sad"][i % 2] for i in range(24)]
    task = make_task(_columns(emotion=none), "emotion")
    assert "4 of 24 samples have no label 'emotion' and are left out (test 1, train 3)" in task.warnings
    assert sum(count["samples"] for count in task.counts().values()) == 20
    assert not any("no label" in text for text in make_task(_columns(), "emotion").warnings)
    # A column that is not coded for a sample is none of these while another is.
    assert not any("no label" in text for text in make_task(_columns(), "AU1,AU12").warnings)
