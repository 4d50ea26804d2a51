"""Folds: whole units on one side, choices on training rows, every test row predicted once."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from facemae.errors import ProbeError, UsageError
from facemae_probes.protocols.base import Fold, Inner, Protocol, Samples, Splits
from facemae_probes.protocols.few_shot import FewShot
from facemae_probes.protocols.folds import GivenFolds, KFold, LeaveOneOut
from facemae_probes.protocols.official import Official
from facemae_probes.protocols.paper import WAYS, Paper
from facemae_probes.protocols.registry import parse_protocol
from facemae_probes.tasks.columns import Columns
from facemae_probes.tasks.targets import Targets


def samples(count: int = 240, *, per_unit: int = 4, classes: int = 3, seed: int = 0, **columns: list[Any]) -> Samples:
    """Samples of `per_unit` a subject, classes in turn, two thirds of the subjects in train."""
    subject = np.arange(count) // per_unit
    values: dict[str, list[Any]] = {
        "key": [f"k{i}" for i in range(count)],
        "split": ["test" if s % 3 == 2 else "train" for s in subject],
        "subject": [f"s{s}" for s in subject],
        **columns,
    }
    targets = Targets("classes", tuple(f"c{c}" for c in range(classes)), np.arange(count, dtype=np.int64) % classes)
    return Samples(Columns(np.arange(count), values), "split", targets, subject.astype(np.int64), "subject", seed)


FOLDED: list[tuple[Protocol, int]] = [(KFold(5), 5), (LeaveOneOut(), 60), (GivenFolds("fold"), 3)]


@pytest.mark.parametrize(("protocol", "folds"), FOLDED, ids=["kfold", "loso", "given"])
def test_units_are_on_one_side_outside_and_inside_and_every_row_is_predicted_once(
    protocol: Protocol, folds: int
) -> None:
    made = samples(fold=[f"part {i // 4 % 3}" for i in range(240)])
    splits = protocol.split(made).check()
    assert len(splits.repeats[0]) == folds
    assert splits.tested.tolist() == list(range(240))
    assert not splits.on_test
    for fold in splits.repeats[0]:
        assert not set(made.units[fold.train]) & set(made.units[fold.test])
        assert len(fold.train) + len(fold.test) == 240
        assert fold.refit
        assert len(fold.inner) == 3
        judged = np.concatenate([inner.judge for inner in fold.inner])
        assert sorted(judged.tolist()) == fold.train.tolist()
        for inner in fold.inner:
            assert not set(made.units[inner.fit]) & set(made.units[inner.judge])
            assert not set(inner.fit.tolist()) & set(fold.test.tolist())


def test_parts_drawn_have_like_shares_of_the_classes_and_depend_on_the_seed() -> None:
    # One class a subject, two thirds of the subjects of the first class.
    made = samples()
    classes = np.array([0, 0, 1] * 20, dtype=np.int64)[made.units]
    made = Samples(made.columns, made.split, Targets("classes", ("a", "b"), classes), made.units, "subject", 0)
    for fold in KFold(4).split(made).repeats[0]:
        assert np.mean(classes[fold.test] == 0) == pytest.approx(2 / 3, abs=0.1)
    again, other = (
        KFold(4).split(Samples(made.columns, "split", made.targets, made.units, "subject", seed)) for seed in (0, 1)
    )
    first = KFold(4).split(made).repeats[0][0].test.tolist()
    assert again.repeats[0][0].test.tolist() == first
    assert other.repeats[0][0].test.tolist() != first


def test_a_class_too_small_to_share_out_stays_in_the_folds() -> None:
    made = samples(24, per_unit=2)
    labels = np.zeros(24, dtype=np.int64)
    labels[3] = 1
    made = Samples(made.columns, "split", Targets("classes", ("common", "rare"), labels), made.units, "subject")
    splits = LeaveOneOut().split(made).check()
    assert sum(3 in fold.test for fold in splits.repeats[0]) == 1


def test_official_choices_are_on_valid_or_on_units_set_aside() -> None:
    given = samples(split=["train"] * 120 + ["valid"] * 40 + ["test"] * 80)
    (fold,) = Official().split(given).check().repeats[0]
    assert not fold.refit
    assert fold.train.tolist() == list(range(120))
    assert fold.inner[0].judge.tolist() == list(range(120, 160))

    made = samples()
    (fold,) = Official().split(made).check().repeats[0]
    assert fold.refit
    assert not set(made.units[fold.inner[0].fit]) & set(made.units[fold.inner[0].judge])
    assert set(fold.inner[0].fit) | set(fold.inner[0].judge) == set(fold.train)


@pytest.mark.parametrize("shots", [1, 3])
def test_few_shots_are_so_many_a_class_from_different_units_of_train(shots: int) -> None:
    made = samples()
    splits = FewShot(shots, draws=4).split(made).check()
    assert len(splits.repeats) == 4
    drawn = [folds[0].train for folds in splits.repeats]
    assert len({tuple(rows) for rows in drawn}) == 4
    for rows in drawn:
        assert np.bincount(made.targets.values[rows]).tolist() == [shots] * 3
        for number in range(3):
            own = made.units[rows[made.targets.values[rows] == number]]
            assert len(set(own)) == shots
        assert not set(made.units[rows]) & set(made.units[splits.tested])
    inner = splits.repeats[0][0].inner
    assert len(inner) == (0 if shots == 1 else 3)
    assert ("nothing" in splits.chosen_on) == (shots == 1)


def test_few_shots_of_a_share_take_whole_units_and_few_samples_are_told() -> None:
    made = samples()
    rows = FewShot(0.1, draws=2).split(made).check().repeats[0][0].train
    assert len(set(made.units[rows])) == 4
    assert len(rows) == 16
    assert "fewer than 100 training samples of c0, c1, c2" in FewShot(100, draws=1).split(made).warnings[0]


@pytest.mark.parametrize("system", WAYS)
def test_published_ways_choose_on_test_and_say_so(system: str) -> None:
    made = samples(24, per_unit=4)
    splits = Paper(system).split(made).check()
    assert splits.on_test
    assert splits.chosen_on == "TEST LABELS"
    assert any("not a result" in text for text in splits.warnings)
    for fold in splits.repeats[0]:
        assert fold.inner[0].judge.tolist() == fold.test.tolist()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("official", "official"),
        ("kfold:10", "kfold:10"),
        ("folds:fold", "folds:fold"),
        ("loso", "loso"),
        ("few-shot:5", "few-shot:5"),
        ("few-shot:1%", "few-shot:1%"),
        ("few-shot:0.5%", "few-shot:0.5%"),
        ("paper:hicmae", "paper:hicmae"),
        ("paper:fmae-iat@folds:fold", "paper:fmae-iat@folds:fold"),
    ],
)
def test_a_protocol_is_read_back_from_its_name(text: str, name: str) -> None:
    protocol = parse_protocol(text)
    assert protocol.name == name
    assert parse_protocol(protocol.name) == protocol


@pytest.mark.parametrize("text", ["kfold", "kfold:1", "kfold:x", "folds:", "few-shot:0", "few-shot:200%", "loso:3", ""])
def test_other_words_are_refused_with_the_forms(text: str) -> None:
    with pytest.raises(UsageError, match="--protocol") as caught:
        parse_protocol(text)
    assert "few-shot:N" in str(caught.value)
    with pytest.raises(UsageError, match="hicmae"):
        parse_protocol("paper:nobody")


def test_what_a_protocol_needs_is_said() -> None:
    made = samples()
    alone = Samples(made.columns, "split", made.targets, np.arange(240), "sample")
    with pytest.raises(ProbeError, match="loso without subjects"):
        LeaveOneOut().split(alone)
    with pytest.raises(ProbeError, match="loso with 2 units"):
        LeaveOneOut().split(samples(8, per_unit=4))
    with pytest.raises(ProbeError, match=r"2 units \(subject\) for 5 folds"):
        KFold(5).split(samples(8, per_unit=4))
    with pytest.raises(ProbeError, match="no column 'fold'"):
        GivenFolds("fold").split(made)
    with pytest.raises(ProbeError, match="'fold' has 1 values"):
        GivenFolds("fold").split(samples(fold=["1"] * 240))
    with pytest.raises(ProbeError, match=r"subject 's0' is in the folds 1 and 2"):
        GivenFolds("fold").split(samples(fold=["1", "2"] * 120))
    numbers = Targets("regression", ("valence",), np.zeros((240, 1)))
    with pytest.raises(ProbeError, match="of kind regression"):
        FewShot(5).split(Samples(made.columns, "split", numbers, made.units, "subject"))


def test_folds_that_learn_from_what_they_predict_are_refused() -> None:
    rows = np.arange(6)

    def splits(fit: np.ndarray, judge: np.ndarray, test: np.ndarray) -> Splits:
        return Splits("made", "", "", ((Fold("f", fit, test, (Inner(fit, judge),), refit=False),),))

    splits(rows[:2], rows[2:4], rows[4:]).check()
    with pytest.raises(ProbeError, match="learns from samples that it predicts"):
        splits(rows[:2], rows[2:5], rows[4:]).check()
    with pytest.raises(ProbeError, match="0 training and 2 test samples"):
        splits(rows[:0], rows[2:4], rows[4:]).check()
    one = splits(rows[:2], rows[2:4], rows[4:]).repeats[0][0]
    with pytest.raises(ProbeError, match="once in each repeat"):
        Splits("made", "", "", ((one, one),)).check()


def test_a_published_way_takes_the_folds_that_are_named() -> None:
    made = samples(fold=[f"part {i // 4 % 3}" for i in range(240)])
    splits = parse_protocol("paper:fmae-iat@folds:fold").split(made).check()
    assert len(splits.repeats[0]) == 3
    assert splits.on_test
    assert splits.one_threshold


def test_a_published_way_says_what_is_chosen_on_test() -> None:
    plain = samples(split=["train", "train", "valid", "test"] * 60)
    units = replace(plain, targets=Targets("multilabel", ("AU1", "AU2"), np.tile([[0, 1]], (240, 1))))
    for system, made, text in (
        ("fmae-iat", plain, "those that do best on the labels of each fold's test part, since fmae-iat reports"),
        ("fmae-iat", units, "after that choice the one threshold of 0.01 to 0.99 for all columns"),
        ("hicmae", units, "one a column, since hicmae has one list"),
    ):
        splits = Paper(system).split(made)
        assert text in splits.warnings[-1]
        assert splits.warnings[-1].endswith("not a result on unseen samples, and not that system's number")
        assert "layer, pooling, hyper-parameters and epoch" in splits.about


def test_units_on_both_sides_are_told_and_never_drawn_for_few_shots() -> None:
    split = ["train", "train", "valid", "test"] * 60
    made = samples(240, per_unit=240, split=split)
    units = np.arange(240) // 2
    made = Samples(made.columns, "split", made.targets, units.astype(np.int64), "subject")
    warnings = Official().split(made).warnings
    assert any("60 values of subject are in test and in train or valid" in text for text in warnings)
    splits = FewShot(2, draws=2).split(made).check()
    assert any("60 training samples whose subject is in test are never drawn" in text for text in splits.warnings)
    near = Samples(made.columns, "split", made.targets, (np.arange(240) // 4).astype(np.int64), "subject")
    assert any(
        "60 of 60 valid samples share their subject with train" in text for text in Official().split(near).warnings
    )
    with pytest.raises(ProbeError, match="0 training samples whose subject is not in test"):
        FewShot(2).split(near)


def test_a_small_share_is_drawn_until_it_has_two_classes() -> None:
    # The first class has 38 of the 40 training units.
    made = samples(240, per_unit=4)
    labels = np.zeros(240, dtype=np.int64)
    labels[np.isin(made.units, [0, 1, 2])] = 1
    rare = Samples(made.columns, "split", Targets("classes", ("a", "b"), labels), made.units, "subject")
    for draw in FewShot(0.02, draws=8).split(rare).check().repeats:
        assert len(set(labels[draw[0].train])) == 2
        assert all(len(set(labels[way.fit])) == 2 for way in draw[0].inner)


def test_rows_that_play_no_part_are_left_out_and_others_keep_their_place() -> None:
    made = samples(split=["train"] * 120 + [None] * 40 + ["test"] * 80)
    splits = Official().split(made).check()
    used = splits.used
    assert used.tolist() == [*range(120), *range(160, 240)]
    moved = splits.renumbered(used)
    assert used[moved.tested].tolist() == splits.tested.tolist()
    assert used[moved.repeats[0][0].inner[0].fit].tolist() == splits.repeats[0][0].inner[0].fit.tolist()
    few = FewShot(2, draws=2).split(samples()).check()
    assert few.used.tolist() == list(range(240)), "all that draws are made from: features are shared between protocols"
