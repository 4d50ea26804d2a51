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


def independent_units(columns: Columns, unit: str | None) -> tuple[NDArray[np.int64], str, list[str]]:
    """Unit numbers [N], what a unit is, and warnings.

    Args:
        columns: Metadata of the samples.
        unit: Column whose values are independent of each other, or `sample`; None takes the first of `DEFAULTS` that
            says something. A sample without a value is a unit of its own.

    Raises:
        ProbeError: The column does not exist, or most samples have no value in it.
    """
    if unit is not None and unit not in (SAMPLE, *columns.values):
        raise ProbeError(f"no column {unit!r} for --unit", expected=f"sample, or one of {', '.join(columns.values)}")
    for name in [unit] if unit else DEFAULTS:
        values = columns.text(name) if name in columns.values else []
        known = [value for value in values if value is not None]
        if known and (unit or tells(values)):
            return _number(name, values, known)
        if unit and unit != SAMPLE:
            raise ProbeError(f"column {unit!r} has no value", expected="a unit for most samples")
    return np.arange(len(columns), dtype=np.int64), SAMPLE, []


def tells(values: Sequence[str | None]) -> bool:
    """Whether a column tells more than the sample itself: it has two values, and one of them twice.

    The source of a still is its own file where the owner names none, so all of them differ.
    """
    known = [value for value in values if value is not None]
    return 1 < len(set(known)) < len(known)


def _number(name: str, values: list[str | None], known: list[str]) -> tuple[NDArray[np.int64], str, list[str]]:
    """Numbers of a column's values; a sample without one is a unit of its own."""
    missing = len(values) - len(known)
    if missing > len(known):
        raise ProbeError(
            f"column {name!r} has no value in {missing} of {len(values)} labelled samples",
            expected="a unit for most samples, since samples of one unit are not independent",
            fix="fill the column, name another with --unit, or --unit sample to take every sample as independent",
        )
    numbers = {value: number for number, value in enumerate(sorted(set(known)))}
    codes = [numbers[value] if value is not None else len(numbers) + place for place, value in enumerate(values)]
    text = f"{missing} of {len(values)} labelled samples have no {name}; each counts as a unit of its own"
    return np.array(codes, dtype=np.int64), name, [text] if missing else []
