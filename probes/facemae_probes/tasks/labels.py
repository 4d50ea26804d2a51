"""From metadata columns to `Targets`: classes, binary columns, shares, numbers."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae_probes.tasks.columns import Columns
from facemae_probes.tasks.targets import MISSING, Kind, Targets

BINARY = {None: MISSING, "0": 0, "1": 1, "False": 0, "True": 1, "false": 0, "true": 1}


_WHOLE = re.compile(r"-?[0-9]+")


def read_targets(columns: Columns, names: Sequence[str], kind: Kind, classes: Sequence[str] = ()) -> Targets:
    """True labels of samples that all have a value in one of the columns.

    Args:
        columns: Their metadata.
        names: The label columns: one for `classes`, one for each class or number otherwise.
        kind: What they hold.
        classes: Names of the classes in their order, those without samples too; empty takes them from the values, or
            from the names of the columns.

    Raises:
        ProbeError: Values are not of the kind, or are none of the classes.
    """
    if kind == "classes":
        if len(names) > 1:
            raise ProbeError(
                f"{len(names)} label columns: {', '.join(names)}",
                expected="one column of classes",
                fix="--task multilabel, distribution or regression for several columns",
            )
        return _classes(columns.text(names[0]), classes)
    titles = tuple(classes) or tuple(names)
    if kind == "multilabel":
        return Targets(kind, titles, np.stack([_binary(columns.text(name), name) for name in names], axis=1))
    numbers = np.stack([_numbers(columns.text(name), name) for name in names], axis=1)
    return Targets(kind, titles, _shares(numbers, columns) if kind == "distribution" else numbers)


def unlabelled(columns: Columns, names: Sequence[str], kind: Kind) -> NDArray[np.bool_]:
    """Which samples have no label of a kind: nothing in any column; of a distribution, votes that sum to nothing."""
    values = [columns.text(name) for name in names]
    if kind == "distribution":
        numbers = np.stack([_numbers(texts, name) for texts, name in zip(values, names, strict=True)], axis=1)
        return np.asarray(np.isnan(numbers).any(axis=1) | (numbers == 0).all(axis=1))
    return np.array([all(value is None for value in row) for row in zip(*values, strict=True)], dtype=bool)


def in_order(names: set[str]) -> list[str]:
    """Names sorted, whole numbers by their value and first."""
    return sorted(names, key=lambda name: (0, int(name), "") if _WHOLE.fullmatch(name) else (1, 0, name))


def _classes(values: Sequence[str | None], given: Sequence[str]) -> Targets:
    text = [value or "" for value in values]
    names = tuple(given) or tuple(in_order(set(text)))
    if foreign := [name for name in in_order(set(text)) if name not in names]:
        raise ProbeError(
            f"labels {', '.join(foreign[:5])} of some samples, which are none of the classes",
            expected=f"one of {', '.join(names)}",
            fix="leave such samples out by --where COLUMN=VALUE; of --test-data, --map THEIRS=OURS renames them",
        )
    if len(names) < 2:
        raise ProbeError(f"the labels have one class, {names[0]!r}", expected="two or more")
    numbers = {name: number for number, name in enumerate(names)}
    return Targets("classes", names, np.array([numbers[value] for value in text], dtype=np.int64))


def _binary(values: Sequence[str | None], name: str) -> NDArray[np.int64]:
    unknown = sorted({str(value) for value in values if value not in BINARY})
    if unknown:
        raise ProbeError(
            f"column {name!r} holds {', '.join(unknown[:5])}",
            expected="0, 1, or empty where not coded, for a multi-label task",
            fix="--task classes for one column of classes",
        )
    return np.array([BINARY[value] for value in values], dtype=np.int64)


def _numbers(values: Sequence[str | None], name: str) -> NDArray[np.float64]:
    out = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if value is None:
            continue
        try:
            out[row] = float(value)
        except ValueError:
            raise ProbeError(f"column {name!r} holds {value!r}", expected="numbers, or empty where missing") from None
        if np.isinf(out[row]):
            raise ProbeError(f"column {name!r} holds {value!r}", expected="finite numbers, or empty where missing")
    return out


def _shares(numbers: NDArray[np.float64], columns: Columns) -> NDArray[np.float64]:
    if (numbers < 0).any():
        row = int(np.argwhere((numbers < 0).any(axis=1))[0, 0])
        raise ProbeError(
            f"sample {columns.values['key'][row]} has negative votes", expected="votes or shares from 0 on"
        )
    return np.asarray(numbers / numbers.sum(axis=1, keepdims=True))
