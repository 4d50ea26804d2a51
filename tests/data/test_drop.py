"""Erasure: nothing of the sample is left, nothing else moves, and started runs recognise the set."""

import shutil
from pathlib import Path

import pytest

from facemae.data import drop as drop_module
from facemae.data import erasure, index_build
from facemae.data.drop import drop_samples
from facemae.data.index import ShardIndex, build_index
from facemae.data.reader import ShardReader
from facemae.data.select import metadata, select
from facemae.data.stats import contact_sheet, count_shards
from facemae.data.verify import verify_shards
from facemae.errors import DataError, IndexMismatchError, StorageError, UsageError
from facemae.files import fsync_file


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_nothing_of_a_subject_is_left(shard_set: Path, index: ShardIndex) -> None:
    reader = ShardReader(index)
    gone = [i for i in range(40) if index.subjects[index.subject_codes[i]] == "person-3"]
    samples = [reader.read(i) for i in gone]
    contact_sheet(shard_set, shard_set / "contact-sheet.png")
    report = drop_samples(shard_set, subjects=["person-3"])
    assert sorted(report.erased) == sorted(sample.key for sample in samples)
    left = everything(shard_set)
    assert b"person-3" not in left
    assert b"person-4" in left
    for sample in samples:
        assert sample.key.encode() not in left
        assert sample.members["png"] not in left
        assert sample.members["json"] not in left
    assert not (shard_set / "contact-sheet.png").exists()
    assert "person-3" not in list(ShardIndex.open(shard_set).subjects)


def test_all_other_positions_stay_and_the_erased_are_substituted(shard_set: Path, index: ShardIndex) -> None:
    before = [ShardReader(index).read(i) for i in range(40)]
    drop_samples(shard_set, subjects=["person-0"], keys=["face05"])
    after = ShardIndex.open(shard_set)
    reader = ShardReader(after)
    erased = {i for i, sample in enumerate(before) if sample.meta["subject"] == "person-0" or sample.key == "face05"}
    assert set(after.dropped) == erased
    # Subject 0 is the whole test split, so only face05 has a neighbour of its split.
    assert len(after.substitutes) == 1
    for i, sample in enumerate(before):
        if i not in erased:
            again = reader.read(i)
            assert (again.key, again.members, again.index) == (sample.key, sample.members, i)
        elif sample.key == "face05":
            substitute = reader.read(i)
            assert substitute.index == after.substitutes[i] != i
            assert substitute.meta["split"] == "train"
        else:
            with pytest.raises(DataError, match="its split has no other sample"):
                reader.read(i)


def test_substitute_is_the_next_of_the_split_and_wraps(shard_set: Path, index: ShardIndex) -> None:
    train = [int(i) for i in select(index, {"split": "train"})]
    last, before_last = train[-1], train[-2]
    drop_samples(shard_set, keys=[index.key(last), index.key(before_last)])
    after = ShardIndex.open(shard_set)
    assert after.substitutes == {last: train[0], before_last: train[0]}


def test_selection_keeps_its_length_for_runs_and_not_for_counting(shard_set: Path, index: ShardIndex) -> None:
    chosen = select(index, {"split": "train"}).tolist()
    drop_samples(shard_set, keys=["face01", "face02"])
    after = ShardIndex.open(shard_set)
    assert select(after, {"split": "train"}).tolist() == chosen
    counted = select(after, {"split": "train"}, dropped=False)
    assert len(counted) == len(chosen) - 2
    assert count_shards(shard_set).samples == 38
    assert count_shards(shard_set).dropped == 2
    assert sum(metadata(after)["dropped"].to_pylist()) == 2


def test_a_started_run_recognises_the_set(shard_set: Path, index: ShardIndex) -> None:
    first = drop_samples(shard_set, keys=["face01"])
    drop_samples(shard_set, keys=["face02", "face03"])
    after = ShardIndex.open(shard_set)
    assert after.digest != index.digest
    assert after.accepts(index.digest)
    assert after.accepts(first.after)
    assert after.accepts(after.digest)
    assert not after.accepts("0" * 64)
    for n in range(1, 5):
        assert after.prefix(n).accepts(index.prefix(n).digest)
        assert n == 4 or not after.prefix(n).accepts(index.digest)
    again = build_index(shard_set)
    assert again.digest == after.digest
    assert again.dropped == after.dropped
    assert again.accepts(index.digest)


def test_set_stays_sound_and_can_be_verified(shard_set: Path) -> None:
    drop_samples(shard_set, keys=["face01"])
    report = verify_shards(shard_set)
    assert report.sound
    assert report.samples == 39


def test_dry_run_changes_nothing(shard_set: Path) -> None:
    before = everything(shard_set)
    report = drop_samples(shard_set, subjects=["person-1"], dry_run=True)
    assert len(report.erased) == 5
    assert "would be erased" in report.lines()[0]
    assert everything(shard_set) == before


