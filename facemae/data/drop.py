"""Erasing samples from a shard set, by subject or by key.

An erased sample is gone from the disk: its shard is written anew without its bytes, labels, subject and key, and takes
the old shard's place. What stays is a tombstone, a sample with a stand-in key that holds only `dropped` and the split,
so that all other samples keep their positions. A run that has started therefore continues with the order it had; where
it meets a tombstone it reads the substitute that the index names: the next sample of the same split. The digests before
and after are written to `lineage.jsonl`, by which such a run recognises the set. A run whose `where` names a label or
the subject is the exception: a tombstone has neither, so its selection is another one, and it is refused.

Everything new, shards and index columns, is written before anything changes. From then on an erasure only goes forward;
one that is interrupted is finished by `facemae data index`, or by the next erasure (see `facemae.data.erasure`).

What was made from the samples elsewhere is out of reach: the source folder, backups, feature files, checkpoints, and
keys in the logs of runs.
"""

import json
import secrets
import tarfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facemae.data.erasure import begin, carry_out, conclude, journal_path
from facemae.data.index import LINEAGE, ShardIndex
from facemae.data.index_build import build, commit, discard, write_columns
from facemae.data.scan import ShardScan, scan_shard, shard_digest, split_name
from facemae.data.select import metadata
from facemae.data.shard_writer import add_member
from facemae.errors import FacemaeError, IndexMismatchError, StorageError, UsageError
from facemae.files import fsync_file, storage_errors


@dataclass(frozen=True)
class DropReport:
    """What was erased.

    Attributes:
        folder: The shard set.
        erased: Keys that are gone.
        substitutes: Key of the sample that is read instead, one for each; None where the split has no other.
        shards: Shards that were written anew.
        before: Digest of the set before.
        after: Digest of the set now.
        dry_run: Nothing was changed.
    """

    folder: Path
    erased: list[str]
    substitutes: list[str | None]
    shards: list[str]
    before: str
    after: str
    dry_run: bool

    def as_dict(self) -> dict[str, Any]:
        """The report for a script."""
        return {**vars(self), "folder": str(self.folder)}

    def lines(self) -> list[str]:
        """The report for a person."""
        verb = "would be erased from" if self.dry_run else "erased from"
        lines = [f"{len(self.erased)} samples {verb} {len(self.shards)} shards of {self.folder}"]
        if self.dry_run:
            return lines + [f"  {key}" for key in self.erased]
        lines += [f"  {key}: read instead: {other}" for key, other in zip(self.erased, self.substitutes, strict=True)]
        lines.append(f"digest {self.before[:16]} -> {self.after[:16]}; started runs recognise the set by {LINEAGE}")
        lines.append("not touched: the source folder, backups, features, checkpoints and logs made from these samples")
        return lines


def drop_samples(
    folder: Path | str, *, subjects: Collection[str] = (), keys: Collection[str] = (), dry_run: bool = False
) -> DropReport:
    """Erase samples; see the module's description.

    Args:
        folder: The shard set.
        subjects: Erase every sample of these subjects.
        keys: Erase the samples of these keys.
        dry_run: Change nothing.

    Raises:
        UsageError: A subject or key is not in the set, nothing was named, or nothing would be left.
        IndexMismatchError: A shard changed under its index.
        StorageError: Writing failed underneath. The set is as it was, or, where the message says so, the erasure has
            begun and `facemae data index` finishes it.
    """
    folder = Path(folder)
    if journal_path(folder).exists() and not dry_run:
        build(folder)
    index = ShardIndex.open(folder)
    positions = _find(index, subjects, keys)
    if len(positions) + len(index.dropped) >= len(index):
        raise UsageError("that is every sample of the set", fix=f"remove the folder {folder}")
    erased = [index.key(i) for i in positions]
    by_shard: dict[int, list[int]] = {}
    for i in positions:
        by_shard.setdefault(index.shard_of(i), []).append(i)
    shards = [index.shards[shard].name for shard in by_shard]
    if dry_run:
        return DropReport(folder, erased, [], shards, index.digest, index.digest, dry_run=True)
    after = _erase(index, by_shard)
    substitutes = [after.substitutes.get(i) for i in positions]
    names = [None if i is None else after.key(i) for i in substitutes]
    return DropReport(folder, erased, names, shards, index.digest, after.digest, dry_run=False)


