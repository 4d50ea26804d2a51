"""Reading samples: the right bytes, or an error that says which shard changed."""

import multiprocessing
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from facemae.data.columns import PositionalFile
from facemae.data.index import ShardIndex
from facemae.data.reader import ShardReader, image_extension
from facemae.errors import IndexMismatchError, StorageError


def _read_all(reader: ShardReader) -> list[bytes]:
    return [reader.read(i).members["png"] for i in range(len(reader))]


def _child(reader: ShardReader, queue: Any) -> None:
    queue.put(_read_all(reader))


def test_bytes_are_those_packed(index: ShardIndex, encode: Any) -> None:
    reader = ShardReader(index)
    for i in range(len(index)):
        sample = reader.read(i)
        assert sample.index == i
        assert sample.members["png"] == encode(int(sample.key.removeprefix("face")))
        assert sample.meta == reader.meta(i)
        assert sample.meta["width"] == 20
    assert set(reader.read(0, ["png"]).members) == {"png", "json"}
    assert set(reader.read(0, []).members) == {"json"}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_a_reader(index: ShardIndex, method: str) -> None:
    reader = ShardReader(index, open_files=2)
    expected = _read_all(reader)
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_child, args=(reader, queue))
    process.start()
    assert _read_all(reader) == expected
    assert queue.get(timeout=60) == expected
    process.join()
    assert _read_all(pickle.loads(pickle.dumps(reader))) == expected  # noqa: S301


def test_changed_shard_under_an_old_index(shard_set: Path, index: ShardIndex) -> None:
    path = shard_set / index.shards[1].name
    data = bytearray(path.read_bytes())
    data[index.members(13)["png"].offset + 5] ^= 0xFF
    path.write_bytes(data)
    reader = ShardReader(index)
    reader.read(12)
    with pytest.raises(IndexMismatchError, match="changed under its index") as caught:
        reader.read(13)
    assert str(path) in caught.value.found
    assert f"{index.key(13)}.png" in caught.value.found
    assert f"facemae data index {shard_set}" in str(caught.value)


def test_shorter_shard_under_an_old_index(shard_set: Path, index: ShardIndex) -> None:
    path = shard_set / index.shards[0].name
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(IndexMismatchError, match=f"has {path.stat().st_size} bytes"):
        ShardReader(index).read(0)


def test_missing_shard(shard_set: Path, index: ShardIndex) -> None:
    (shard_set / index.shards[2].name).unlink()
    with pytest.raises(IndexMismatchError, match="in the index and not on the disk"):
        ShardReader(index).read(25)


def test_replaced_index_is_noticed(shard_set: Path, index: ShardIndex) -> None:
    from facemae.data.index import build_index

    frozen = pickle.dumps(index)
    build_index(shard_set)
    with pytest.raises(IndexMismatchError, match="replaced while it was in use"):
        pickle.loads(frozen)  # noqa: S301


def test_read_errors_are_retried_then_stop(index: ShardIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ShardReader(index)
    expected = reader.read(3).members
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    real, failures = PositionalFile.read, [2]

    def flaky(self: Any, offset: int, size: int) -> bytes:
        if failures[0] and self.path.suffix == ".tar":
            failures[0] -= 1
            raise OSError(5, os.strerror(5))
        return real(self, offset, size)

    monkeypatch.setattr(PositionalFile, "read", flaky)
    assert reader.read(3).members == expected
    assert len(waits) == 2
    failures[0] = 1000
    with pytest.raises(StorageError, match=r"reading .*shard-000000.tar failed: Input/output error"):
        reader.read(3)


def test_image_extension_prefers_plain_names() -> None:
    assert image_extension(["json", "png"]) == "png"
    assert image_extension(["mask.png", "jpg"]) == "jpg"
    assert image_extension(["face.jpg", "json"]) == "face.jpg"
    assert image_extension(["json", "wav"]) is None
