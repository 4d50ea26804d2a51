"""What a contamination check found."""

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facemae.errors import UsageError
from facemae.files import write_text
from facemae_probes.contamination.matching import RULES

RULE = "equal pixels; or, as they are or mirrored, " + ", or ".join(
    f"at most {bits} of 64 bits of the pHash differ and thumbnails correlate with at least {least}"
    for bits, least in RULES
)
LIMITS = (
    "what this cannot see: another crop or alignment of the same photo (of copies of real faces of 48 pixels it finds "
    "87 % with 2 % cut off each side, 6 % with 4 %, none with 8 %), one turned by more than some degrees (96 % at 3), "
    "with an equalised histogram (89 %) or contrast changed place by place (3 %), another frame of the same video, "
    "another photo of the same person; and a near match may be two photos of one session. For the images of another "
    "set: facemae study copies"
)
COLUMNS = ("key", "split", "kind", "bits", "correlation", "pretraining", "pretraining_key", "copies")


@dataclass(frozen=True)
class Pair:
    """A probing sample and an image that was pretrained on.

    Attributes:
        key: Of the probing sample.
        split: Its split; empty for none.
        kind: `exact` for equal pixels, else `near`, or `mirrored` where the one is alike to the other mirrored.
        bits: Bits in which the perceptual hashes differ.
        correlation: Of the thumbnails; None for equal pixels.
        pretraining: Number of the pretraining set, from 0.
        pretraining_key: The first sample there with these pixels.
        copies: How many samples there have them.
    """

    key: str
    split: str
    kind: str
    bits: int
    correlation: float | None
    pretraining: int
    pretraining_key: str
    copies: int


@dataclass(frozen=True)
class Counts:
    """Samples of a split.

    Attributes:
        samples: All.
        exact: With equal pixels in a pretraining set.
        near: With a near match only, mirrored or not.
        undecodable: That could not be compared.
    """

    samples: int
    exact: int
    near: int
    undecodable: int

    @property
    def share(self) -> float:
        """Contaminated samples over all."""
        return (self.exact + self.near) / self.samples


@dataclass(frozen=True)
class Contamination:
    """What a contamination check found.

    Attributes:
        probing: The probing set: folder, digests, samples.
        pretraining: Each pretraining set likewise, with `undecodable`, images that could not be compared.
        splits: Counts by split of the probing set; the empty name for samples of none.
        pairs: What was found, by key.
        clean: Keys without any match by split, in the order of the set.
        warnings: What was not compared.
    """

    probing: Mapping[str, Any]
    pretraining: tuple[Mapping[str, Any], ...]
    splits: Mapping[str, Counts]
    pairs: tuple[Pair, ...]
    clean: Mapping[str, tuple[str, ...]]
    warnings: tuple[str, ...] = ()

    def to_json(self, *, pairs: bool = True) -> dict[str, Any]:
        """As plain values.

        Args:
            pairs: Whether the lists of pairs and of clean keys are wanted.
        """
        head = {
            "probing": dict(self.probing),
            "pretraining": [dict(part) for part in self.pretraining],
            "splits": {name: {**asdict(found), "share": found.share} for name, found in self.splits.items()},
            "rule": RULE,
            "limits": LIMITS,
            "warnings": list(self.warnings),
        }
        if not pairs:
            return head
        return {
            **head,
            "pairs": [asdict(pair) for pair in self.pairs],
            "clean": {k: list(v) for k, v in self.clean.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Contamination":
        """What `to_json` gave, pairs included."""
        splits = {
            name: Counts(**{key: value for key, value in found.items() if key != "share"})
            for name, found in data["splits"].items()
        }
        return cls(
            data["probing"],
            tuple(data["pretraining"]),
            splits,
            tuple(Pair(**pair) for pair in data["pairs"]),
            {name: tuple(keys) for name, keys in data["clean"].items()},
            tuple(data["warnings"]),
        )

    def lines(self) -> list[str]:
        """For people."""
        found = [
            f"{name or '(no split)'}: {counts.exact + counts.near} of {counts.samples} contaminated "
            f"({100 * counts.share:.2f} %): {counts.exact} with equal pixels, {counts.near} nearly"
            + (f"; {counts.undecodable} not compared" if counts.undecodable else "")
            for name, counts in self.splits.items()
        ]
        lost = sum(int(part["undecodable"]) for part in self.pretraining)
        if lost:
            found.append(f"{lost} pretraining samples without an image that decodes were not compared")
        return [*(f"warning: {text}" for text in self.warnings), *found, f"rule: {RULE}", LIMITS]

    def write_pairs(self, path: Path) -> None:
        """Write the pairs as CSV, with `COLUMNS`.

        Raises:
            StorageError: It cannot be written.
        """
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(pair) for pair in self.pairs)
        write_text(path, buffer.getvalue())

    def write_clean(self, path: Path, split: str = "test") -> None:
        """Write the keys of a split without contaminated samples, one a line: a slice, or a recipe's `keys`.

        Raises:
            UsageError: There is no such split, or nothing of it is left.
            StorageError: It cannot be written.
        """
        keys = self.clean.get(split, ())
        if not keys:
            raise UsageError(
                f"no clean sample of split {split!r}",
                expected=f"one of {', '.join(map(repr, self.splits))} with some left",
            )
        write_text(path, "\n".join(keys) + "\n")
