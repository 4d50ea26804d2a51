"""Which group each sample belongs to by a metadata column: its value, or a quartile of its number."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import UsageError

FEW = 8
"""A column of numbers with more values than this is cut into quartiles."""
MOST = 100
"""More groups than this tell nothing."""


def group_samples(column: str, values: Sequence[Any]) -> dict[str | None, NDArray[np.int64]]:
    """Rows of each group, in the order of the values.

    Args:
        column: Name of the column, for messages.
        values: One a sample; None, NaN and empty text are no value. Text that reads as a number is one.

    Returns:
        Rows by group name; those without a value last, under None. Quartiles are named by their bounds; values that
        equal a bound are together, so quartiles of few values may be unequal or fewer than four.

    Raises:
        UsageError: The column has too many values that are no numbers.
    """
    text = [_text(value) for value in values]
    known = [i for i, value in enumerate(text) if value is not None]
    missing = np.array([i for i, value in enumerate(text) if value is None], dtype=np.int64)
    numbers = [_number(text[i]) for i in known]
    distinct = {text[i] for i in known}
    groups: dict[str | None, NDArray[np.int64]]
    if all(number is not None for number in numbers) and len(set(numbers)) > FEW:
        groups = _quartiles(np.array(known, dtype=np.int64), np.array(numbers, dtype=np.float64))
    elif len(distinct) > MOST:
        raise UsageError(
            f"column {column!r} has {len(distinct)} values",
            expected=f"numbers, or at most {MOST} values to slice by",
            fix="name a column with fewer values",
        )
    else:
        order = sorted(distinct, key=_order)
        groups = {name: np.array([i for i in known if text[i] == name], dtype=np.int64) for name in order}
    if len(missing):
        groups[None] = missing
    return groups


def _quartiles(rows: NDArray[np.int64], numbers: NDArray[np.float64]) -> dict[str | None, NDArray[np.int64]]:
    bounds = np.unique(np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1], method="higher"))
    places = np.clip(np.searchsorted(bounds, numbers, "right") - 1, 0, max(len(bounds) - 2, 0))
    groups: dict[str | None, NDArray[np.int64]] = {}
    for place in np.unique(places):
        last = place == len(bounds) - 2
        name = f"[{bounds[place]:g}, {bounds[place + 1]:g}{']' if last else ')'}"
        groups[name] = rows[places == place]
    return groups


def _text(value: Any) -> str | None:
    if value is None or str(value) == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    # A column of whole numbers that had a gap comes back as floats; 3.0 and 3 are one value.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _order(text: str | None) -> tuple[int, float, str]:
    number = _number(text)
    return (1, 0.0, text or "") if number is None else (0, number, "")
