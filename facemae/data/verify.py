"""Checking a shard set: checksums, what does not decode, duplicates, and duplicates that cross splits."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from facemae.data.decode import decode_image
from facemae.data.duplicates import (
    clusters,
    correlation,
    exact_groups,
    near_pairs,
    perceptual_hash,
    pixel_digest,
    thumbnail,
)
from facemae.data.index import ShardIndex
from facemae.data.index_build import shard_names
from facemae.data.material import Material, clip_extension
from facemae.data.reader import ShardReader, image_extension
from facemae.data.scan import shard_digest
from facemae.data.select import metadata
from facemae.errors import DataError, DecodeError, FacemaeError, StorageError
from facemae.files import write_text
from facemae.parallel import in_threads

NEAR = 4
"""Bits of 64 in which the hashes of near-duplicates may differ."""

ALIKE = 0.9
"""Least correlation of near-duplicates' thumbnails."""

_SHOWN = 10


@dataclass(frozen=True)
class Problem:
    """Something wrong with a shard or sample: which, `checksum`, `undecodable` or `not indexed`, and why."""

    where: str
    kind: str
    reason: str


@dataclass
class VerifyReport:
    """What was found.

    Attributes:
        folder: The shard set.
        samples: Samples looked at; erased ones are not.
        problems: Everything wrong.
        exact: Groups of samples with equal pixels.
        near: Groups of samples that are near-duplicates, exact ones included; empty where not looked for, and of
            stills only: clips of one person before one wall look alike.
        crossing_exact: How many groups of `exact` have samples in more than one split.
        crossing_near: The same of `near`.
        threshold: Bits in which near-duplicates may differ; None where not looked for.
        rows: One entry a sample of a group: key, cluster, kind, split, subject.
        clips: Samples that decode and are clips.
    """

    folder: Path
    samples: int
    problems: list[Problem]
    exact: list[list[int]] = field(default_factory=list)
    near: list[list[int]] = field(default_factory=list)
    crossing_exact: int = 0
    crossing_near: int = 0
    threshold: int | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    clips: int = 0

    @property
    def sound(self) -> bool:
        """No bytes changed and every sample decodes."""
        return not any(problem.kind in ("checksum", "undecodable") for problem in self.problems)

    def count(self, kind: str) -> int:
        """Problems of a kind."""
        return sum(problem.kind == kind for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """The report for a script."""
        return {
            "folder": str(self.folder),
            "samples": self.samples,
            "sound": self.sound,
            "checksum": self.count("checksum"),
            "undecodable": self.count("undecodable"),
            "exact_groups": len(self.exact),
            "exact_samples": sum(map(len, self.exact)),
            "exact_groups_crossing_splits": self.crossing_exact,
            "clips": self.clips,
            "near_bits": self.threshold,
            "near_correlation": None if self.threshold is None else ALIKE,
            "near_groups": len(self.near),
            "near_samples": sum(map(len, self.near)),
            "near_groups_crossing_splits": self.crossing_near,
            "problems": [vars(problem) for problem in self.problems],
        }

    def lines(self) -> list[str]:
        """The report for a person."""
        lines = [
            f"{self.samples} samples of {self.folder}",
            f"checksum errors: {self.count('checksum')}",
            f"samples that do not decode: {self.count('undecodable')}",
            f"exact duplicates: {_groups(self.exact, self.crossing_exact)}",
        ]
        if self.clips:
            lines.append(f"near-duplicates are not looked for among the {self.clips} clips, which are often alike")
        if self.threshold is not None and (self.clips < self.samples or not self.samples):
            rule = f"at most {self.threshold} of 64 bits differ, correlation at least {ALIKE}"
            stills = "near-duplicates of stills" if self.clips else "near-duplicates"
            lines.append(f"{stills} ({rule}): {_groups(self.near, self.crossing_near)}")
        if self.crossing_exact or self.crossing_near:
            lines.append("faces in two splits flatter every number; --out FILE.csv names them")
        lines += [f"  {problem.kind}: {problem.where}: {problem.reason}" for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"  and {len(self.problems) - _SHOWN} more problems; all of them: --json")
        return lines


def _groups(groups: list[list[int]], crossing: int) -> str:
    return f"{sum(map(len, groups))} samples in {len(groups)} groups; {crossing} groups cross splits"


@dataclass(frozen=True)
class _Look:
    """What one sample gave: digest and hash of a still, digest of a clip, or a problem; nothing where it is neither."""

    digest: bytes | None = None
    hash: bytes | None = None
    problem: Problem | None = None
    clip: bool = False


def verify_shards(
    folder: Path | str, *, near: int | None = NEAR, progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Check every byte, decode every image, frame and sound, and look for duplicates.

    Args:
        folder: The shard set.
        near: Bits of 64 in which the hashes of near-duplicates among stills may differ; None does not look for them.
        progress: Called with (samples done, samples in all).

    Raises:
        DataError: There is no index.
    """
    index = ShardIndex.open(folder)
    reader = ShardReader(index)
    present = [i for i in range(len(index)) if i not in index.dropped_set]
    problems = list(_shard_problems(index))
    digests: list[bytes | None] = []
    clips = 0
    hashes, hashed = np.zeros((len(present), 8), dtype=np.uint8), np.zeros(len(present), dtype=bool)
    for done, look in enumerate(in_threads(partial(_look, reader), present), 1):
        digests.append(look.digest)
        clips += look.clip
        if look.hash is not None:
            hashes[done - 1], hashed[done - 1] = np.frombuffer(look.hash, dtype=np.uint8), True
        if look.problem is not None:
            problems.append(look.problem)
        if progress is not None:
            progress(done, len(present))
    report = VerifyReport(index.folder, len(present), problems, threshold=near, clips=clips)
    report.exact = _positions(exact_groups(digests), present)
    if near is not None:
        report.near = _near_groups(reader, present, digests, hashes, hashed, near)
    _describe(report, index)
    return report


def _shard_problems(index: ShardIndex) -> Iterator[Problem]:
    """Each shard against its digest; headers and order count, which single checksums do not cover."""
    known = set()
    for shard in index.shards:
        known.add(shard.name)
        try:
            digest = shard_digest(index.folder, shard.name)
        except (DataError, StorageError) as error:
            yield Problem(shard.name, "checksum", error.found)
            continue
        if digest != shard.digest:
            yield Problem(shard.name, "checksum", f"content digest {digest[:16]}, indexed with {shard.digest[:16]}")
    try:
        others = [name for name in shard_names(index.folder) if name not in known]
    except DataError as error:
        yield Problem(str(index.folder), "not indexed", error.found)
        return
    for name in others:
        yield Problem(name, "not indexed", "the shard is in the folder and not in the index")


def _look(reader: ShardReader, i: int) -> _Look:
    key = reader.index.key(i)
    try:
        sample = reader.read(i)
    except FacemaeError as error:
        return _Look(problem=Problem(key, "checksum", error.found))
    try:
        if clip_extension(sample.members) is not None:
            # Clips of one person before one wall look alike, so near-duplicates of clips are not looked for.
            whole = b"".join(pixel_digest(frame) for frame in Material(sample).check())
            return _Look(hashlib.blake2b(whole, digest_size=16).digest(), clip=True)
        images = list(Material(sample).check())
    except DecodeError as error:
        return _Look(problem=Problem(key, "undecodable", error.found.removeprefix(f"{key}: ")))
    return _Look(pixel_digest(images[0]), perceptual_hash(images[0])) if images else _Look()


def _positions(groups: list[list[int]], present: Sequence[int]) -> list[list[int]]:
    return [[present[place] for place in group] for group in groups]


def _near_groups(
    reader: ShardReader,
    present: Sequence[int],
    digests: Sequence[bytes | None],
    hashes: "np.ndarray[Any, Any]",
    hashed: "np.ndarray[Any, Any]",
    distance: int,
) -> list[list[int]]:
    # One image stands for all with its pixels, so that thousands of black frames do not make millions of pairs.
    groups = exact_groups(digests)
    repeated = {place for group in groups for place in group[1:]}
    single = np.array([p for p in np.flatnonzero(hashed).tolist() if p not in repeated], dtype=np.int64)
    pairs = single[near_pairs(hashes[single], distance)] if len(single) else np.zeros((0, 2), dtype=np.int64)
    small: dict[int, np.ndarray[Any, Any]] = {}
    for place in np.unique(pairs).tolist():
        sample = reader.read(present[place])
        name = image_extension(sample.members)
        assert name is not None
        small[place] = thumbnail(decode_image(sample.members[name], channels=3, name=sample.key))
    alike = [pair for pair in pairs.tolist() if correlation(small[pair[0]], small[pair[1]]) >= ALIKE]
    same = [[group[0], place] for group in groups for place in group[1:]]
    joined = np.array(alike + same, dtype=np.int64).reshape(-1, 2)
    return _positions(clusters(joined, len(present)), present)


def _describe(report: VerifyReport, index: ShardIndex) -> None:
    """Fill in what crosses splits, and the table of duplicates."""
    splits = index.split_codes

    def crosses(group: list[int]) -> bool:
        return len({int(splits[i]) for i in group}) > 1

    report.crossing_exact = sum(map(crosses, report.exact))
    report.crossing_near = sum(map(crosses, report.near))
    names = metadata(index, ["key", "split", "subject"])
    pixels = {i: number for number, group in enumerate(report.exact) for i in group}
    for cluster, group in enumerate(report.near or report.exact):
        for i in group:
            row = names.slice(i, 1).to_pylist()[0]
            kind = "exact" if i in pixels else "near"
            report.rows.append({"key": row["key"], "cluster": cluster, "kind": kind, **row, "same": pixels.get(i, "")})


def write_duplicates(report: VerifyReport, path: Path) -> None:
    """Write the duplicates as CSV, one row a sample.

    Columns: `key`; `cluster`, number of the group of near-duplicates (of exact ones where near ones were not looked
    for), a unit of independence for data without subjects; `kind`, `exact` where another sample has the same pixels,
    else `near`; `same`, number of the group with equal pixels; `split`; `subject`.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["key", "cluster", "kind", "same", "split", "subject"])
    writer.writeheader()
    writer.writerows(report.rows)
    write_text(path, buffer.getvalue())
