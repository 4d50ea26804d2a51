"""Lists of keys: which samples a stream reads, and what a changed list does to a run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from facemae.config import DataConfig, StreamConfig
from facemae.data.index import ShardIndex
from facemae.data.loader import Loader, build_loader
from facemae.data.pack import pack_samples
from facemae.data.schema import ViewSpec
from facemae.data.select import choose, select, select_keys, value_counts
from facemae.data.selection import remark_test_samples
from facemae.errors import IndexMismatchError, UsageError
from tests.data.test_loader import items


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("keys") / "shards"
    pack_samples(items(30), made, shard_size=10)
    return made


def listed(path: Path, *keys: str) -> Path:
    path.write_text("\n".join(keys) + "\n\n")
    return path


def load(folder: Path, keys: Path, pinned: dict[str, dict[str, object]] | None = None) -> Loader:
    data = DataConfig(streams=(StreamConfig(shards=str(folder), keys=str(keys)),), lanes=2)
    return build_loader(data, [ViewSpec("main", 16, 1)], seed=1, batch_size=4, stop_step=6, pinned=pinned)


def test_only_listed_samples_are_read(folder: Path, tmp_path: Path) -> None:
    index = ShardIndex.open(folder)
    keys = [index.key(place) for place in (29, 3, 17, 11)]
    path = listed(tmp_path / "fold.txt", *keys)
    assert select_keys(index, path).tolist() == [3, 11, 17, 29]
    seen = {key for batch in load(folder, path) for key in batch.keys}
    assert seen == set(keys)


def test_a_run_is_pinned_to_the_content_of_the_list(folder: Path, tmp_path: Path) -> None:
    index = ShardIndex.open(folder)
    path = listed(tmp_path / "fold.txt", *(index.key(place) for place in range(6)))
    pinned = load(folder, path).state_description()
    moved = path.rename(tmp_path / "elsewhere.txt")
    assert load(folder, moved, pinned).state_description() == pinned
    listed(moved, *(index.key(place) for place in range(1, 7)))
    with pytest.raises(IndexMismatchError, match=r"elsewhere\.txt, the list of keys of stream 'faces', is not the one"):
        load(folder, moved, pinned)


def test_lists_that_name_no_samples_are_refused(folder: Path, tmp_path: Path) -> None:
    index, path = ShardIndex.open(folder), tmp_path / "fold.txt"
    first = index.key(0)
    for keys, message in (
        ((), "lists no key"),
        ((first, first), f"lists 1 keys twice or more, such as {first}"),
        ((first, "nobody"), "1 of 2 keys in .* are not in .*, such as nobody"),
    ):
        with pytest.raises(UsageError, match=message):
            select_keys(index, listed(path, *keys))


def test_a_list_and_a_filter_both_apply(folder: Path, tmp_path: Path) -> None:
    index = ShardIndex.open(folder)
    path = listed(tmp_path / "fold.txt", *(index.key(place) for place in range(5)))
    everything = {"key": index.key(2)}
    assert choose(index, everything, path) == [2]
    with pytest.raises(UsageError, match=r"none of the 5 samples listed in .* has key="):
        choose(index, {"key": index.key(9)}, path)
    assert choose(index, {}, None) is None


def test_values_are_counted_among_chosen_samples(folder: Path) -> None:
    index = ShardIndex.open(folder)
    assert value_counts(index, ["width"]) == {"width": {20: 30}}
    found = value_counts(index, ["key"], choose(index, {"key": index.key(4)}, None))
    assert found == {"key": {index.key(4): 1}}


def test_a_stream_that_reads_the_test_split_is_remarked(tmp_path: Path) -> None:
    splits = ["train"] * 6 + ["test"] * 3 + ["valid"]
    made = [replace(item, meta={**item.meta, "split": split}) for item, split in zip(items(10), splits, strict=True)]
    pack_samples(made, tmp_path / "shards", shard_size=10)
    index = ShardIndex.open(tmp_path / "shards")

    def remark(**stream: Any) -> str | None:
        return remark_test_samples(index, StreamConfig(shards=str(tmp_path / "shards"), **stream), 1)

    found = remark()
    assert found is not None
    assert "reads 3 samples of the split `test`" in found
    assert "data.streams.1.where.split=train" in found
    assert remark(where={"split": "train"}) is None
    tested = select(index, {"split": "test"}).tolist()
    others = select(index, {"split": "train"}).tolist()
    some = listed(tmp_path / "some.txt", index.key(tested[0]), *(index.key(place) for place in others))
    assert "reads 1 samples" in str(remark(keys=str(some)))


def test_without_splits_there_is_nothing_to_remark(tmp_path: Path) -> None:
    pack_samples([replace(item, meta={}) for item in items(4)], tmp_path / "shards", shard_size=4)
    shards = tmp_path / "shards"
    assert remark_test_samples(ShardIndex.open(shards), StreamConfig(shards=str(shards)), 0) is None
