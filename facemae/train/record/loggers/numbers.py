"""What of a line of metrics can be drawn."""

from collections.abc import Mapping
from typing import Any

POSITIONS = ("step", "samples")
"""Where a line stands, which is no measurement."""


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The measurements of a line, without those that are missing."""
    return {
        name: float(value) for name, value in record.items() if isinstance(value, int | float) and name not in POSITIONS
    }
