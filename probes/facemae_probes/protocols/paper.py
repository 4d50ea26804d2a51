"""Published ways that let choices see the test labels; offered to reproduce numbers, never as a headline.

What each system does was read in its code; `source` says where.
"""

from dataclasses import dataclass, field, replace
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
        about: What it chooses on test, in a sentence.
        source: Where that was read.
        base: Its folds, where none are named.
        one_threshold: Whether binary columns share one threshold that is fitted on test too.
    """

    about: str
    source: str
    base: Protocol = field(default_factory=Official)
    one_threshold: bool = False


_SAME_LIST = "has one list for validation and test, and reports the epoch that does best on it"
WAYS = {
    "fmae-iat": Way(
        "reports the epoch that does best on test and, for action units, the one of 99 thresholds that does",
        "forver208/FMAE-IAT: AU_evaluate and the driver of fine-tuning",
        one_threshold=True,
    ),
    "hicmae": Way(_SAME_LIST, "sunlicai/HiCMAE"),
    "mae-dfer": Way(_SAME_LIST, "sunlicai/MAE-DFER"),
    "svfap": Way(_SAME_LIST, "sunlicai/SVFAP"),
    "s4d": Way(_SAME_LIST, "MSA-LMC/S4D"),
    "htnet": Way(
        "reports the best of 800 epochs on each subject that was left out",
        "wangzhifengharrison/HTNet: main",
        LeaveOneOut(),
    ),
}
"""By name of the system."""


@dataclass(frozen=True)
class Paper(Protocol):
    """All choices are made on test, as a published system makes its own.

    What is reproduced is who may see the test labels, not the system: layer, pooling, strength, k and, of attentive and
    temporal probes, the epoch are those that do best on test. Fine-tuning chooses its learning rate there; its weights
    are those at the end here too.

    Attributes:
        system: Key of `WAYS`.
        folds: The folds it is about; None takes those of the system.
    """

    form: ClassVar[str] = "paper:SYSTEM[@PROTOCOL]"
    system: str = "fmae-iat"
    folds: Protocol | None = None

    def __post_init__(self) -> None:
        if self.system not in WAYS:
            raise UsageError(f"--protocol {PREFIX}{self.system}", expected=f"one of {', '.join(WAYS)}")

    @property
    def way(self) -> Way:
        """What the system does."""
        return WAYS[self.system]

    @property
    def name(self) -> str:
        """`paper:SYSTEM`, with its folds where they were named."""
        return f"{PREFIX}{self.system}{'' if self.folds is None else f'@{self.folds.name}'}"

    def split(self, samples: Samples) -> Splits:
        """The folds of its base, each judged on its own test rows."""
        honest = (self.folds or self.way.base).split(samples)
        repeats = tuple(tuple(_on_test(fold) for fold in folds) for folds in honest.repeats)
        text = (
            f"{self.name}: {self._chosen(samples)}, since {self.system} {self.way.about} ({self.way.source}): "
            "not a result on unseen samples, and not that system's number"
        )
        return replace(
            honest,
            protocol=self.name,
            about=f"{honest.about}; {self._chosen(samples)}, as {self.system} {self.way.about} ({self.way.source})",
            chosen_on="TEST LABELS",
            repeats=repeats,
            on_test=True,
            one_threshold=self.way.one_threshold,
            warnings=(*honest.warnings, text),
        )

    def _chosen(self, samples: Samples) -> str:
        """What is chosen on the test labels here: less than the system does, where it chooses among other things."""
        text = "layer, pooling, hyper-parameters and epoch of frozen probes, and the learning rate of fine-tuning, are "
        text += "those that do best on the labels of each fold's test part"
        if samples.targets.kind != "multilabel":
            return text
        if not self.way.one_threshold:
            return f"{text}; so are the thresholds of the metric at fitted thresholds, one a column"
        return (
            f"{text}, judged at threshold 0.5 where the metric needs one; after that choice the one threshold of 0.01 "
            "to 0.99 for all columns is taken that gives the largest mean F1 there, for the metric at fitted thresholds"
        )


def _on_test(fold: Fold) -> Fold:
    return Fold(fold.name, fold.train, fold.test, (Inner(fold.train, fold.test),), refit=False)
