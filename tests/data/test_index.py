"""The index: what it finds, what it refuses, what it keeps when the set grows."""

import io
import json
import pickle
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds

from facemae.data.index import ShardIndex, build_index
from facemae.data.pack import PackItem, pack_samples
from facemae.data.scan import split_name
from facemae.data.select import metadata, select
from facemae.errors import DataError, IndexMismatchError, ShardError, UsageError


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            header.mtime = 12345
            tar.addfile(header, io.BytesIO(data))


def test_every_sample_is_found_where_the_tar_has_it(shard_set: Path, index: ShardIndex) -> None:
    seen = 0
    for number, shard in enumerate(index.shards):
        with tarfile.open(shard_set / shard.name) as tar:
            for member in tar:
                key, extension = member.name.split(".", 1)
                i = index.find(key)
                assert i is not None
                assert index.key(i) == key
                assert index.shard_of(i) == number
                ref = index.members(i)[extension]
                assert (ref.offset, ref.size) == (member.offset_data, member.size)
                seen += 1
    assert seen == 2 * len(index) == 80
    assert index.find("nobody") is None
    assert index.shard_sizes.tolist() == [10, 10, 10, 10]
    with pytest.raises(IndexError):
        index.members(40)


def test_subjects_and_metadata_are_columns(index: ShardIndex) -> None:
    rows = metadata(index).to_pylist()
    for i, row in enumerate(rows):
        number = int(row["key"].removeprefix("face"))
        assert row["subject"] == index.subjects[index.subject_codes[i]] == f"person-{number % 8}"
        assert row["source"] == f"face{number:02d}.png"
        assert (row["emotion"], row["votes"], row["age"]) == (("joy", "fear")[number % 2], number % 3, 20.5 + number)
        assert (row["width"], row["height"]) == (20, 16)


def test_select_compares_as_text_and_names_what_there_is(index: ShardIndex) -> None:
    chosen = select(index, {"split": "train", "votes": "1"})
    keys = {index.key(int(i)) for i in chosen}
    assert keys == {f"face{i:02d}" for i in range(40) if i % 8 and i % 3 == 1}
    assert chosen.dtype == np.int64
    assert np.all(np.diff(chosen) > 0)
    with pytest.raises(UsageError, match=r"no metadata column 'emotoin'") as caught:
        select(index, {"emotoin": "joy"})
    assert caught.value.fix == "did you mean 'emotion'?"
    with pytest.raises(UsageError, match=r"no sample .* has emotion=anger") as caught:
        select(index, {"emotion": "anger"})
    assert "fear (20)" in str(caught.value)


def test_digest_ignores_times_and_places_and_sees_bytes(tmp_path: Path) -> None:
    samples = [("a.jpg", b"one"), ("b.jpg", b"two")]
    write_tar(tmp_path / "x" / "s.tar", samples)
    first = build_index(tmp_path / "x")
    shutil.copy(tmp_path / "x" / "s.tar", tmp_path / "moved.tar")
    (tmp_path / "y").mkdir()
    shutil.move(tmp_path / "moved.tar", tmp_path / "y" / "other-name.tar")
    assert build_index(tmp_path / "y").digest == first.digest
    write_tar(tmp_path / "z" / "s.tar", [("a.jpg", b"one"), ("b.jpg", b"twO")])
    assert build_index(tmp_path / "z").digest != first.digest


def test_grouping_is_webdatasets(tmp_path: Path) -> None:
    samples = [
        ("dir.v1/face.01.JPG", b"1"),
        ("dir.v1/face.json", b"{}"),
        ("__meta__/x.json", b"{}"),
        (".hidden", b""),
        ("noextension", b""),
        ("b.jpg", b"2"),
    ]
    path = tmp_path / "s.tar"
    write_tar(path, samples)
    ours = build_index(tmp_path)
    theirs = list(wds.WebDataset(str(path), shardshuffle=False))
    assert [ours.key(i) for i in range(len(ours))] == [sample["__key__"] for sample in theirs]
    for i, sample in enumerate(theirs):
        assert set(ours.members(i)) == {name for name in sample if not name.startswith("__")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b.c.jpg", ("a", "b.c.jpg")),
        ("x.y/a.PNG", ("x.y/a", "png")),
        ("noext", None),
        (".jpg", None),
        ("__x__/a.jpg", None),
    ],
)
def test_key_rule(name: str, expected: tuple[str, str] | None) -> None:
    assert split_name(name) == expected


