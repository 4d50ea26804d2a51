"""The samples of a probe: of one shard set, or of one to learn from and another to be tested on.

Samples of several sets are numbered through: those of the second set follow all of the first.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae_probes.choosing.plan import Features, Say
from facemae_probes.features.cache import FeatureCache
from facemae_probes.features.images import images_of
from facemae_probes.features.rows import rows_of
from facemae_probes.features.sources import FeatureSource, Setting
from facemae_probes.results.identity import feature_code
from facemae_probes.tasks.columns import Columns, read_columns
from facemae_probes.tasks.units import DEFAULTS

if TYPE_CHECKING:
    from facemae.data.index import ShardIndex

APART = ("key", *DEFAULTS)
"""Columns whose values name something within a set: the same name in two sets is of two things."""


def _refuse_clips(index: "ShardIndex") -> None:
    from facemae.data.schema import IMAGE_EXTENSIONS

    if not any(name.rpartition(".")[2] in IMAGE_EXTENSIONS for name in index.extensions):
        raise ProbeError(
            f"{index.folder} holds no image, only {', '.join(sorted(index.extensions))}",
            expected="a set of images: packed clips cannot be probed yet",
            fix=f"facemae extract {index.folder} gives features of clips, in a table with their keys",
        )


@dataclass(frozen=True)
class Pool:
    """Shard sets whose samples are numbered through.

    Attributes:
        shards: Their folders.
        offsets: Number of the first sample of each.
    """

    shards: tuple[Path, ...]
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, *shards: Path) -> "Pool":
        """Open indexed shard sets.

        Raises:
            ProbeError: One holds no images.
        """
        from facemae.data.index import ShardIndex

        indices = [ShardIndex.open(path) for path in shards]
        for index in indices:
            _refuse_clips(index)
        sizes = [len(index) for index in indices]
        return cls(tuple(shards), tuple(int(n) for n in np.cumsum([0, *sizes[:-1]])))

    def facts(self) -> list[dict[str, Any]]:
        """What a result says of each set."""
        return copy.deepcopy(self._facts)

    @cached_property
    def _facts(self) -> list[dict[str, Any]]:
        return [_facts(path) for path in self.shards]

    @cached_property
    def _code(self) -> dict[str, str]:
        return feature_code()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the folders; those of one name are numbered: `packed`, `packed (2)`."""
        found: list[str] = []
        for path in self.shards:
            name, number = path.name, 1
            while name in found:
                number += 1
                name = f"{path.name} ({number})"
            found.append(name)
        return tuple(found)

    def own(self, samples: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        """Those of some samples that are of one set, in its own numbers."""
        start = self.offsets[number]
        stop = self.offsets[number + 1] if number + 1 < len(self.offsets) else np.iinfo(np.int64).max
        return samples[(samples >= start) & (samples < stop)] - start

    def features(
        self, source: FeatureSource, settings: Sequence[Setting], samples: NDArray[np.int64], folder: Path, say: Say
    ) -> dict[Setting, Features]:
        """Features of samples, from the cache where they are there.

        Args:
            source: Where they come from.
            settings: Layers and poolings.
            samples: Ascending.
            folder: Of the cache.
            say: Told how it goes.

        Returns:
            Memory maps; of several sets, what reads rows of them all (`RowsOf`).
        """
        store = FeatureCache(folder)
        owns = [self.own(samples, number) for number in range(len(self.shards))]
        parts = [
            store.features(
                source,
                settings,
                images_of(shards, source, own, say),
                data_digest=facts["digest"],
                samples=own,
                code=self._code,
            )
            for shards, facts, own in zip(self.shards, self._facts, owns, strict=True)
            if len(own)
        ]
        return {setting: rows_of([part[setting] for part in parts]) for setting in settings}


@dataclass(frozen=True)
class TestSet:
    """Another shard set to be tested on.

    Attributes:
        shards: The set.
        label: Its label column; None takes that of the training set.
        mapping: From its labels to those of the training set; without one, labels have the same names.
        where: Only its samples with these values.
    """

    __test__ = False

    shards: Path
    label: str | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)


