"""Learn from one data set, be tested on another: what the numbers on one's own test part do not tell."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from facemae.errors import ProbeError
from facemae_probes.protocols.base import Protocol, Samples, Splits
from facemae_probes.protocols.official import Official


@dataclass(frozen=True)
class Cross(Protocol):
    """Settings are chosen on the first set; the second is predicted once.

    Attributes:
        first: Name of the set that is learnt from.
        second: Name of the set that is predicted.
        begin: Number of the first sample of the second set, where both are numbered through.
    """

    form: ClassVar[str] = "cross, by --test-data"
    first: str = "train"
    second: str = "test"
    begin: int = 0

    @property
    def name(self) -> str:
        """`cross:FIRST>SECOND`."""
        return f"cross:{self.first}>{self.second}"

    def split(self, samples: Samples) -> Splits:
        """One fold; the columns say in `split` what a sample serves (`facemae_probes.features.pool.joined`).

        Raises:
            ProbeError: As `Official`; or the column of parts would have samples of the second set learnt from or
                chosen on, or samples of the first set tested.
        """
        found = Official().split(samples)
        second = samples.columns.samples >= self.begin
        for fold in found.repeats[0]:
            seen = np.unique(
                np.concatenate([fold.train, *(part for way in fold.inner for part in (way.fit, way.judge))])
            )
            for rows, wrong, text in (
                (seen, second[seen], f"learn from or choose on samples of {self.second}"),
                (fold.test, ~second[fold.test], f"test samples of {self.first}"),
            ):
                if wrong.any():
                    raise ProbeError(
                        f"{self.name} would {text}: {wrong.sum()} of {len(rows)} by column {samples.split!r}",
                        expected=f"parts by which {self.first} is learnt from and {self.second} is tested",
                    )
        about = f"learnt from {self.first}, tested on {self.second}, which plays no part in any choice"
        chosen_on = f"{self.first}: {found.chosen_on}"
        return replace(found, protocol=self.name, about=about, chosen_on=chosen_on, across=True)
