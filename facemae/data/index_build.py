"""Writing the index of a shard set; see `facemae.data.index` for what it is."""

import contextlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from facemae.data.columns import ColumnWriter, StringColumnWriter
from facemae.data.erasure import carry_out, conclude
from facemae.data.index import FOLDER, HEAD, SCHEMA, ShardIndex, key_hash
from facemae.data.metadata import join_tables
from facemae.data.scan import COMPRESSED_SUFFIXES, MEMBER_RECORD, ShardScan, compressed_error, scan_shard
from facemae.errors import DataError, StorageError
from facemae.files import fsync_folder, storage_errors, write_text
from facemae.parallel import usable_cores

METADATA = "metadata.parquet"
_COLUMNS = "columns-"


def shard_names(folder: Path) -> list[str]:
    """Paths of the shards in a folder and below it, relative to it, those an older index knows first and in its order.

    Raises:
        DataError: There is no folder, no shard, or a compressed one.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", expected="a folder of .tar shards")
    names = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or not path.is_file():
            continue
        if path.suffix == ".tar":
            names.append(relative.as_posix())
        elif path.suffix == ".tgz" or (path.suffix in COMPRESSED_SUFFIXES and path.stem.endswith(".tar")):
            raise compressed_error(path, COMPRESSED_SUFFIXES[path.suffix])
    if not names:
        raise DataError(
            f"{folder} holds no .tar shards",
            expected="WebDataset shards",
            fix=f"facemae data pack {folder} --out SHARDS",
        )
    present = set(names)
    kept = [name for name in _known_names(folder) if name in present]
    return kept + sorted(present.difference(kept))


def _known_names(folder: Path) -> list[str]:
    """Shards that an older index names, whatever state the rest of it is in: runs have pinned the first n of them."""
    try:
        head = json.loads((folder / FOLDER / HEAD).read_bytes())
        return list(dict.fromkeys(str(entry[0]) for entry in head["shards"]))
    except (OSError, ValueError, LookupError, TypeError):
        # No index yet, or one that is being replaced because it is of no use.
        return []


def _scan(job: tuple[Path, str]) -> ShardScan:
    return scan_shard(*job)


def scan_shards(folder: Path, names: list[str], workers: int | None) -> Iterator[ShardScan]:
    """Scan shards in the given order, several at a time."""
    count = min(workers or usable_cores(), len(names))
    # Below this much there is less to read than a process takes to start.
    small = sum((folder / name).stat().st_size for name in names) < 256 << 20
    if count <= 1 or (workers is None and small):
        yield from (scan_shard(folder, name) for name in names)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_scan, [(folder, name) for name in names])


def build(
    folder: Path, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> ShardIndex:
    """Index a shard set, and finish an erasure that was interrupted; see `facemae.data.index.build_index`."""
    carry_out(folder)
    names = shard_names(folder)
    head = write_columns(folder, scan_shards(folder, names, workers), len(names), progress)
    index = commit(folder, head)
    conclude(folder)
    return index


def write_columns(
    folder: Path, scans: Iterable[ShardScan], total: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Write the columns of an index that is not valid yet.

    Args:
        folder: The shard set.
        scans: What the shards hold, in order.
        total: Number of shards, for progress.
        progress: Called with (shards done, shards in all).

    Returns:
        What `commit` makes valid.

    Raises:
        StorageError: Writing failed underneath; nothing is left behind.
    """
    columns = folder / FOLDER / f"{_COLUMNS}{uuid.uuid4().hex[:8]}"
    try:
        with storage_errors(columns):
            columns.mkdir(parents=True)
            head = _write_columns(columns, _counted(scans, total, progress))
            fsync_folder(columns)
    except BaseException:
        discard(folder, columns.name)
        raise
    return head


def discard(folder: Path, columns: str) -> None:
    """Remove columns that never became valid."""
    shutil.rmtree(folder / FOLDER / columns, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / FOLDER).rmdir()


def commit(folder: Path, head: dict[str, Any]) -> ShardIndex:
    """Make an index valid and remove the one before.

    Raises:
        StorageError: Writing failed, or the old columns cannot be removed: they may name erased samples.
    """
    parent = folder / FOLDER
    try:
        write_text(parent / HEAD, json.dumps(head))
    except BaseException:
        if not (parent / HEAD).exists():
            discard(folder, head["columns"])
        raise
    for old in parent.glob(f"{_COLUMNS}*"):
        if old.name != head["columns"]:
            _remove(old)
    return ShardIndex(folder, head)


