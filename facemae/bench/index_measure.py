"""Opening an index of millions of samples, and the memory that random look-ups take.

The index is made of invented entries and no shards; its columns are written by the writers that real ones use. Each
side is measured in a process of its own, which imports nothing but the index.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from facemae.data.columns import ColumnWriter, StringColumnWriter
from facemae.data.index import FOLDER, HEAD, SCHEMA, ShardIndex, key_hash
from facemae.data.scan import MEMBER_RECORD
from facemae.errors import UsageError
from facemae.files import write_text

_CHUNK = 500_000
_SHARD = 1000
_IMAGE, _JSON, _BLOCK = 8000, 200, 512


def write_index(folder: Path, samples: int) -> None:
    """Write an index of invented samples, a thousand in a shard, each an image and a `json` member."""
    columns = folder / FOLDER / "columns-bench"
    columns.mkdir(parents=True)
    hashes = np.empty(samples, dtype=np.uint64)
    with (
        StringColumnWriter(columns, "key") as keys,
        ColumnWriter(columns / "member_start.npy", np.int64) as starts,
        ColumnWriter(columns / "member.npy", MEMBER_RECORD) as members,
        ColumnWriter(columns / "subject_code.npy", np.int32) as subjects,
        ColumnWriter(columns / "split_code.npy", np.int16) as splits,
    ):
        starts.append([0])
        for first in range(0, samples, _CHUNK):
            numbers = np.arange(first, min(first + _CHUNK, samples))
            names = [f"face-{number:010d}" for number in numbers.tolist()]
            keys.append(names)
            hashes[first : first + len(names)] = [key_hash(name) for name in names]
            starts.append(2 * (numbers + 1))
            members.append(_members(numbers))
            subjects.append(numbers % 100_000)
            splits.append(np.zeros(len(numbers)))
    order = np.argsort(hashes)
    _write_column(columns / "key_hash.npy", hashes[order])
    _write_column(columns / "key_order.npy", order)
    _write_column(columns / "dropped.npy", np.zeros(0, dtype=np.int64))
    with StringColumnWriter(columns, "subject") as names_of_subjects:
        names_of_subjects.append(f"subject-{number}" for number in range(min(samples, 100_000)))
    sizes = [min(_SHARD, samples - first) for first in range(0, samples, _SHARD)]
    shards = [[f"shard-{i:06d}.tar", size, size * 9728, f"{i:064x}"] for i, size in enumerate(sizes)]
    head = {"schema": SCHEMA, "columns": columns.name, "samples": samples}
    write_text(
        folder / FOLDER / HEAD,
        json.dumps({**head, "extensions": ["jpg", "json"], "splits": ["train"], "shards": shards}),
    )


def _write_column(path: Path, values: "np.ndarray[Any, Any]") -> None:
    with ColumnWriter(path, values.dtype) as writer:
        writer.append(values)


def _members(numbers: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    table = np.zeros((len(numbers), 2), dtype=MEMBER_RECORD)
    table["extension"] = [0, 1]
    table["crc32"] = numbers[:, None] * 2654435761 % 2**32
    table["size"] = [_IMAGE, _JSON]
    begin = numbers % _SHARD * 9728 + _BLOCK
    table["offset"] = np.stack([begin, begin + 8704], axis=1)
    return table.ravel()


def private_memory() -> dict[str, float]:
    """Memory of this process alone, in MB of a million bytes: `uss`, and `anonymous`, which leaves out file pages.

    Raises:
        UsageError: The system has no `/proc/self/smaps_rollup`.
    """
    try:
        text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    except OSError as error:
        raise UsageError(f"private memory cannot be read: {error}", expected="Linux 4.14 or newer") from error
    kilobytes = {line.split()[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    uss = kilobytes["Private_Clean:"] + kilobytes["Private_Dirty:"]
    return {"uss": uss * 1.024e-3, "anonymous": kilobytes["Anonymous:"] * 1.024e-3}


def measure(folder: str, columns: str, side: str, lookups: int) -> dict[str, float]:
    """Open an index and look up members, key, subject and shard of random samples, and the position of their keys.

    Args:
        folder: Folder of the index.
        columns: Folder of its columns, which memory maps are made of.
        side: `ours`, or `memmap`: the same columns through NumPy memory maps.
        lookups: How many samples.
    """
    before = private_memory()
    begin = time.perf_counter()
    look = _ours(folder) if side == "ours" else _mapped(Path(columns))
    opened = time.perf_counter()
    # Steps of a large prime scatter over the whole index, without the libraries that a generator would load.
    total = look(-1)
    samples = [step * 2654435761 % total for step in range(lookups)]
    start = time.perf_counter()
    for i in samples:
        look(i)
    end = time.perf_counter()
    after = private_memory()
    return {
        "open_s": opened - begin,
        "lookup_us": (end - start) / lookups * 1e6,
        "uss_before": before["uss"],
        **after,
    }


def _ours(folder: str) -> Any:
    index = ShardIndex.open(folder)

    def look(i: int) -> int:
        if i < 0:
            return len(index)
        if index.find(index.key(i)) != i or len(index.members(i)) != 2 or index.shard_of(i) != i // _SHARD:
            raise AssertionError(f"the index answers wrongly for sample {i}")
        return i

    return look


def _mapped(columns: Path) -> Any:
    names = ("member_start", "member", "key_start", "key_hash", "key_order")
    starts, members, bounds, hashes, order = (np.load(columns / f"{name}.npy", mmap_mode="r") for name in names)
    text = np.memmap(columns / "key.bin", np.uint8, "r")

    def look(i: int) -> int:
        if i < 0:
            return len(starts) - 1
        key = bytes(text[bounds[i] : bounds[i + 1]]).decode()
        place = int(np.searchsorted(hashes, np.uint64(key_hash(key))))
        if int(order[place]) != i or len(members[starts[i] : starts[i + 1]].tolist()) != 2:
            raise AssertionError(f"the index answers wrongly for sample {i}")
        return i

    return look


def _in_process(folder: Path, columns: Path, side: str, lookups: int) -> dict[str, float]:
    call = f"measure({str(folder)!r}, {str(columns)!r}, {side!r}, {lookups})"
    code = f"import json; from facemae.bench.index_measure import measure; print(json.dumps({call}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    result: dict[str, float] = json.loads(done.stdout)
    return result


def bench_index(samples: int, lookups: int, folder: Path | None = None) -> dict[str, dict[str, float]]:
    """Measure our index and memory maps of the same columns.

    Args:
        samples: Samples in the index; ten million take 1.2 GB of disk while it runs.
        lookups: Random look-ups of each side.
        folder: Where to put the index; None takes the system's folder for temporary files.

    Returns:
        For `ours` and `memmap` what `measure` gives.
    """
    target = Path(tempfile.mkdtemp(prefix="facemae-bench-", dir=folder))
    try:
        write_index(target, samples)
        columns = ShardIndex.open(target).columns_folder
        return {side: _in_process(target, columns, side, lookups) for side in ("ours", "memmap")}
    finally:
        shutil.rmtree(target, ignore_errors=True)