def joined(
    pool: Pool,
    label: str,
    test: TestSet,
    where: Mapping[str, str] | None = None,
    *,
    kind: str = "auto",
    split: str = "split",
    apart: Sequence[str | None] = (),
) -> tuple[Columns, list[str]]:
    """Columns of a training and a test set as those of one.

    Test samples of the first set and training samples of the second are left out.

    Args:
        pool: The two sets.
        label: Label column of the training set: one column of classes.
        test: What is tested on.
        where: Filter of the training set.
        kind: What the labels are.
        split: Column of the training set's official parts; the test set's are in `split`.
        apart: Columns beside `APART` whose values name something within a set, such as units; None is passed over.

    Returns:
        The columns, with `split` saying what a sample serves; and what a reader has to know. Keys, subjects and other
        names that both sets have are of two things: those of the first set get its name in front.

    Raises:
        ProbeError: The labels are not one column of classes, a column of labels or parts is missing, or no label of
            the test set is one of the training set.
    """
    first = read_columns(pool.shards[0], dict(where or {}))
    second = read_columns(test.shards, dict(test.where))
    own, name = test.label or label, pool.names[1]
    for columns, text in ((first, label), (second, own)):
        _refuse_others(columns, text, kind)
    known = {value for value in first.require(label, "of labels") if value is not None}
    texts = second.require(own, f"of labels in {name}")
    mapped = [None if text is None else test.mapping.get(text, text) for text in texts]
    _refuse_codes(known, texts, test.mapping, pool.names)
    if unused := sorted(set(test.mapping) - set(texts)):
        raise ProbeError(f"--map names {', '.join(unused)}", expected=f"labels of {name}: {_some(texts)}")
    left = [text for text, ours in zip(texts, mapped, strict=True) if text is not None and ours not in known]
    kept = [row for row, ours in enumerate(mapped) if ours in known]
    if not kept:
        raise ProbeError(
            f"no label of {name} ({_some(texts)}) is one of {pool.names[0]} ({_some(list(known))})",
            fix="--map THEIRS=OURS, repeatable",
        )
    warnings = [f"{len(left)} samples of {name} with labels {_some(left)} are left out"] if left else []
    parts = second.text("split") if "split" in second.values else [None] * len(second)
    tested = [row for row in kept if parts[row] == "test"]
    if not tested:
        tested = kept
        warnings.append(f"no labelled sample of {name} has split test: all {len(kept)} are tested")
    served = first.require(split, f"to take the parts of {pool.names[0]} from")
    trained = [row for row, part in enumerate(served) if part in ("train", "valid")]
    one = first.take(np.array(trained, dtype=np.int64))
    other = second.take(np.array(tested, dtype=np.int64))
    values = _values(one, other, pool.names[0], {*APART, *(column for column in apart if column is not None)})
    values[label] = one.values[label] + [mapped[row] for row in tested]
    values["split"] = [served[row] for row in trained] + ["test"] * len(tested)
    return Columns(np.concatenate([one.samples, other.samples + pool.offsets[1]]), values), warnings


def _refuse_codes(
    known: Collection[str], texts: Sequence[str | None], mapping: Mapping[str, str], names: Sequence[str]
) -> None:
    """Numbers of two owners mean the same only if somebody says so: RAF-DB counts from 1, AffectNet from 0."""
    codes = sorted({text for text in texts if text is not None and text.isdecimal() and text not in mapping})
    if codes and all(text.isdecimal() for text in known):
        raise ProbeError(
            f"{names[0]} and {names[1]} both have numbers for classes, and nothing says that "
            f"{', '.join(codes[:8])} mean the same in both",
            expected="each of them in --map",
            fix=" ".join(f"--map {code}=OURS" for code in codes[:8]) + ", also where the numbers are the same",
        )


def _refuse_others(columns: Columns, label: str, kind: str) -> None:
    """Two sets are brought together by the names of classes; whether other labels mean the same only owners know."""
    several = "," in label or (label not in columns.values and any(fnmatchcase(name, label) for name in columns.labels))
    if several or kind not in ("auto", "classes"):
        what = f"several columns, {label!r}" if several else f"labels of kind {kind}"
        raise ProbeError(
            f"--test-data with {what}",
            expected="one column of classes: two sets are brought together by the names of their classes, which --map "
            "translates; whether columns, shares or numbers of two owners mean the same cannot be seen",
            fix="one column a call; or pack both sets as one, with a column of splits",
        )


def _values(one: Columns, other: Columns, name: str, apart: Collection[str]) -> dict[str, list[Any]]:
    """The columns of two sets after each other; in some of them, no value is in both."""
    values = {}
    for column in dict.fromkeys([*one.values, *other.values]):
        ours = one.values.get(column, [None] * len(one))
        theirs = other.values.get(column, [None] * len(other))
        if column in apart and column in one.values and column in other.values:
            shared = set(other.text(column)) - {None}
            texts = one.text(column)
            # The test set keeps its names: lists of its keys, and its keys in predictions, stay those of the set.
            ours = [f"{name}/{text}" if text in shared else value for text, value in zip(texts, ours, strict=True)]
        values[column] = ours + theirs
    return values


def _some(names: Sequence[str | None]) -> str:
    known = sorted({name for name in names if name is not None})
    return ", ".join(known[:8]) + (", …" if len(known) > 8 else "")


def _facts(shards: Path) -> dict[str, Any]:
    from facemae.data.card import read_card
    from facemae.data.index import ShardIndex

    index = ShardIndex.open(shards)
    card = read_card(shards)
    return {
        "shards": shards.name,
        "digest": index.digest,
        "samples": len(index),
        "card": card.model_dump(mode="json"),
        "crop": card.crop.model_dump(mode="json"),
    }