def test_foreign_shards_keep_their_own_labels(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "sub" / "00000.tar",
        [
            ("k1.jpg", b"1"),
            ("k1.json", json.dumps({"caption": "smile", "valence": 0.5, "split": "val"}).encode()),
            ("k1.cls", b"3"),
            ("k2.jpg", b"2"),
        ],
    )
    index = build_index(tmp_path)
    first, second = metadata(index).to_pylist()
    assert (first["caption"], first["valence"], first["split"], first["cls"]) == ("smile", 0.5, "valid", 3)
    assert second["caption"] is None
    assert second["split"] is None


def test_growth_comes_behind_what_was_known(tmp_path: Path) -> None:
    write_tar(tmp_path / "m.tar", [("m.jpg", b"m")])
    old = build_index(tmp_path)
    write_tar(tmp_path / "a.tar", [("a.jpg", b"a")])
    new = build_index(tmp_path)
    assert [shard.name for shard in new.shards] == ["m.tar", "a.tar"]
    pinned = new.prefix(1)
    assert pinned.digest == old.digest
    assert len(pinned) == 1
    assert pinned.find("a") is None
    assert len(pinned.subject_codes) == len(pinned.split_codes) == 1
    assert metadata(pinned)["key"].to_pylist() == ["m"]
    with pytest.raises(IndexMismatchError, match="has 2 shards"):
        new.prefix(3)


@pytest.mark.parametrize("damage", ["column", "schema", "columns", "head"])
def test_a_damaged_index_still_tells_the_order_of_the_shards(tmp_path: Path, damage: str) -> None:
    write_tar(tmp_path / "m.tar", [("m.jpg", b"m")])
    build_index(tmp_path)
    write_tar(tmp_path / "a.tar", [("a.jpg", b"a")])
    old = build_index(tmp_path)
    path = tmp_path / "index" / "index.json"
    head = json.loads(path.read_text())
    if damage == "column":
        (old.columns_folder / "member.npy").unlink()
    elif damage == "schema":
        path.write_text(json.dumps({**head, "schema": 99}))
    elif damage == "columns":
        path.write_text(json.dumps({"schema": 1, "shards": head["shards"]}))
    else:
        path.write_text('{"schema": 1}')
    again = build_index(tmp_path)
    names = ["a.tar", "m.tar"] if damage == "head" else ["m.tar", "a.tar"]
    assert [shard.name for shard in again.shards] == names


def test_duplicate_key_names_both_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "1.tar", [("a.jpg", b"1"), ("same.jpg", b"1")])
    write_tar(tmp_path / "2.tar", [("same.jpg", b"2")])
    with pytest.raises(DataError, match=r"key 'same' is there twice, in shard 1.tar and in shard 2.tar"):
        build_index(tmp_path)
    assert not (tmp_path / "index").exists()


def test_member_twice_in_a_sample(tmp_path: Path) -> None:
    write_tar(tmp_path / "1.tar", [("a.jpg", b"1"), ("a.jpg", b"2")])
    with pytest.raises(ShardError, match=r"member a.jpg twice"):
        build_index(tmp_path)


