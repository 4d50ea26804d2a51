"""What a benchmark is: metadata that is checked when its module is imported, and the layouts its data come in.

Nothing here ships data. A layout reads the folder that a user got from the owner; counts say which version it is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from facemae.data.schema import CropRecipe
from facemae.data.splits import canonical_split
from facemae.errors import UsageError
from facemae_probes.benchmarks.listing import Listing
from facemae_probes.protocols.registry import parse_protocol
from facemae_probes.tasks.targets import Kind

Family: TypeAlias = Literal["fer", "au", "dfer", "micro"]
Metric: TypeAlias = Literal["accuracy", "mean_recall", "macro_f1", "ccc", "rmse", "cross_entropy"]
Counts: TypeAlias = dict[str, int]

UNVERIFIED = "unverified"
"""Instead of two public sources: a layout that was written from one source or from memory."""

CLUSTER = "cluster"
"""Column of near-duplicate clusters, made when packing; see `facemae_probes.benchmarks.clusters`."""

CROSSES = "crosses_splits"
"""Column made with it: 1 where the cluster has images of another split too."""


class _Frozen(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, str_min_length=1, arbitrary_types_allowed=True
    )


class Target(_Frozen):
    """One thing that is predicted from the images of a benchmark."""

    name: str
    """What to call it: `--target NAME`."""
    kind: Kind
    """Classes of one column, a distribution over columns, several binary columns, or numbers."""
    columns: tuple[str, ...] = Field(min_length=1)
    """Columns of the packed set that hold it."""
    classes: tuple[str, ...] = ()
    """Names in the owner's order; empty for numbers, and where the data themselves say."""
    metric: Metric
    """What settings are chosen by, and what is compared; all metrics of the kind are printed."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _must(len(set(self.classes)) == len(self.classes), f"target {self.name!r} has a class twice")
        _must(len(self.columns) == 1 or self.kind != "classes", f"target {self.name!r}: classes need one column")
        listed = self.kind in ("distribution", "multilabel")
        same = not listed or len(self.classes) == len(self.columns)
        _must(same, f"target {self.name!r} has {len(self.classes)} classes for {len(self.columns)} columns")
        return self


class Version(_Frozen):
    """One known state of the data set: what its lists hold of the headline target."""

    name: str
    """How it is spoken of."""
    counts: Counts = Field(min_length=2)
    """Samples by split: train, valid, test."""
    classes: dict[str, Counts] = {}
    """Samples by split and class, where they are known."""
    digest: str | None = None
    """Digest of the list (`facemae probe doctor` prints it), where it is known; see `listing.list_digest`."""
    source: str
    """Where the numbers come from."""
    about: str = ""
    """What a reader must know, such as splits that were joined."""

    @model_validator(mode="after")
    def _sums(self) -> Self:
        for split in (*self.counts, *self.classes):
            _must(canonical_split(split) == split, f"version {self.name!r}: {split!r} is none of train, valid, test")
        for split, per in self.classes.items():
            total = self.counts.get(split)
            _must(sum(per.values()) == total, f"version {self.name!r}: {split} classes sum to {sum(per.values())}")
        return self


class Published(_Frozen):
    """A number from the literature, and how it came about."""

    system: str
    """Name."""
    value: float
    """In the units of the paper, usually percent."""
    metric: Metric
    """Which metric."""
    protocol: str
    """Split, and how the model was chosen."""
    source: str
    """Where it was read."""


class Layout(_Frozen):
    """One form in which the owner, or a known copy, comes."""

    name: str
    """One line."""
    needs: tuple[str, ...] = Field(min_length=1)
    """Files and folders by which it is recognised, relative to the root."""
    roots: tuple[str, ...] = (".",)
    """Folders below the one a user names where it may begin."""
    read: Callable[[Path], Listing]
    """Reads the root; what is wrong is told in the listing and not raised."""
    sources: tuple[str, str] | Literal["unverified"]
    """Two public places that describe it, or `unverified`."""


class Benchmark(_Frozen):
    """A labelled set of faces, what is measured on it, and how its numbers are to be read."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Name on the command line."""
    title: str
    """The owner's name of it."""
    family: Family
    """Field of use."""
    targets: tuple[Target, ...] = Field(min_length=1)
    """What is predicted; the first is the headline."""
    protocol: str
    """How training and test samples are told apart, as `--protocol` has it: `official`, `folds:COLUMN`, `loso`, …"""
    protocol_about: str = ""
    """What else there is to say, such as a validation list that serves as test."""
    unit: str
    """Column whose values are independent: `subject`, `source`, `cluster`, or `sample`."""
    slices: tuple[str, ...] = ()
    """Parts of test that are always reported, each `column=value`."""
    versions: tuple[Version, ...]
    """Known states of the data; empty only for sets that users make."""
    licence: str
    """Of images and labels."""
    consent: str
    """Of the people shown."""
    access: str
    """How to get it."""
    citation: str
    """BibTeX, or the plain reference."""
    published: tuple[Published, ...] = ()
    """Numbers to compare with, and their protocols."""
    layouts: tuple[Layout, ...] = Field(min_length=1)
    """Forms the data come in, the first complete one is read."""
    crop: CropRecipe = CropRecipe()
    """How the owner cut the faces."""
    warnings: tuple[str, ...] = ()
    """Said with every result."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [target.name for target in self.targets]
        _must(len(set(names)) == len(names), f"{self.name}: two targets of one name")
        parse_protocol(self.protocol)
        known = set(self.headline.classes)
        for version in self.versions:
            foreign = {name for per in version.classes.values() for name in per} - known
            _must(not foreign, f"{self.name}, version {version.name!r}: unknown classes {', '.join(sorted(foreign))}")
        return self

    @property
    def headline(self) -> Target:
        """The target that counts and tables speak of."""
        return self.targets[0]

    def target(self, name: str | None) -> Target:
        """A target by name; None is the headline.

        Raises:
            UsageError: There is none of this name.
        """
        for target in self.targets:
            if name in (None, target.name):
                return target
        expected = f"one of {', '.join(target.name for target in self.targets)}"
        raise UsageError(f"{self.name} has no target {name!r}", expected=expected)


def class_codes(names: tuple[str, ...], first: int = 0) -> Mapping[str, str | None]:
    """The owner's codes as text, counted from `first`, to class names."""
    return {str(first + place): name for place, name in enumerate(names)}


def per_class(classes: tuple[str, ...], **splits: tuple[int, ...]) -> dict[str, Counts]:
    """Counts by split and class, each split given in the order of the classes."""
    return {split: dict(zip(classes, counts, strict=True)) for split, counts in splits.items()}


def _must(held: bool, text: str) -> None:
    if not held:
        raise ValueError(text)
