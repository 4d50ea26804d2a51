"""What a new shard set may replace: sets that facemae packed, and nothing of the user's."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from facemae.data import erasure
from facemae.data.drop import drop_samples
from facemae.data.index import ShardIndex, build_index
from facemae.data.pack import PackItem, pack_folder, pack_samples
from facemae.data.stats import contact_sheet
from facemae.errors import DataError, StorageError


def pack(out: Path, encode: Any, key: str = "new", **options: Any) -> None:
    pack_samples([PackItem(key, encode(1), "png", {})], out, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("inside", ["", "faces", "deep/faces"])
@pytest.mark.parametrize("linked", [False, True])
def test_source_within_the_place_is_never_deleted(tmp_path: Path, encode: Any, inside: str, linked: bool) -> None:
    out = tmp_path / "out"
    pack(out, encode)
    source = out / inside
    source.mkdir(parents=True, exist_ok=True)
    (source / "me.png").write_bytes(encode(2))
    if linked:
        (tmp_path / "link").symlink_to(source)
        source = tmp_path / "link"
    before = contents(out)
    with pytest.raises(DataError, match="overlap") as caught:
        pack_folder(source, out, overwrite=True)
    assert "another --out" in str(caught.value.fix)
    assert contents(out) == before


def test_place_within_the_source_is_refused(tmp_path: Path, encode: Any) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "me.png").write_bytes(encode(2))
    with pytest.raises(DataError, match="overlap"):
        pack_folder(tmp_path / "faces", tmp_path / "faces" / "shards")
    assert list(contents(tmp_path / "faces")) == ["me.png"]


@pytest.mark.parametrize(
    "name", ["duplicates.csv", "mine.tar", "shard-000009.tar", "index/notes.txt", "sub/shard-000000.tar"]
)
def test_a_set_with_other_files_is_not_replaced(tmp_path: Path, encode: Any, name: str) -> None:
    out = tmp_path / "out"
    pack(out, encode)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_bytes(b"mine")
    before = contents(out)
    with pytest.raises(DataError, match="files that do not belong to it") as caught:
        pack(out, encode, overwrite=True)
    assert name.split("/sh", maxsplit=1)[0] in caught.value.found
    assert contents(out) == before


@pytest.mark.parametrize("head", [None, "", "{}", '{"schema": 1}', '{"schema": 1, "shards": "all"}'])
def test_a_folder_called_index_makes_no_shard_set(tmp_path: Path, encode: Any, head: str | None) -> None:
    site = tmp_path / "site"
    (site / "index").mkdir(parents=True)
    (site / "card.json").write_text('{"name": "business card"}')
    (site / "index" / "page.html").write_bytes(b"years of work")
    if head is not None:
        (site / "index" / "index.json").write_text(head)
    before = contents(site)
    with pytest.raises(DataError, match="exists and is not a shard set"):
        pack(site, encode, overwrite=True)
    assert contents(site) == before


def test_indexed_shards_of_others_are_not_replaced(tmp_path: Path, encode: Any) -> None:
    pack(tmp_path / "ours", encode)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.copy(tmp_path / "ours" / "shard-000000.tar", theirs / "shard-000000.tar")
    build_index(theirs)
    with pytest.raises(DataError, match="is not a shard set that facemae packed"):
        pack(theirs, encode, overwrite=True)
    assert (theirs / "shard-000000.tar").exists()


def test_everything_facemae_writes_into_a_set_may_be_replaced(tmp_path: Path, encode: Any) -> None:
    out = tmp_path / "out"
    items = [PackItem(f"k{i}", encode(i), "png", {}) for i in range(4)]
    pack_samples([*items, PackItem("empty", b"", "png", {})], out)
    drop_samples(out, keys=["k1"])
    contact_sheet(out, out / "contact-sheet.png")
    assert {"skipped.jsonl", "lineage.jsonl", "card.json"} < set(contents(out))
    pack(out, encode, overwrite=True)
    assert ShardIndex.open(out).keys() == ["new"]


def test_a_set_whose_erasure_was_interrupted_may_be_replaced(
    tmp_path: Path, encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    pack_samples([PackItem(f"k{i}", encode(i), "png", {}) for i in range(4)], out)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(erasure, "replace_shard", fail)
        with pytest.raises(StorageError, match="has begun"):
            drop_samples(out, keys=["k1"])
    assert {".shard-000000.tar.dropping", "index/erasing.json"} < set(contents(out))
    pack(out, encode, overwrite=True)
    assert ShardIndex.open(out).keys() == ["new"]


def test_a_linked_place_is_replaced_behind_the_link(tmp_path: Path, encode: Any) -> None:
    pack(tmp_path / "disk" / "set", encode, key="old")
    (tmp_path / "set").symlink_to(tmp_path / "disk" / "set")
    pack(tmp_path / "set", encode, overwrite=True)
    assert (tmp_path / "set").is_symlink()
    assert ShardIndex.open(tmp_path / "set").keys() == ["new"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["set"]


KILLED = """
import sys, time
from facemae.data import pack
def slow():
    print("packing", flush=True)
    time.sleep(60)
pack.pack_samples([pack.PackItem("k", slow, "png", {})], sys.argv[1], overwrite=True)
"""


def test_what_a_killed_pack_left_goes_and_what_a_running_one_writes_stays(tmp_path: Path, encode: Any) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        (running,) = tmp_path.glob(".out.packing-*")
        pack(out, encode, key="old")
        assert running.is_dir()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert running.is_dir()
    stranger = tmp_path / ".out.packing-notes"
    stranger.mkdir()
    pack(out, encode, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [stranger.name, "out"]


def test_a_set_moved_aside_by_a_killed_pack_comes_back(tmp_path: Path, encode: Any) -> None:
    out = tmp_path / "out"
    pack(out, encode, key="old")
    out.rename(tmp_path / ".out.replaced-0123abcd")
    with pytest.raises(DataError, match="there is no shard set") as missing:
        ShardIndex.open(out)
    assert f"mv {tmp_path / '.out.replaced-0123abcd'} {out}" in str(missing.value.fix)
    with pytest.raises(DataError, match="already holds a shard set"):
        pack(out, encode)
    assert ShardIndex.open(out).keys() == ["old"]
    shutil.copytree(out, tmp_path / ".out.replaced-0123abcd")
    pack(out, encode, overwrite=True)
    assert ShardIndex.open(out).keys() == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("field", ["columns", "extensions", "splits", "shards"])
def test_an_index_with_a_field_missing_says_so(tmp_path: Path, encode: Any, field: str) -> None:
    pack(tmp_path / "out", encode)
    path = tmp_path / "out" / "index" / "index.json"
    head = json.loads(path.read_text())
    del head[field]
    path.write_text(json.dumps(head))
    with pytest.raises(DataError, match=f"is not an index: {field} missing") as caught:
        ShardIndex.open(tmp_path / "out")
    assert caught.value.fix == f"facemae data index {tmp_path / 'out'}"
    assert len(build_index(tmp_path / "out")) == 1
