"""Proof of what a step was trained on, for comparing runs: keys, and digests of views and masks."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from facemae.data.schema import Batch
from facemae.train.processes.process_group import Processes


@dataclass(frozen=True)
class Consumed:
    """What one step consumed.

    Attributes:
        keys: Keys of the global batch, in the order of its slots.
        views: Digest of all pixels and visible patches the model was given, in the same order, whatever process had
            them.
    """

    keys: tuple[str, ...]
    views: str


def consumed(batch: Batch, processes: Processes) -> Consumed:
    """What a step consumed in all processes, which all call this.

    Args:
        batch: This process's part of the global batch, on the CPU.
        processes: The processes of the run.
    """
    parts = processes.gather_objects((batch.keys, _fingerprints(batch)))
    keys = tuple(key for part, _ in parts for key in part)
    return Consumed(keys, _digest([mark for _, marks in parts for mark in marks]).hex())


def _fingerprints(batch: Batch) -> list[bytes]:
    """One digest a sample, of its views and sounds in the order of their names."""
    made = [parts[name] for parts in (batch.views, batch.sounds) for name in sorted(parts)]
    return [
        _digest(
            [
                tensor[row].numpy().tobytes()
                for part in made
                if (row := part.row(sample)) is not None
                for tensor in part.contents()
            ]
        )
        for sample in range(len(batch))
    ]


def _digest(parts: Sequence[bytes]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.digest()
