"""Learn from one data set, be tested on another: what the numbers on one's own test part do not tell."""

from dataclasses import dataclass, replace
from typing import ClassVar

from facemae_probes.protocols.base import Protocol, Samples, Splits
from facemae_probes.protocols.official import Official


@dataclass(frozen=True)
class Cross(Protocol):
    """Settings are chosen on the first set; the second is predicted once.

    Attributes:
        first: Name of the set that is learnt from.
        second: Name of the set that is predicted.
    """

    form: ClassVar[str] = "cross, by --test-data"
    first: str = "train"
    second: str = "test"

    @property
    def name(self) -> str:
        """`cross:FIRST>SECOND`."""
        return f"cross:{self.first}>{self.second}"

    def split(self, samples: Samples) -> Splits:
        """One fold; the columns say in `split` which set serves what (`facemae_probes.features.pool.joined`)."""
        found = Official().split(samples)
        about = f"learnt from {self.first}, tested on {self.second}, which plays no part in any choice"
        return replace(found, protocol=self.name, about=about, chosen_on=f"{self.first}: {found.chosen_on}")
