"""Units of independence: samples of one unit are not independent of each other."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae_probes.tasks.columns import Columns

SAMPLE = "sample"
SOURCES = ("source", "label_source")
"""What a sample was taken from. Sets packed before tables had a column `source` of its own have it as a label."""
DEFAULTS = ("subject", *SOURCES, "cluster")
"""Columns that are looked at where none is named: the person, else the source video, else near-duplicate images."""


def independent_units(
    columns: Columns, unit: str | None, begins: Sequence[int] = (0,)
) -> tuple[NDArray[np.int64], str, list[str]]:
    """Unit numbers [N], what a unit is, and warnings.

    Of several shard sets each has the units that it knows; named is that of the last, which is tested.

    Args:
        columns: Metadata of the samples.
        unit: Column whose values are independent of each other, or `sample`; None takes the first of `DEFAULTS` that
            says something. A sample without a value is a unit of its own.
        begins: Number of the first sample of each shard set, where several are numbered through.

    Raises:
        ProbeError: The column does not exist, has no value, or most samples of a set that knows it have none.
    """
    if unit is not None and unit not in (SAMPLE, *columns.values):
        raise ProbeError(f"no column {unit!r} for --unit", expected=f"sample, or one of {', '.join(columns.values)}")
    if unit not in (None, SAMPLE) and not any(value is not None for value in columns.text(str(unit))):
        raise ProbeError(f"column {unit!r} has no value", expected="a unit for most samples")
    sets = np.searchsorted(np.asarray(begins), columns.samples, side="right") - 1
    numbers, first, names, warnings = np.empty(len(columns), dtype=np.int64), 0, [], []
    for number in np.unique(sets).tolist():
        rows = np.flatnonzero(sets == number)
        of = "" if len(begins) == 1 else f" of the {'tested' if number else 'learnt'} set"
        own, name, more = _units_of(columns.take(rows), unit, of)
        # Numbers of one set are none of another's.
        numbers[rows] = first + own
        first += int(own.max()) + 1
        names.append(name)
        warnings += more
    if len(set(names)) > 1:
        warnings.append(
            f"the unit of independence is {names[0]} in the learnt set and {names[-1]} in the tested one, over which "
            "intervals are drawn"
        )
    return numbers, names[-1], warnings


def _units_of(columns: Columns, unit: str | None, of: str) -> tuple[NDArray[np.int64], str, list[str]]:
    """The units of one set's samples; `of` names the set in messages."""
    for name in [unit] if unit else DEFAULTS:
        values = columns.text(name) if name in columns.values else []
        if name != SAMPLE and (unit or tells(values)):
            return _numbers(values), name, _missing(name, values, of)
    warnings = []
    if unit is None:
        warnings.append(
            f"nothing says which samples{of} belong together ({', '.join(DEFAULTS)}): each counts as independent, and "
            "intervals are too narrow if some show one person or come from one video"
        )
    return np.arange(len(columns), dtype=np.int64), SAMPLE, warnings


def tells(values: Sequence[str | None]) -> bool:
    """Whether a column tells more than the sample itself: it has two values, and one of them twice.

    The source of a still is its own file where the owner names none, so all of them differ.
    """
    known = [value for value in values if value is not None]
    return 1 < len(set(known)) < len(known)


def _numbers(values: Sequence[str | None]) -> NDArray[np.int64]:
    """Numbers of a column's values; a sample without one is a unit of its own."""
    numbers = {value: number for number, value in enumerate(sorted({value for value in values if value is not None}))}
    codes = [numbers[value] if value is not None else len(numbers) + place for place, value in enumerate(values)]
    return np.array(codes, dtype=np.int64)


def _missing(name: str, values: Sequence[str | None], of: str) -> list[str]:
    """Warnings on samples of a set without a unit.

    Raises:
        ProbeError: Most samples have no value, but not all: a set that lacks the column says nothing of it.
    """
    missing = sum(value is None for value in values)
    if len(values) - missing < missing < len(values):
        raise ProbeError(
            f"column {name!r} has no value in {missing} of {len(values)} labelled samples{of}",
            expected="a unit for most samples, since samples of one unit are not independent",
            fix="fill the column, name another with --unit, or --unit sample to take every sample as independent",
        )
    if not missing:
        return []
    return [f"{missing} of {len(values)} labelled samples{of} have no {name}; each counts as a unit of its own"]
