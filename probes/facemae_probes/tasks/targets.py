"""What probes learn and metrics judge: the true labels of samples, of one of four kinds.

Every head takes `Targets` and gives scores [N, C]; every metric takes `Targets` and scores. What a kind means is said
here, once.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError

Kind: TypeAlias = Literal["classes", "multilabel", "distribution", "regression"]
KINDS: tuple[Kind, ...] = ("classes", "multilabel", "distribution", "regression")
Scores: TypeAlias = NDArray[np.float32]
"""[N, C]: probabilities of classes (also of `distribution`) or of binary columns, or predicted numbers."""

MISSING = -1
"""Value of a binary column that was not coded; it takes part in neither training nor metrics."""


@dataclass(frozen=True)
class Targets:
    """True labels of N samples.

    Attributes:
        kind: `classes`: one of C classes; `multilabel`: C binary columns; `distribution`: shares of C classes;
            `regression`: C numbers.
        names: Names of the C classes or columns.
        values: By kind: int64 [N] class numbers; int64 [N, C] of 0, 1 and `MISSING`; float64 [N, C] of shares that sum
            to one; float64 [N, C], NaN where a number is missing.
        meant: Numbers of the classes that means over classes are over; None for all. A class that a part or a draw
            lacks stays in them with zero; one that the tested data set never had is none of these.

    Raises:
        ProbeError: Values do not have the form of their kind.
    """

    kind: Kind
    names: tuple[str, ...]
    values: NDArray[Any]
    meant: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        shape = () if self.kind == "classes" else (len(self.names),)
        whole = self.kind in ("classes", "multilabel")
        wanted = np.dtype(np.int64 if whole else np.float64)
        if self.values.shape[1:] != shape or self.values.ndim != 1 + len(shape) or self.values.dtype != wanted:
            raise ProbeError(
                f"labels of kind {self.kind} with shape {self.values.shape} and type {self.values.dtype}",
                expected=f"[N{', C' if shape else ''}] of {wanted} for {len(self.names)} names",
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        """C: classes or columns."""
        return len(self.names)

    @property
    def known(self) -> NDArray[np.bool_]:
        """[N, C], or [N, 1] where all of a sample is known or nothing: which labels there are."""
        if self.kind == "multilabel":
            return np.asarray(self.values != MISSING)
        if self.kind == "regression":
            return np.asarray(~np.isnan(self.values))
        return np.ones((len(self), 1), dtype=bool)

    def take(self, rows: NDArray[Any]) -> "Targets":
        """Those of some samples, by numbers or by a mask."""
        return replace(self, values=self.values[rows])

    def majority(self) -> NDArray[np.int64]:
        """[N] the class of each sample; of a distribution the one with the largest share, the first of equals.

        Raises:
            ProbeError: They are binary columns or numbers.
        """
        if self.kind == "classes":
            return np.asarray(self.values, dtype=np.int64)
        if self.kind == "distribution":
            return np.asarray(self.values.argmax(axis=1), dtype=np.int64)
        raise ProbeError(f"labels of kind {self.kind} have no class", expected="classes or distribution")
