"""The owner's split into train, perhaps valid, and test."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from facemae.errors import ProbeError
from facemae_probes.protocols.base import Fold, Inner, Protocol, Samples, Splits
from facemae_probes.protocols.draw import VALID_SHARE, set_aside

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Official(Protocol):
    """Choose on the official validation part, or on units set aside from train; then predict test once.

    Where units are set aside, the chosen candidate is fitted again on the whole of train.
    """

    form: ClassVar[str] = "official"

    @property
    def name(self) -> str:
        """`official`."""
        return self.form

    def split(self, samples: Samples) -> Splits:
        """One fold.

        Raises:
            ProbeError: No sample has split train or test, or train has one unit and none can be set aside.
        """
        train, valid, test = official_parts(samples)
        warnings = _crossing(samples, np.concatenate([train, valid]), test)
        both = np.isin(samples.units[valid], samples.units[train])
        if both.any():
            shared = f"{int(both.sum())} of {len(valid)} valid samples share their {samples.unit} with train"
            warnings.append(f"{shared}: choosing on them rewards memory too")
        if len(valid):
            fold = Fold("test", train, test, (Inner(train, valid),), refit=False)
            chosen_on = "official valid split"
        else:
            inner = set_aside(train, samples.units, samples.seed)
            if inner is None:
                raise ProbeError(
                    f"the training split has one {samples.unit}, none can be set aside for choosing",
                    expected="two or more, or samples in a split `valid`",
                )
            fold = Fold("test", train, test, (inner,), refit=True)
            chosen_on = f"{VALID_SHARE:.0%} of the units ({samples.unit}) of the train split, seed {samples.seed}"
        about = "the owner's split; test is predicted once"
        return Splits(self.name, about, chosen_on, ((fold,),), warnings=tuple(warnings))


def official_parts(samples: Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of train, valid and test.

    Raises:
        ProbeError: Train or test is empty.
    """
    split = np.array([value or "" for value in samples.columns.require(samples.split, "to take the parts from")])
    parts = {part: np.flatnonzero(split == part) for part in PARTS}
    for part in ("train", "test"):
        if not len(parts[part]):
            raise ProbeError(
                f"no labelled sample has split {part!r}; splits here: {', '.join(sorted(set(split) - {''})) or 'none'}",
                expected="train and test splits, and preferably valid",
                fix="give the splits in the label file when packing, or take --protocol kfold:5",
            )
    return parts["train"], parts["valid"], parts["test"]


def _crossing(samples: Samples, seen: np.ndarray, test: np.ndarray) -> list[str]:
    shared = np.intersect1d(samples.units[seen], samples.units[test])
    return [f"{len(shared)} values of {samples.unit} are in test and in train or valid"] if len(shared) else []