def _remove(columns: Path) -> None:
    try:
        shutil.rmtree(columns)
    except OSError as error:
        raise StorageError(
            f"the new index is in place, but {columns} of the one before cannot be removed ({error.strerror or error})",
            expected="no columns of an old index: they may name samples that were erased since",
            fix=f"end what is using it and run: facemae data index {columns.parents[1]}",
        ) from error


def _counted(
    scans: Iterable[ShardScan], total: int, progress: Callable[[int, int], None] | None
) -> Iterator[ShardScan]:
    for done, scan in enumerate(scans, 1):
        yield scan
        if progress is not None:
            progress(done, total)


def _write_columns(columns: Path, scans: Iterable[ShardScan]) -> dict[str, Any]:
    shards: list[list[Any]] = []
    extensions: dict[str, int] = {}
    tables, hashes = [], []
    first_member = 0
    with (
        StringColumnWriter(columns, "key") as keys,
        ColumnWriter(columns / "member_start.npy", np.int64) as starts,
        ColumnWriter(columns / "member.npy", MEMBER_RECORD) as members,
    ):
        starts.append([0])
        for scan in scans:
            if not scan.keys:
                raise DataError(f"shard {scan.name} holds no samples", expected="at least one", fix="remove the file")
            codes = np.array(
                [extensions.setdefault(name, len(extensions)) for name in scan.extensions], dtype=np.uint16
            )
            table = scan.members.copy()
            table["extension"] = codes[table["extension"]]
            members.append(table)
            starts.append(first_member + scan.starts[1:])
            first_member += len(table)
            keys.append(scan.keys)
            hashes.append(np.array([key_hash(key) for key in scan.keys], dtype=np.uint64))
            tables.append(scan.metadata)
            shards.append([scan.name, len(scan.keys), scan.bytes, scan.digest])
    metadata = join_tables(tables)
    splits = _write_codes(columns, metadata)
    _write_hashes(columns, np.concatenate(hashes), metadata["key"], shards)
    _write_metadata(columns, metadata)
    return {
        "schema": SCHEMA,
        "columns": columns.name,
        "samples": sum(shard[1] for shard in shards),
        "extensions": list(extensions),
        "splits": splits,
        "shards": shards,
    }


def _write_codes(columns: Path, metadata: Any) -> list[str]:
    """Write the columns of numbers for subject and split, and the erased positions; return the splits' names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    named: dict[str, list[str]] = {}
    for name, width in (("subject", np.int32), ("split", np.int16)):
        coded = metadata[name].combine_chunks().dictionary_encode()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.combine_chunks()
        named[name] = coded.dictionary.to_pylist()
        with ColumnWriter(columns / f"{name}_code.npy", width) as writer:
            writer.append(pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False))
    with StringColumnWriter(columns, "subject") as writer_of_names:
        writer_of_names.append(named["subject"])
    with ColumnWriter(columns / "dropped.npy", np.int64) as writer:
        writer.append(np.flatnonzero(metadata["dropped"].to_numpy()))
    return named["split"]


def _write_hashes(columns: Path, hashes: np.ndarray[Any, Any], keys: Any, shards: list[list[Any]]) -> None:
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    for place in np.flatnonzero(ordered[1:] == ordered[:-1]):
        first, second = int(order[place]), int(order[place + 1])
        if keys[first].as_py() == keys[second].as_py():
            bounds = np.cumsum([shard[1] for shard in shards])
            homes = [shards[int(np.searchsorted(bounds, i, side="right"))][0] for i in (first, second)]
            raise DataError(
                f"key {keys[first].as_py()!r} is there twice, in shard {homes[0]} and in shard {homes[1]}",
                expected="keys that are unique in the whole set",
                fix="repack the set so that keys differ, or remove one of the shards",
            )
    with ColumnWriter(columns / "key_hash.npy", np.uint64) as writer:
        writer.append(ordered)
    with ColumnWriter(columns / "key_order.npy", np.int64) as writer:
        writer.append(order)


def _write_metadata(columns: Path, metadata: Any) -> None:
    import pyarrow.parquet as pq

    pq.write_table(metadata, columns / METADATA, compression="zstd")
