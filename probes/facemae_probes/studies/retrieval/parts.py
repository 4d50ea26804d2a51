"""Which clips train, which are held out, and which show other speakers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facemae.data.index import ShardIndex
from facemae.data.select import metadata
from facemae.errors import DataError, UsageError
from facemae.files import write_text
from facemae.rng import generator

FEWEST = 2
"""Clips a part must have: an interval over one says nothing."""


@dataclass(frozen=True)
class Parts:
    """Positions in the shard set, each part ascending; no clip is in two.

    Attributes:
        subject: The speaker that is learned from.
        train: Clips of that speaker that train.
        held: Clips of that speaker that are held out.
        others: All clips of all other speakers.
    """

    subject: str
    train: tuple[int, ...]
    held: tuple[int, ...]
    others: tuple[int, ...]

    def write_keys(self, index: ShardIndex, path: Path) -> Path:
        """Write the keys of the training clips, one a line, for a stream's `keys`."""
        write_text(path, "".join(f"{index.key(place)}\n" for place in self.train))
        return path


def draw_parts(index: ShardIndex, *, subject: str | None, held: int, seed: int, tune: int | None = None) -> Parts:
    """Hold clips of one speaker out, drawn by seed from the keys in their order.

    Args:
        index: A set of clips with the column `subject`.
        subject: The speaker; None takes the one with most clips.
        held: How many clips are held out.
        seed: Seed of the draw.
        tune: Leave the held-out clips and the other speakers alone: hold out this many of the clips that would train,
            for choosing settings.

    Raises:
        UsageError: No such speaker, or too few clips.
        DataError: No clip names its subject.
    """
    table = metadata(index, ["key", "subject", "dropped"]).to_pylist()
    rows = [(row["key"], row["subject"], place) for place, row in enumerate(table) if not row["dropped"]]
    counts = Counter(name for _, name, _ in rows if name is not None)
    if not counts:
        raise DataError(
            f"no clip of {index.folder} names its subject",
            expected="the speakers of the clips, of which one is learned from",
            fix="facemae data pack VIDEOS --subject-column COLUMN",
        )
    subject = subject or min(counts, key=lambda name: (-counts[name], name))
    if subject not in counts:
        raise UsageError(f"no clip shows subject {subject!r}", expected=f"one of {', '.join(sorted(counts))}")
    own = [place for _, _, place in sorted(row for row in rows if row[1] == subject)]
    held_out, rest = _draw(own, held, seed, "held-out")
    others = [place for _, name, place in rows if name != subject]
    if tune is not None:
        (held_out, rest), others = _draw(rest, tune, seed, "tune"), []
    return Parts(subject, tuple(sorted(rest)), tuple(sorted(held_out)), tuple(others))


def _draw(places: Sequence[int], count: int, seed: int, purpose: str) -> tuple[list[int], list[int]]:
    if not FEWEST <= count <= len(places) - FEWEST:
        raise UsageError(
            f"{count} of {len(places)} clips are to be held out",
            expected=f"from {FEWEST} to {len(places) - FEWEST}, so that as many as {FEWEST} train",
        )
    order = generator(seed, "retrieval", purpose).permutation(len(places)).tolist()
    return [places[number] for number in order[:count]], [places[number] for number in order[count:]]