def test_wrong_names(shard_set: Path) -> None:
    with pytest.raises(UsageError, match="has no subject 'person-9'"):
        drop_samples(shard_set, subjects=["person-1", "person-9"])
    with pytest.raises(UsageError, match="has no sample 'face99'"):
        drop_samples(shard_set, keys=["face99"])
    with pytest.raises(UsageError, match="nothing to drop"):
        drop_samples(shard_set)
    with pytest.raises(UsageError, match="every sample"):
        drop_samples(shard_set, subjects=[f"person-{i}" for i in range(8)])
    drop_samples(shard_set, keys=["face01"])
    with pytest.raises(UsageError, match="has no sample 'face01'"):
        drop_samples(shard_set, keys=["face01"])


def test_changed_shard_is_not_rewritten(shard_set: Path, index: ShardIndex) -> None:
    i = index.find("face01")
    assert i is not None
    path = shard_set / index.shards[index.shard_of(i)].name
    data = bytearray(path.read_bytes())
    data[index.members(i)["json"].offset + 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IndexMismatchError, match="changed under its index"):
        drop_samples(shard_set, keys=["face01"])
    assert path.read_bytes() == bytes(data)


def test_full_disk_leaves_the_set_as_it_was(shard_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(shard_set)
    calls = [0]

    def full(path: Path) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(28, "No space left on device")
        fsync_file(path)

    monkeypatch.setattr(drop_module, "fsync_file", full)
    with pytest.raises(StorageError, match="the disk is full"):
        drop_samples(shard_set, keys=["face01", "face02", "face03", "face04", "face05", "face06"])
    assert calls[0] == 2
    assert everything(shard_set) == before
    assert not list(shard_set.glob(".*"))


def fail(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def failing_at(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an erasure fail at one point of putting its files into place."""
    replaced = [0]
    put = erasure.replace_shard

    def second_fails(staged: Path, shard: Path) -> None:
        replaced[0] += 1
        if replaced[0] == 2:
            fail()
        put(staged, shard)

    if point == "first shard":
        monkeypatch.setattr(erasure, "replace_shard", fail)
    elif point == "second shard":
        monkeypatch.setattr(erasure, "replace_shard", second_fails)
    elif point == "lineage":
        monkeypatch.setattr(erasure, "read_lineage", fail)
    elif point == "head":
        monkeypatch.setattr(index_build, "write_text", fail)
    else:
        monkeypatch.setattr(shutil, "rmtree", fail)


@pytest.mark.parametrize("finish", ["index", "drop"])
@pytest.mark.parametrize("point", ["lineage", "first shard", "second shard", "head", "old columns"])
def test_an_interrupted_erasure_is_finished(
    shard_set: Path, index: ShardIndex, monkeypatch: pytest.MonkeyPatch, point: str, finish: str
) -> None:
    keys = index.keys()
    contact_sheet(shard_set, shard_set / "contact-sheet.png")
    samples = [ShardReader(index).read(i) for i in range(40) if i and index.subject_codes[i] == index.subject_codes[0]]
    person = samples[0].meta["subject"]
    with monkeypatch.context() as patched:
        failing_at(point, patched)
        with pytest.raises(StorageError, match="has begun and is not finished") as caught:
            drop_samples(shard_set, subjects=[person])
    assert f"facemae data index {shard_set}" in str(caught.value.fix)
    if finish == "index":
        after = build_index(shard_set)
        erased = set(after.dropped)
    else:
        other = next(key for key in keys if key not in {sample.key for sample in samples} and key != index.key(0))
        drop_samples(shard_set, keys=[other])
        after = ShardIndex.open(shard_set)
        erased = set(after.dropped) - {keys.index(other)}
    assert erased == {i for i in range(40) if index.subject_codes[i] == index.subject_codes[0]}
    left = everything(shard_set)
    assert person.encode() not in left
    for sample in samples:
        assert sample.key.encode() not in left
        assert sample.members["png"] not in left
    assert [after.key(i) for i in range(40) if i not in after.dropped_set] == [
        keys[i] for i in range(40) if i not in after.dropped_set
    ]
    assert after.accepts(index.digest)
    assert verify_shards(shard_set).sound
    assert sorted(path.name for path in shard_set.iterdir() if path.suffix != ".tar") == [
        "card.json",
        "index",
        "lineage.jsonl",
    ]
    assert len(list((shard_set / "index").iterdir())) == 2


def test_a_full_disk_before_the_journal_leaves_the_set_as_it_was(
    shard_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(shard_set)
    monkeypatch.setattr(erasure, "write_text", fail)
    with pytest.raises(StorageError, match="No space left"):
        drop_samples(shard_set, keys=["face01", "face02", "face03"])
    assert everything(shard_set) == before
    assert not list(shard_set.glob(".*"))
    assert len(list((shard_set / "index").iterdir())) == 2


def test_columns_of_the_index_before_are_never_left_in_silence(
    shard_set: Path, index: ShardIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", fail)
        with pytest.raises(StorageError, match=r"the new index is in place, but .* cannot be removed"):
            build_index(shard_set)
    assert index.columns_folder.is_dir()
    build_index(shard_set)
    assert not index.columns_folder.exists()
