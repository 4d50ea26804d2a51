"""What every benchmark states, and what is refused when a module that states it wrongly is imported."""

import re
from typing import Any, get_args

import pydantic
import pytest

from facemae.errors import UsageError
from facemae_probes.benchmarks.base import UNVERIFIED, Benchmark, Layout, Metric, Target, Version
from facemae_probes.benchmarks.listing import Listing
from facemae_probes.benchmarks.registry import BENCHMARKS, all_benchmarks, benchmark

EXPECTED = {"affectnet7", "affectnet8", "custom", "fer2013", "ferplus", "raf-db"}


def test_every_registered_benchmark_is_found_under_its_own_name() -> None:
    assert set(BENCHMARKS) >= EXPECTED
    assert [found.name for found in all_benchmarks()] == sorted(BENCHMARKS)
    assert len(set(BENCHMARKS.values())) == len(BENCHMARKS)


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_metadata_is_complete(name: str) -> None:
    found = benchmark(name)
    assert found.licence
    assert found.citation
    assert found.access
    assert found.consent
    for layout in found.layouts:
        assert layout.sources == UNVERIFIED or (len(layout.sources) == 2 and len(set(layout.sources)) == 2)
    if name == "custom":
        return
    assert found.versions
    assert found.headline.classes
    for version in found.versions:
        assert {"train", "test"} <= set(version.counts)
        assert version.source
        for per in version.classes.values():
            assert list(per) == list(found.headline.classes), "classes are counted in the owner's order"
    for published in found.published:
        assert published.protocol
        assert published.source
    assert any(layout.sources != UNVERIFIED for layout in found.layouts)


def test_official_counts_and_label_orders() -> None:
    assert benchmark("raf-db").headline.classes[0] == "surprise"
    assert benchmark("raf-db").versions[0].counts == {"train": 12271, "test": 3068}
    eight, seven = benchmark("affectnet8"), benchmark("affectnet7")
    assert eight.headline.classes == (*seven.headline.classes, "contempt")
    assert [version.counts["test"] for version in eight.versions] == [3999, 4000]
    assert benchmark("fer2013").versions[0].counts == {"train": 28709, "valid": 3589, "test": 3589}
    plus = benchmark("ferplus")
    assert plus.versions[0].counts == {"train": 25060, "valid": 3199, "test": 3153}
    assert list(plus.versions[0].classes["test"].values()) == [1090, 893, 396, 384, 273, 18, 83, 16]
    assert plus.versions[1].counts == {"train": 25045, "valid": 3191, "test": 3137}


@pytest.mark.parametrize(
    ("asked", "near"), [("rafdb", "raf-db"), ("RAF_DB", "raf-db"), ("affectnet", "affectnet"), ("fer+", "fer")]
)
def test_an_unknown_name_is_answered_with_the_nearest(asked: str, near: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"there is no benchmark {asked!r}")) as caught:
        benchmark(asked)
    assert near in str(caught.value.fix)
    assert "ferplus" in str(caught.value.expected)


def test_a_target_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(UsageError, match="ferplus has no target 'valence'") as caught:
        benchmark("ferplus").target("valence")
    assert "majority, distribution" in str(caught.value)


def _stated(**changes: Any) -> dict[str, Any]:
    target = Target(name="label", kind="classes", columns=("label",), classes=("a", "b"), metric="accuracy")
    layout = Layout(name="list", needs=("list.txt",), read=lambda _: Listing(), sources=UNVERIFIED)
    version = Version(name="one", counts={"train": 3, "test": 2}, classes={"test": {"a": 1, "b": 1}}, source="made")
    whole = {
        "name": "made",
        "title": "Made",
        "family": "fer",
        "targets": (target,),
        "protocol": "official",
        "unit": "sample",
        "versions": (version,),
        "licence": "none",
        "consent": "none needed",
        "access": "made",
        "citation": "none",
        "layouts": (layout,),
    }
    return {**whole, **changes}


def test_what_a_benchmark_states_is_checked() -> None:
    assert Benchmark(**_stated()).headline.name == "label"
    foreign = Version(name="two", counts={"train": 1, "test": 1}, classes={"test": {"c": 1}}, source="made")
    for changes, text in (
        ({"licence": ""}, "licence"),
        ({"name": "Raf DB"}, "name"),
        ({"family": "faces"}, "family"),
        ({"layouts": ()}, "layouts"),
        ({"versions": (foreign,)}, "unknown classes c"),
        ({"targets": (_stated()["targets"] * 2)}, "two targets of one name"),
        ({"colour": "red"}, "colour"),
    ):
        with pytest.raises(pydantic.ValidationError, match=text):
            Benchmark(**_stated(**changes))


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="test classes sum to 3"):
        Version(name="v", counts={"train": 1, "test": 2}, classes={"test": {"a": 3}}, source="s")
    with pytest.raises(pydantic.ValidationError, match="'val' is none of train, valid, test"):
        Version(name="v", counts={"train": 1, "val": 2}, source="s")


def test_targets_that_contradict_themselves_are_refused() -> None:
    for text, changes in (
        ("a class twice", {"classes": ("a", "a")}),
        ("need one column", {"columns": ("a", "b")}),
        ("3 classes for 2 columns", {"kind": "multilabel", "columns": ("a", "b"), "classes": ("a", "b", "c")}),
        ("metric", {"metric": "goodness"}),
    ):
        whole: dict[str, Any] = {"name": "t", "kind": "classes", "columns": ("a",), "metric": "accuracy", **changes}
        with pytest.raises(pydantic.ValidationError, match=text):
            Target(**whole)
    assert "accuracy" in get_args(Metric)
    with pytest.raises(pydantic.ValidationError, match="sources"):
        Layout(name="n", needs=("f",), read=lambda _: Listing(), sources="a friend told me")