@pytest.mark.parametrize("cut", ["in the json", "in a header", "before the end mark"])
def test_truncated_tar_names_shard_bytes_and_last_whole_sample(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "part.tar"
    write_tar(path, [(f"{key}.{kind}", bytes(700)) for key in "abc" for kind in ("jpg", "bin")])
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
    where = {
        "in the json": members["b.bin"].offset_data + 10,
        "in a header": members["b.bin"].offset + 100,
        "before the end mark": members["c.jpg"].offset,
    }[cut]
    path.write_bytes(path.read_bytes()[:where])
    with pytest.raises(ShardError, match="truncated or damaged") as caught:
        build_index(tmp_path)
    assert str(path) in caught.value.found
    assert f"{where} bytes found" in caught.value.found
    # Of b only the image is known to be whole, so a half sample is never counted.
    assert "the last whole sample is 'a'" in caught.value.found
    assert not (tmp_path / "index").exists()


def test_overwritten_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    write_tar(path, [("a.jpg", b"1"), ("b.jpg", b"2"), ("c.jpg", b"3")])
    data = bytearray(path.read_bytes())
    data[1024:1100] = b"x" * 76
    path.write_bytes(data)
    with pytest.raises(ShardError, match="no valid header at byte 1024"):
        build_index(tmp_path)


def test_a_zeroed_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    write_tar(path, [("a.jpg", b"1"), ("b.jpg", b"2"), ("c.jpg", b"3")])
    data = bytearray(path.read_bytes())
    data[1024:1536] = bytes(512)
    path.write_bytes(data)
    with pytest.raises(ShardError, match="goes on behind an end-of-archive mark at byte 1024") as caught:
        build_index(tmp_path)
    assert str(path) in caught.value.found
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("end", [1024, 10240])
def test_joined_archives_are_not_read_to_the_first_end_only(tmp_path: Path, end: int) -> None:
    for name in "ab":
        write_tar(tmp_path / name, [(f"{name}.jpg", bytes(700))])
    first = (tmp_path / "a").read_bytes()
    (tmp_path / "s.tar").write_bytes(first[: 1536 + end] + (tmp_path / "b").read_bytes())
    with pytest.raises(ShardError, match="goes on behind an end-of-archive mark") as caught:
        build_index(tmp_path)
    assert "joined with cat" in str(caught.value.expected)


def test_any_number_of_zeros_ends_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    write_tar(path, [("a.jpg", b"1")])
    path.write_bytes(path.read_bytes() + bytes(3 << 20))
    assert build_index(tmp_path).keys() == ["a"]


@pytest.mark.parametrize(("data", "words"), [(b"", "is empty"), (b"hello" * 300, "is not a tar archive")])
def test_not_a_tar(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "s.tar").write_bytes(data)
    with pytest.raises(ShardError, match=words):
        build_index(tmp_path)


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tgz", "s.tar"])
def test_compressed_shard_is_refused_with_a_repack_command_that_works(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / name, "w:gz") as tar:
        header = tarfile.TarInfo("a.jpg")
        header.size = 1
        tar.addfile(header, io.BytesIO(b"1"))
    with pytest.raises(ShardError, match="compressed with gzip") as caught:
        build_index(tmp_path)
    assert caught.value.fix is not None
    assert "gunzip" in caught.value.fix
    subprocess.run(caught.value.fix.removeprefix("repack it: "), shell=True, check=True)  # noqa: S602
    assert build_index(tmp_path).key(0) == "a"


def test_missing_index_says_how_to_make_it(tmp_path: Path) -> None:
    write_tar(tmp_path / "1.tar", [("a.jpg", b"1")])
    with pytest.raises(DataError, match=r"1 \.tar shards and no index") as caught:
        ShardIndex.open(tmp_path)
    assert caught.value.fix == f"facemae data index {tmp_path}"
    with pytest.raises(DataError, match="there is no shard set"):
        ShardIndex.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.tar shards"):
        build_index(tmp_path / "empty")


def test_foreign_format_and_damaged_head(shard_set: Path) -> None:
    head = shard_set / "index" / "index.json"
    value = json.loads(head.read_text())
    head.write_text(json.dumps({**value, "schema": 99}))
    with pytest.raises(IndexMismatchError, match="has format 99"):
        ShardIndex.open(shard_set)
    head.write_text("{")
    with pytest.raises(DataError, match="is not an index"):
        ShardIndex.open(shard_set)


def test_short_column_is_noticed(shard_set: Path, index: ShardIndex) -> None:
    column = index.columns_folder / "member.npy"
    column.write_bytes(column.read_bytes()[:-30])
    with pytest.raises(DataError, match="shorter than its 80 entries"):
        ShardIndex.open(shard_set)


def test_pickled_index_opens_again(index: ShardIndex) -> None:
    again = pickle.loads(pickle.dumps(index.prefix(2)))  # noqa: S301
    assert again.digest == index.prefix(2).digest
    assert [again.key(i) for i in range(len(again))] == index.keys(0, 20)


def test_parallel_scan_gives_the_same_index(tmp_path: Path, encode: object, shard_set: Path) -> None:
    old = ShardIndex.open(shard_set)
    keys = old.keys()
    new = build_index(shard_set, workers=2)
    assert new.digest == old.digest
    assert new.keys() == keys


def test_mixed_label_types_become_text(tmp_path: Path) -> None:
    for name, label in (("1", 3), ("2", "three")):
        write_tar(tmp_path / f"{name}.tar", [(f"{name}.json", json.dumps({"labels": {"x": label}}).encode())])
    assert metadata(build_index(tmp_path))["x"].to_pylist() == ["3", "three"]


def test_no_shard_is_one_identity(tmp_path: Path, encode: object) -> None:
    """Repeats of an identity within a shard are what the hypergeometric distribution expects, not more."""
    image = encode(0)  # type: ignore[operator]
    people, each = 50, 20
    items = [
        PackItem(f"p{p:02d}-{n:02d}", image, "png", {"subject": f"p{p:02d}"})
        for p in range(people)
        for n in range(each)
    ]
    pack_samples(items, tmp_path / "set", shard_size=100)
    index = ShardIndex.open(tmp_path / "set")
    counts = [np.bincount(index.subject_codes[list(index.shard_range(s))], minlength=people) for s in range(10)]
    variance = float(np.mean([np.var(count) for count in counts]))
    total, drawn = people * each, 100
    share = each / total
    expected = drawn * share * (1 - share) * (total - drawn) / (total - 1)
    assert 0.6 * expected < variance < 1.4 * expected
