"""Published ways that let choices see the test labels; offered to reproduce numbers, never as a headline.

What each system does was read in its code; `source` says where.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from facemae.errors import UsageError
from facemae_probes.protocols.base import Fold, Inner, Protocol, Samples, Splits
from facemae_probes.protocols.folds import LeaveOneOut
from facemae_probes.protocols.official import Official

PREFIX = "paper:"


@dataclass(frozen=True)
class Way:
    """How a published system comes to its numbers.

    Attributes:
        base: What its folds are, where the data have the owner's split.
        about: What is chosen on test, in a sentence.
        source: Where that was read.
    """

    base: Protocol
    about: str
    source: str


WAYS = {
    "fmae-iat": Way(
        Official(),
        "the epoch, and for action units one of 99 thresholds, are those that do best on test",
        "forever208/FMAE-IAT: AU_evaluate and the driver of fine-tuning",
    ),
    "hicmae": Way(
        Official(), "validation and test are the same list; the epoch that does best on it", "sunlicai/HiCMAE"
    ),
    "mae-dfer": Way(
        Official(), "validation and test are the same list; the epoch that does best on it", "sunlicai/MAE-DFER"
    ),
    "svfap": Way(Official(), "validation and test are the same list; the epoch that does best on it", "sunlicai/SVFAP"),
    "s4d": Way(Official(), "validation and test are the same list; the epoch that does best on it", "MSA-LMC/S4D"),
    "htnet": Way(
        LeaveOneOut(), "the best of 800 epochs on each subject that was left out", "wangzhifengharrison/HTNet: main"
    ),
}
"""By name of the system."""


@dataclass(frozen=True)
class Paper(Protocol):
    """All choices are made on test.

    Attributes:
        system: Key of `WAYS`.
    """

    form: ClassVar[str] = "paper:SYSTEM"
    system: str = "fmae-iat"

    def __post_init__(self) -> None:
        if self.system not in WAYS:
            raise UsageError(f"--protocol {PREFIX}{self.system}", expected=f"one of {', '.join(WAYS)}")

    @property
    def way(self) -> Way:
        """What the system does."""
        return WAYS[self.system]

    @property
    def name(self) -> str:
        """`paper:SYSTEM`."""
        return f"{PREFIX}{self.system}"

    def split(self, samples: Samples) -> Splits:
        """The folds of its base, each judged on its own test rows."""
        honest = self.way.base.split(samples)
        repeats = tuple(tuple(_on_test(fold) for fold in folds) for folds in honest.repeats)
        text = f"{self.name} chooses on the test labels ({self.way.about}): an upper end, not a result"
        return replace(
            honest,
            protocol=self.name,
            about=f"{self.way.about} ({self.way.source})",
            chosen_on="TEST LABELS",
            repeats=repeats,
            on_test=True,
            warnings=(*honest.warnings, text),
        )


def _on_test(fold: Fold) -> Fold:
    return Fold(fold.name, fold.train, fold.test, (Inner(fold.train, fold.test),), refit=False)