def _find(index: ShardIndex, subjects: Collection[str], keys: Collection[str]) -> list[int]:
    if not subjects and not keys:
        raise UsageError("nothing to drop was named", fix="add --subject NAME or --key KEY")
    found: set[int] = set()
    for key in keys:
        position = index.find(key)
        if position is None or position in index.dropped_set:
            raise UsageError(
                f"{index.folder} has no sample {key!r}", expected="a key of the set, or it is erased already"
            )
        found.add(position)
    if subjects:
        column = metadata(index, ["subject"])["subject"].to_pylist()
        missing = sorted(set(subjects) - set(column))
        if missing:
            raise UsageError(
                f"{index.folder} has no subject {', '.join(map(repr, missing))}",
                expected=f"one of its {len(index.subjects)} subjects, or it is erased already",
            )
        found.update(i for i, name in enumerate(column) if name in subjects)
    return sorted(found)


def known_scan(index: ShardIndex, shard: int, table: Any) -> ShardScan:
    """What the index knows about one of its shards, in the form in which it would be found by reading it."""
    info, samples = index.shards[shard], index.shard_range(shard)
    starts, members = index.member_table(samples.start, samples.stop)
    return ShardScan(
        name=info.name,
        bytes=info.bytes,
        digest=info.digest,
        keys=index.keys(samples.start, samples.stop),
        starts=starts - starts[0],
        members=members,
        extensions=list(index.extensions),
        metadata=table.slice(samples.start, len(samples)),
    )


def _erase(index: ShardIndex, by_shard: dict[int, list[int]]) -> ShardIndex:
    """Write shards and index anew, then put them into place."""
    folder = index.folder
    with ExitStack() as stack, storage_errors(folder):
        changed: dict[int, ShardScan] = {}
        staged: dict[str, str] = {}
        for shard, positions in by_shard.items():
            name = index.shards[shard].name
            path = (folder / name).with_name(f".{Path(name).name}.dropping")
            stack.callback(path.unlink, missing_ok=True)
            _check_unchanged(index, shard)
            _write_without(index, folder / name, path, positions)
            staged[name] = path.relative_to(folder).as_posix()
            changed[shard] = replace(scan_shard(folder, staged[name]), name=name)
        table = metadata(index)
        scans = (changed.get(shard) or known_scan(index, shard, table) for shard in range(len(index.shards)))
        head = write_columns(folder, scans, len(index.shards))
        stack.callback(discard, folder, head["columns"])
        stack.callback(journal_path(folder).unlink, missing_ok=True)
        begin(folder, _event(index, changed), staged)
        stack.pop_all()
    try:
        with storage_errors(folder):
            carry_out(folder)
            after = commit(folder, head)
            conclude(folder)
    except FacemaeError as error:
        raise StorageError(
            f"the erasure from {folder} has begun and is not finished: {error.found}",
            expected=error.expected,
            fix=f"finish it: facemae data index {folder}" + (f" (before that, {error.fix})" if error.fix else ""),
        ) from error
    return after


def _check_unchanged(index: ShardIndex, shard: int) -> None:
    info = index.shards[shard]
    if shard_digest(index.folder, info.name) != info.digest:
        raise IndexMismatchError(
            f"shard {index.folder / info.name} changed under its index",
            expected=f"content digest {info.digest[:16]}",
            fix=f"restore the shard, or index it as it is now: facemae data index {index.folder}",
        )


def _write_without(index: ShardIndex, source: Path, target: Path, positions: Sequence[int]) -> None:
    """Copy a shard, with a tombstone in place of each erased sample."""
    stones = {index.key(i): _tombstone(index, i) for i in positions}
    done: set[str] = set()
    with tarfile.open(source, "r:") as archive, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as copy:
        for header in _headers(archive):
            named = split_name(header.name)
            key = named[0] if named and header.isfile() else None
            if key is None or key not in stones:
                copy.addfile(header, archive.extractfile(header) if header.isfile() else None)
            elif key not in done:
                done.add(key)
                # The name is drawn at random: one made from the key would still tell whose sample it was.
                add_member(copy, f"erased-{secrets.token_hex(8)}.json", stones[key])
    fsync_file(target)


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (header := archive.next()) is not None:
        yield header
        archive.members = []  # type: ignore[attr-defined]


def _tombstone(index: ShardIndex, i: int) -> bytes:
    code = int(index.split_codes[i])
    split = {"split": index.splits[code]} if code >= 0 else {}
    return json.dumps({"dropped": True, **split}, separators=(",", ":")).encode()


def _event(index: ShardIndex, scans: dict[int, ShardScan]) -> dict[str, Any]:
    changes = {index.shards[shard].name: [index.shards[shard].digest, scan.digest] for shard, scan in scans.items()}
    return {"reason": "drop", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "shards": changes}
