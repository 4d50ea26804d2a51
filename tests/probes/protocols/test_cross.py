"""Two sets: the first is learnt from, the second is tested, whatever their columns are called and say."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facemae.data.index import build_index
from facemae.data.pack import PackItem, pack_samples
from facemae.data.schema import CropRecipe, DatasetCard, ModelInput
from facemae.errors import ProbeError
from facemae_probes.choosing.plan import ProbePlan
from facemae_probes.features.pool import Pool, TestSet, joined
from facemae_probes.features.sources import PixelSource
from facemae_probes.protocols.base import Samples
from facemae_probes.protocols.cross import Cross
from facemae_probes.results.report import require_result
from facemae_probes.results.result import compare_results
from facemae_probes.runner import run_probe
from facemae_probes.tasks.clips import ClipColumns, as_clips
from facemae_probes.tasks.columns import Columns
from facemae_probes.tasks.targets import Targets
from facemae_probes.tasks.task import make_task
from tests.probes.conftest import make_items

PIXELS = PixelSource(ModelInput(image_size=16, channels=1, mean=(0.5,), std=(0.5,)))
PLAN = ProbePlan(probes=("knn",), neighbours=(1, 5), replicates=50)
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Packs `count` images of three a subject into a folder, with further labels by number."""

    def pack(folder: str, count: int, splits: tuple[str, ...], **labels: Callable[[int], Any]) -> Path:
        items = []
        for number, item in enumerate(make_items(count, splits=splits)):
            own = {**item.meta["labels"], **{name: value(number) for name, value in labels.items()}}
            items.append(PackItem(item.key, item.image, item.extension, {**item.meta, "labels": own}))
        card = DatasetCard(name="tiny", crop=CropRecipe(detector="none", size=16, colour="grey"))
        pack_samples(items, tmp_path / folder, card=card, shard_size=30)
        return tmp_path / folder

    return pack


