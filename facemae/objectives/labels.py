"""Labels of samples as a supervised objective learns from them: what a column's values mean, said once."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from facemae.config import LabelCounts
from facemae.config.data import as_text
from facemae.data.metadata import sample_labels
from facemae.errors import ConfigError, DataError

Task = Literal["classes", "multilabel", "distribution", "regression"]
"""`classes`: one column, one of C classes. `multilabel`: C columns of 0 and 1. `distribution`: C columns of shares or
votes. `regression`: C columns of numbers."""

_WHOLE = re.compile(r"-?[0-9]+")
BINARY = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0, "False": 0.0, "True": 1.0}


@dataclass(frozen=True)
class LabelReader:
    """Reads labels of samples from their metadata.

    Attributes:
        task: What the columns hold.
        columns: Their names.
        classes: Names of the classes, for task `classes`.
        rename: What values are called as classes, where it is not their own text.
        unknown: Values that say that a label is not known, beside empty ones.
    """

    task: Task
    columns: tuple[str, ...]
    classes: tuple[str, ...] = ()
    rename: Mapping[str, str] | None = None
    unknown: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """C: how many numbers are predicted for a sample."""
        return len(self.classes) if self.task == "classes" else len(self.columns)

    def text(self, value: Any) -> str | None:
        """A value as text, after renaming; None where it is not known."""
        text = str(as_text(value))
        if value is None or text == "" or text in self.unknown or (isinstance(value, float) and math.isnan(value)):
            return None
        return (self.rename or {}).get(text, text)

    def number(self, column: str, value: Any) -> float | None:
        """A value as number: that of its class, 0 or 1, a share, or itself; None where it is not known.

        Raises:
            DataError: It has no meaning for the task; says which values do.
        """
        text = self.text(value)
        if text is None:
            return None
        if self.task == "classes":
            if text in self.classes:
                return float(self.classes.index(text))
            near = difflib.get_close_matches(text, self.classes, n=1)
            raise DataError(
                f"label {text!r} in column {column!r}",
                expected=f"one of {', '.join(self.classes)}" + (f"; the nearest is {near[0]}" if near else ""),
                fix="name it in `classes`, in `rename` as one of them, or in `unknown`",
            )
        if self.task == "multilabel":
            if text in BINARY:
                return BINARY[text]
            raise DataError(
                f"label {text!r} in column {column!r}",
                expected="0, 1, or empty where it was not coded",
                fix="name values that say `not coded` in `unknown`",
            )
        return self._real(column, text)

    def _real(self, column: str, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.inf
        if not math.isfinite(number) or (self.task == "distribution" and number < 0):
            wanted = "a share or a count, 0 or greater" if self.task == "distribution" else "a number"
            raise DataError(
                f"label {text!r} in column {column!r}",
                expected=f"{wanted}, or empty where it is not known",
                fix="name values that say `not known` in `unknown`",
            )
        return number

    def row(self, meta: Mapping[str, Any]) -> list[float | None]:
        """The numbers of a sample's columns. Of a distribution all are known or none: they add up to one."""
        found = sample_labels(meta)
        numbers = [self.number(column, found.get(column)) for column in self.columns]
        if self.task != "distribution":
            return numbers
        known = [number for number in numbers if number is not None]
        total = sum(known)
        if len(known) < len(numbers) or total == 0:
            return [None] * len(numbers)
        return [number / total for number in known]

    def count(self, meta: Mapping[str, Any]) -> int:
        """How many labels of a sample are known: one of a class or distribution, one a column of the others."""
        known = sum(number is not None for number in self.row(meta))
        return min(known, 1) if self.task == "distribution" else known

    def targets(self, metas: Sequence[Mapping[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """What is to be predicted, and which of it is known.

        Returns:
            float32 [B, C]: a class as 1 among zeros; and float32 [B, C] of 1 where known and 0 elsewhere, [B, 1] for
            classes and distributions. What is not known is 0.
        """
        rows = [self.row(meta) for meta in metas]
        # A process may have no sample of the streams that are asked.
        shape = (len(rows), len(self.columns))
        values = torch.tensor([[number or 0.0 for number in row] for row in rows], dtype=torch.float32).view(shape)
        known = torch.tensor([[float(number is not None) for number in row] for row in rows]).view(shape)
        if self.task == "classes":
            places = values.long().clamp(max=self.width - 1)
            values = torch.zeros(len(rows), self.width).scatter_(1, places, known)
        return values, known[:, :1] if self.task == "distribution" else known

    def classes_in(self, found: LabelCounts) -> tuple[str, ...]:
        """The classes that samples have, numbers in their order and before text.

        Args:
            found: The values of the columns.
        """
        values = {self.text(value) for counts in found.values() for value in counts.get(self.columns[0], {})}
        names = [text for text in values if text is not None]
        return tuple(sorted(names, key=lambda name: (0, int(name), "") if _WHOLE.fullmatch(name) else (1, 0, name)))

    def spread_in(self, found: LabelCounts) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each column of numbers; a deviation of one where all are the same.

        Args:
            found: The values of the columns.

        Raises:
            DataError: A value is no number.
        """
        centres, scales = [], []
        for column in self.columns:
            counts: dict[float, int] = {}
            for values in found.values():
                for value, count in values.get(column, {}).items():
                    number = self.number(column, value)
                    if number is not None:
                        counts[number] = counts.get(number, 0) + count
            total = max(sum(counts.values()), 1)
            centre = sum(number * count for number, count in counts.items()) / total
            square = sum((number - centre) ** 2 * count for number, count in counts.items()) / total
            centres.append(centre)
            scales.append(math.sqrt(square) or 1.0)
        return tuple(centres), tuple(scales)

    def check(self, found: LabelCounts) -> str:
        """Refuse columns and values that mean nothing, before anything is learned from them.

        Args:
            found: The values of the columns.

        Returns:
            A sentence for the log: how many labels there are.

        Raises:
            ConfigError: A column is in no stream, or no label is known.
            DataError: As `number`.
        """
        for column in self.columns:
            if not any(column in counts for counts in found.values()):
                raise ConfigError(
                    f"no stream has a metadata column {column!r}, which objective 'supervised' learns from",
                    expected="columns of the shard sets that its view is made of",
                    fix="facemae data stats DIR shows them; views.NAME.streams says which sets those are",
                )
        known = 0
        for counts in found.values():
            for column in self.columns:
                values = counts.get(column, {})
                known += sum(number for value, number in values.items() if self.number(column, value) is not None)
        if not known:
            raise ConfigError(
                f"no sample of the streams that its view is made of has a label in {', '.join(self.columns)}",
                fix="widen `where` or views.NAME.streams, or name other columns",
            )
        columns = self.columns[0] if len(self.columns) == 1 else f"{len(self.columns)} columns"
        return f"{known:,} labels in {columns}" + (
            f", of {self.width} classes" if self.task in ("classes", "distribution") else ""
        )
