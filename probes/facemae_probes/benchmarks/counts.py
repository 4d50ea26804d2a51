"""Which known version of a data set the counts are those of."""

from collections.abc import Iterator
from dataclasses import dataclass

from facemae_probes.benchmarks.base import Counts, Version


@dataclass(frozen=True)
class Comparison:
    """Counts against the nearest known version.

    Attributes:
        version: The version; None where none is known.
        differences: What differs, one line each; empty where the counts are those of the version.
    """

    version: Version | None
    differences: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether the counts are those of a known version."""
        return self.version is not None and not self.differences


def compare(found: dict[str, Counts], digest: str, versions: tuple[Version, ...]) -> Comparison:
    """Find the version with the smallest difference.

    Args:
        found: Samples by split and class.
        digest: Digest of the list.
        versions: Known versions.
    """
    if not versions:
        return Comparison(None)
    nearest = min(versions, key=lambda version: _distance(found, version))
    differences = [text for text, have, expected in _cells(found, nearest) if have != expected]
    if not differences and nearest.digest not in (None, digest):
        differences = [f"counts are those expected, the list is another: digest {digest[:16]}, not {nearest.digest}"]
    return Comparison(nearest, tuple(differences))


def _distance(found: dict[str, Counts], version: Version) -> int:
    splits = set(found) | set(version.counts)
    total = sum(abs(sum(found.get(split, {}).values()) - version.counts.get(split, 0)) for split in splits)
    classes = sum(
        abs(found.get(split, {}).get(name, 0) - count)
        for split, per in version.classes.items()
        for name, count in per.items()
    )
    return total + classes


def _cells(found: dict[str, Counts], version: Version) -> Iterator[tuple[str, int, int]]:
    """Every number that the version states: text, found, expected."""
    for split in dict.fromkeys((*version.counts, *found)):
        have, expected = sum(found.get(split, {}).values()), version.counts.get(split, 0)
        yield f"{split}: {have:,} samples, expected {expected:,}", have, expected
    for split, per in version.classes.items():
        for name, expected in per.items():
            have = found.get(split, {}).get(name, 0)
            yield f"{split}, {name}: {have:,} samples, expected {expected:,}", have, expected