def test_a_split_column_of_both_sets_has_nothing_of_the_test_set_learnt_from(make: Make, tmp_path: Path) -> None:
    first = make("one", 48, ("train",), part=lambda n: ("train", "valid", "test", "")[n // 3 % 4])
    second = make("two", 24, ("train", "test"), part=lambda n: ("train", "valid")[n // 3 % 2])
    result = run_probe(first, PIXELS, "emotion", plan=PLAN, test_set=TestSet(second), split="part", cache=tmp_path)
    assert result.data["protocol"]["name"] == "cross:one>two"
    counts = result.data["task"]["counts"]
    assert {part: found["samples"] for part, found in counts.items()} == {"train": 12, "valid": 12, "test": 12}
    assert result.data["protocol"]["chosen_on"] == "one: official valid split"
    with pytest.raises(ProbeError, match="no column 'prt' to take the parts of one from"):
        run_probe(first, PIXELS, "emotion", plan=PLAN, test_set=TestSet(second), split="prt", cache=tmp_path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["train", "train", "test", "train", "test", "test"], "learn from or choose on samples of two: 1 of 3"),
        (["train", "train", "train", "valid", "test", "test"], "learn from or choose on samples of two: 1 of 4"),
        (["train", "train", "test", "test", "test", "test"], "test samples of one: 1 of 4"),
    ],
)
def test_parts_that_cross_the_sets_are_refused(parts: list[str], message: str) -> None:
    columns = Columns(np.arange(6), {"key": list("abcdef"), "split": parts})
    targets = Targets("classes", ("x", "y"), np.array([0, 1, 0, 1, 0, 1], dtype=np.int64))
    with pytest.raises(ProbeError, match=message):
        Cross("one", "two", 3).split(Samples(columns, "split", targets, np.arange(6)))
    columns.values["split"][:] = ["train", "train", "valid", "test", "test", "test"]
    splits = Cross("one", "two", 3).split(Samples(columns, "split", targets, np.arange(6))).check()
    assert splits.tested.tolist() == [3, 4, 5]


def test_sets_of_one_name_are_told_apart_and_the_test_set_keeps_its_keys(make: Make, tmp_path: Path) -> None:
    first = make("a/packed", 36, ("train", "train", "valid"), session=lambda n: n // 6)
    second = make("b/packed", 24, ("test",), session=lambda n: n // 6 + 2)
    pool = Pool.of(first, second)
    assert pool.names == ("packed", "packed (2)")
    columns, warnings = joined(pool, "emotion", TestSet(second), apart=["session"])
    assert not warnings
    sets = np.array(columns.samples >= pool.offsets[1])
    for name in ("key", "subject", "session"):
        values = np.array(columns.text(name))
        assert not set(values[sets]) & set(values[~sets]), name
    assert set(np.array(columns.text("session"))[~sets]) == {"0", "1", *(f"packed/{n}" for n in range(2, 6))}
    plain, _ = joined(pool, "emotion", TestSet(second))
    assert len(set(plain.text("session"))) == 6, "a column that names nothing stays as it is"

    keys = tmp_path / "keys.txt"
    keys.write_text("f0003\nf0010\n")
    result = run_probe(
        first,
        PIXELS,
        "emotion",
        plan=PLAN,
        test_set=TestSet(second),
        unit="session",
        slices=[f"@{keys}"],
        cache=tmp_path,
    )
    assert result.data["protocol"]["name"] == "cross:packed>packed (2)"
    assert result.data["task"]["units"]["test"] == 4
    assert not any("are in test and in train" in text for text in result.data["warnings"])
    assert result.data["results"]["knn"]["slices"]["@keys.txt"]["count"] == 2
    assert set(result.keys) == {f"f{n:04d}" for n in range(24)}


def test_classes_that_the_tested_set_lacks_are_in_no_mean_and_that_is_said(make: Make, tmp_path: Path) -> None:
    first = make("one", 48, ("train", "train", "valid"))
    second = make("two", 30, ("test",), emotion=lambda n: ("happy", "neutral")[n % 2])
    result = run_probe(first, PIXELS, "emotion", plan=PLAN, test_set=TestSet(second), out=tmp_path / "out")
    said = "no test sample is of class 'sad': macro means (UAR, macro F1, macro precision) are over the 2 others"
    assert said in result.data["warnings"]
    assert result.data["task"]["classes"] == ["happy", "neutral", "sad"]
    assert result.data["task"]["classes_tested"] == ["happy", "neutral"]
    test = result.data["results"]["knn"]["test"]
    assert test["recall"]["sad"] is None
    assert test["mean_recall"] == pytest.approx((test["recall"]["happy"] + test["recall"]["neutral"]) / 2)
    assert test["intervals"]["mean_recall"]["value"] == pytest.approx(test["mean_recall"])
    read = require_result(tmp_path / "out")
    assert read.targets.meant == (0, 1)
    assert compare_results(read, read, metric="uar").value == 0

    whole = run_probe(
        first, PIXELS, "emotion", plan=PLAN, test_set=TestSet(make("three", 30, ("test",))), cache=tmp_path
    )
    assert whole.data["task"]["classes_tested"] == whole.data["task"]["classes"]
    assert not any("no test sample" in text for text in whole.data["warnings"])


def test_a_unit_that_one_set_lacks_is_judged_by_set(make: Make, tmp_path: Path) -> None:
    first = make("one", 24, ("train", "train", "valid"), session=lambda n: n // 6)
    second = make("two", 60, ("test",))
    result = run_probe(first, PIXELS, "emotion", plan=PLAN, test_set=TestSet(second), unit="session", cache=tmp_path)
    assert result.data["task"]["unit"] == "session"
    assert result.data["task"]["units"]["test"] == 60
    said = "60 of 60 labelled samples of the tested set have no session; each counts as a unit of its own"
    assert said in result.data["warnings"]
    half = make("half", 60, ("test",), session=lambda n: n if n < 20 else None)
    with pytest.raises(ProbeError, match="'session' has no value in 40 of 60 labelled samples of the tested set"):
        run_probe(first, PIXELS, "emotion", plan=PLAN, test_set=TestSet(half), unit="session", cache=tmp_path)


@pytest.mark.parametrize(
    ("label", "kind", "message"),
    [
        ("AU*", "auto", r"--test-data with several columns, 'AU\*'"),
        ("AU1,AU2", "auto", "--test-data with several columns, 'AU1,AU2'"),
        ("odd", "regression", "--test-data with labels of kind regression"),
    ],
)
def test_only_classes_of_one_column_are_tested_across_sets(
    make: Make, tmp_path: Path, label: str, kind: Any, message: str
) -> None:
    first, second = make("one", 24, ("train", "valid")), make("two", 12, ("test",))
    with pytest.raises(ProbeError, match=message) as caught:
        run_probe(first, PIXELS, label, kind=kind, plan=PLAN, test_set=TestSet(second), cache=tmp_path)
    assert "names of their classes" in str(caught.value)


def test_images_that_are_learnt_from_are_not_tested_as_another_set(make: Make, tmp_path: Path) -> None:
    first = make("one", 48, ("train", "train", "valid", "test"))
    copied = shutil.copytree(first, tmp_path / "copy")
    split = make("other", 48, ("train", "train", "valid", "test"), part=str)
    apart = run_probe(first, PIXELS, "emotion", plan=PLAN, test_set=TestSet(copied), cache=tmp_path)
    assert apart.data["task"]["counts"]["test"]["samples"] == 12
    assert not any("contamination" in text for text in apart.data["warnings"])
    near = run_probe(first, PIXELS, "emotion", plan=PLAN, test_set=TestSet(split), cache=tmp_path)
    said = (
        "one and other are both of the data set 'tiny': images may be in both; facemae probe contamination finds them"
    )
    assert said in near.data["warnings"]

    whole = make("whole", 48, ("train",))
    shutil.copytree(whole, tmp_path / "again")
    with pytest.raises(ProbeError, match="48 of the 48 tested samples of again are learnt from or chosen on") as caught:
        run_probe(whole, PIXELS, "emotion", plan=PLAN, test_set=TestSet(tmp_path / "again"), cache=tmp_path)
    assert "facemae probe contamination" in str(caught.value.fix)
    # A shard in common is enough, wherever it lies in the set.
    second = sorted(whole.glob("*.tar"))[1]
    (tmp_path / "part").mkdir()
    shutil.copy(second, tmp_path / "part/shard-000000.tar")
    assert 0 < len(build_index(tmp_path / "part")) < 48
    with pytest.raises(ProbeError, match="tested samples of part are learnt from"):
        run_probe(whole, PIXELS, "emotion", plan=PLAN, test_set=TestSet(tmp_path / "part"), cache=tmp_path)


def test_clips_of_one_name_in_both_sets_are_two_clips(make: Make) -> None:
    first = make("one", 12, ("train",), clip=lambda n: f"c{n // 3}")
    second = make("two", 6, ("test",), clip=lambda n: f"c{n // 3}")
    pool = Pool.of(first, second)
    columns, _ = joined(pool, "emotion", TestSet(second), apart=["clip"])
    made, frames = as_clips(columns, ClipColumns("clip"), [])
    assert len(made) == 6
    assert {len(run) for run in frames.values()} == {3}
    assert {"one/c0", "c0", "c3"} <= set(made.values["key"])


@pytest.mark.parametrize(
    ("splits", "tested", "warned"),
    [(("test",), 12, False), (("train", "test"), 6, False), (("train",), 12, True), (("",), 12, True)],
)
def test_a_set_without_test_split_is_tested_whole_and_that_is_said(
    make: Make, splits: tuple[str, ...], tested: int, warned: bool
) -> None:
    first, second = make("one", 24, ("train",)), make("two", 12, splits)
    pool = Pool.of(first, second)
    columns, warnings = joined(pool, "emotion", TestSet(second))
    assert columns.values["split"].count("test") == tested
    assert warnings == ([f"no labelled sample of two has split test: all {tested} are tested"] if warned else [])


def test_each_set_has_the_units_that_it_knows(make: Make, tmp_path: Path) -> None:
    first = make("one", 48, ("train", "valid"))
    second = make("two", 24, ("test",), cluster=lambda n: f"c{n // 4}")
    read_of = Pool.of(first, second)
    columns, _ = joined(read_of, "emotion", TestSet(second))
    tested = columns.samples >= read_of.offsets[1]
    columns.values["subject"] = [
        None if new else who for new, who in zip(tested, columns.values["subject"], strict=True)
    ]
    columns.values["source"] = [None] * len(columns)
    task = make_task(columns, "emotion", protocol=Cross("one", "two", read_of.offsets[1]), begins=read_of.offsets)
    assert task.unit == "cluster"
    assert len(np.unique(task.units[task.splits.tested])) == 6
    learnt = task.units[task.splits.learnt]
    assert len(np.unique(learnt)) == 8
    assert not set(learnt) & set(task.units[task.splits.tested])
    (text,) = [text for text in task.warnings if "unit of independence" in text]
    assert text.startswith("the unit of independence is subject in the learnt set and cluster in the tested one")


def test_either_set_may_be_filtered_and_the_result_says_which(make: Make, tmp_path: Path) -> None:
    first, second = make("one", 48, ("train", "valid")), make("two", 24, ("test",))
    given = {"where": {"odd": "1"}, "test_set": TestSet(second, where={"odd": "0"})}
    result = run_probe(first, PIXELS, "emotion", plan=PLAN, cache=tmp_path, **given)  # type: ignore[arg-type]
    texts = [text for text in result.data["warnings"] if "only samples" in text]
    assert texts == ["only samples of the learnt set one with odd=1", "only samples of the tested set two with odd=0"]
    assert result.data["task"]["counts"]["test"]["samples"] == 12


def test_numbers_of_two_owners_are_not_taken_for_the_same(make: Make, tmp_path: Path) -> None:
    first = make("one", 48, ("train", "valid"), code=lambda n: n % 3)
    second = make("two", 24, ("test",), code=lambda n: 1 + n % 3)
    with pytest.raises(
        ProbeError, match=r"nothing says that 1, 2, 3 mean the same in both(.|\n)*--map 1=OURS --map 2=OURS"
    ):
        run_probe(first, PIXELS, "code", plan=PLAN, test_set=TestSet(second))
    mapping = {"1": "0", "2": "1", "3": "2"}
    result = run_probe(first, PIXELS, "code", plan=PLAN, test_set=TestSet(second, mapping=mapping), cache=tmp_path)
    assert result.data["task"]["counts"]["test"] == {"samples": 24, "0": 8, "1": 8, "2": 8}
