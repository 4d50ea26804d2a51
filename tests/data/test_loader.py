"""Loader: the same batches whatever the processes and workers, also after a stop; damage; errors from workers."""

import io
import itertools
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from facemae.config import DataConfig, StreamConfig
from facemae.data.drop import drop_samples
from facemae.data.index import ShardIndex, build_index
from facemae.data.loader import Loader, build_loader
from facemae.data.pack import PackItem, pack_samples
from facemae.data.schema import Batch, MaskSpec, ViewSpec
from facemae.data.workers import default_workers
from facemae.errors import ConfigError, DataError, IndexMismatchError, UsageError

COUNT = 53
LANES = 4
BATCH = 8
SPECS = (
    ViewSpec("main", 16, 1, mask=MaskSpec("random", (4, 4), 4)),
    ViewSpec("whole", 24, 3, crop="resize", flip=False),
)


def encoded(number: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def items(count: int, damaged: Iterable[int] = (), prefix: str = "face") -> list[PackItem]:
    made = []
    for number in range(count):
        data = encoded(number)
        if number in set(damaged):
            data = data[: len(data) // 2]
        split = "test" if number % 5 == 0 else "train"
        made.append(PackItem(f"{prefix}_{number:03d}", data, "png", {"split": split, "number": number}))
    return made


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader") / "shards"
    pack_samples(items(COUNT), folder, shard_size=10)
    return folder


def damage(folder: Path, keys: Iterable[str]) -> None:
    """Replace the images of some samples by bytes that are intact and no image, and index them as they are."""
    index = ShardIndex.open(folder)
    for key in keys:
        i = index.find(key)
        assert i is not None
        member = index.members(i)["png"]
        with (folder / index.shards[index.shard_of(i)].name).open("r+b") as handle:
            handle.seek(member.offset + 60)
            handle.write(bytes(member.size - 60))
    build_index(folder)


def config(folder: Path, **changes: Any) -> DataConfig:
    stream = StreamConfig(shards=str(folder), where=changes.pop("where", {}))
    return DataConfig(streams=(stream,), lanes=LANES, **changes)


def load(folder: Path, **changes: Any) -> Loader:
    settings: dict[str, Any] = {"seed": 3, "batch_size": BATCH, "stop_step": 6, **changes}
    return build_loader(settings.pop("data", None) or config(folder), SPECS, **settings)


def same(one: Batch, other: Batch) -> bool:
    return (
        (one.step, one.first_slot, one.keys, one.streams, one.meta, one.replaced)
        == (other.step, other.first_slot, other.keys, other.streams, other.meta, other.replaced)
        and one.views.keys() == other.views.keys()
        and all(torch.equal(view.image, other.views[name].image) for name, view in one.views.items())
        and torch.equal(visible(one), visible(other))
    )


def visible(batch: Batch) -> torch.Tensor:
    found = batch.views["main"].visible
    assert found is not None
    return found


def test_batches_have_the_promised_shapes(shards: Path) -> None:
    batch = next(iter(load(shards)))
    assert len(batch) == BATCH
    assert batch.views["main"].image.shape == (BATCH, 1, 16, 16)
    assert batch.views["whole"].image.shape == (BATCH, 3, 24, 24)
    assert visible(batch).shape == (BATCH, 4)
    assert batch.views["whole"].visible is None
    assert batch.streams == ("faces",) * BATCH
    assert [entry["number"] for entry in batch.meta] == [int(key[-3:]) for key in batch.keys]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(shards: Path, workers: int) -> None:
    alone = list(load(shards))
    together = list(load(shards, workers=workers))
    assert len(alone) == len(together) == 6
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_processes_cut_the_same_global_batch(shards: Path, world: int) -> None:
    ranks = [list(load(shards, rank=rank, world=world)) for rank in range(world)]
    for step, whole in enumerate(load(shards)):
        parts = [ranks[rank][step] for rank in range(world)]
        assert [part.first_slot for part in parts] == [rank * BATCH // world for rank in range(world)]
        assert tuple(itertools.chain(*(part.keys for part in parts))) == whole.keys
        assert torch.equal(torch.cat([part.views["main"].image for part in parts]), whole.views["main"].image)
        assert torch.equal(torch.cat([visible(part) for part in parts]), visible(whole))


@pytest.mark.parametrize("stop", [1, 4])
def test_a_stopped_run_continues_with_the_batches_it_would_have_seen(shards: Path, stop: int) -> None:
    whole = list(load(shards))
    rest = list(load(shards, start_step=stop))
    assert len(rest) == 6 - stop
    assert all(same(one, other) for one, other in zip(whole[stop:], rest, strict=True))


def test_views_of_a_sample_differ_between_epochs_and_with_the_seed(shards: Path) -> None:
    def views_of(key: str, seed: int) -> list[bytes]:
        return [
            batch.views["main"].image[place].numpy().tobytes()
            for batch in load(shards, stop_step=20, seed=seed)
            for place, used in enumerate(batch.keys)
            if used == key
        ]

    found = views_of("face_010", 3)
    assert len(found) >= 2
    assert len(set(found)) == len(found)
    assert set(found).isdisjoint(views_of("face_010", 4))


def test_a_filter_reads_only_what_matches(shards: Path) -> None:
    loader = load(shards, data=config(shards, where={"split": "train"}), stop_step=5)
    numbers = [entry["number"] for batch in loader for entry in batch.meta]
    assert loader.epoch_samples == 40  # 42 of 53 are of the split; 2 sit out for four lanes
    assert len(set(numbers)) == len(numbers) == 40
    assert all(number % 5 for number in numbers)


def test_streams_share_each_batch(shards: Path, tmp_path: Path) -> None:
    pack_samples(items(30, prefix="other"), tmp_path / "other", shard_size=10)
    streams = (
        StreamConfig(name="faces", shards=str(shards), share=1),
        StreamConfig(name="others", shards=str(tmp_path / "other"), share=2),
    )
    data = DataConfig(streams=streams, lanes=2)
    for world in (1, 2):
        for batch in load(shards, data=data, batch_size=12, rank=world - 1, world=world):
            assert Counter(batch.streams) == {"faces": 4 // world, "others": 8 // world}
            prefixes = {"faces": "face", "others": "other"}
            assert all(key.startswith(prefixes[name]) for key, name in zip(batch.keys, batch.streams, strict=True))


def test_damage_keeps_the_count_and_is_replaced_alike_everywhere(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    pack_samples(items(COUNT), folder, shard_size=10)
    clean = list(load(folder))
    damaged = clean[1].keys[3]
    damage(folder, [damaged])
    whole = list(load(folder, workers=1))
    (replacement,) = whole[1].replaced
    assert len(whole[1]) == BATCH
    assert replacement.requested == damaged
    assert replacement.used == whole[1].keys[3] != damaged
    assert replacement.position == BATCH + 3
    assert "does not decode" in replacement.reason
    assert [key for i, key in enumerate(whole[1].keys) if i != 3] == [
        key for i, key in enumerate(clean[1].keys) if i != 3
    ]
    second_half = list(load(folder, rank=0, world=2))
    assert second_half[1].replaced == (replacement,)
    assert second_half[1].keys == whole[1].keys[: BATCH // 2]


def test_damage_in_a_filtered_stream_stays_within_the_filter(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    pack_samples(items(COUNT), folder, shard_size=10)
    damage(folder, [f"face_{number:03d}" for number in range(1, COUNT, 5)])
    batches = list(load(folder, data=config(folder, where={"split": "train"}), stop_step=5))
    assert sum(len(batch.replaced) for batch in batches) > 5
    assert all(entry["number"] % 5 for batch in batches for entry in batch.meta)


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_damage_stops_with_the_reason(tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "shards"
    pack_samples(items(40), folder, shard_size=10)
    damage(folder, [f"face_{number:03d}" for number in range(40)])
    with pytest.raises(DataError, match="33 samples in a row of stream 'faces' do not decode") as caught:
        list(load(folder, workers=workers))
    assert "Traceback" not in str(caught.value)
    assert caught.value.fix == f"facemae data verify {folder}"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_changed_shard_stops_with_the_original_error(tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "shards"
    pack_samples(items(COUNT), folder, shard_size=10)
    for shard in folder.rglob("*.tar"):
        data = bytearray(shard.read_bytes())
        for place in range(600, len(data), 64):
            data[place] ^= 1
        shard.write_bytes(data)
    others = set(multiprocessing.active_children())
    with pytest.raises(IndexMismatchError) as caught:
        list(load(folder, workers=workers))
    # While the error is still held: an iterator that its traceback keeps alive could not end its workers later.
    assert set(multiprocessing.active_children()) <= others
    assert type(caught.value) is IndexMismatchError
    assert caught.value.fix is not None
    assert "Traceback" not in str(caught.value)


def test_growth_enters_only_when_it_is_not_pinned(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    pack_samples(items(COUNT), folder, shard_size=10)
    loader = load(folder)
    before, pinned = list(loader), loader.state_description()
    assert pinned["faces"]["shards"] == 6
    (tmp_path / "more").mkdir()
    pack_samples(items(20, prefix="new"), tmp_path / "more" / "set", shard_size=10)
    for number, shard in enumerate(sorted((tmp_path / "more" / "set").rglob("*.tar"))):
        shard.rename(folder / f"zz-{number}.tar")
    build_index(folder)
    assert load(folder).state_description()["faces"]["shards"] == 8
    continued = load(folder, pinned=pinned)
    assert all(same(one, other) for one, other in zip(before, continued, strict=True))
    with pytest.raises(IndexMismatchError, match="not those the run started with"):
        load(folder, pinned={"faces": {"shards": 6, "digest": "0" * 64}})


def labelled(folder: Path) -> Path:
    """A set whose samples have a subject and a label beside their split."""
    made = [
        replace(item, meta={**item.meta, "subject": f"s{i % 10}", "labels": {"emotion": ("joy", "fear")[i % 2]}})
        for i, item in enumerate(items(COUNT))
    ]
    pack_samples(made, folder, shard_size=10)
    return folder


def test_a_run_on_a_split_goes_on_after_an_erasure_with_one_substitute(tmp_path: Path) -> None:
    folder = labelled(tmp_path / "shards")
    loader = load(folder, data=config(folder, where={"split": "train"}), stop_step=10)
    before, pinned = [batch.keys for batch in loader], loader.state_description()
    gone = before[5][3]
    drop_samples(folder, keys=[gone])
    index = ShardIndex.open(folder)
    (substitute,) = index.substitutes.values()
    continued = load(folder, data=config(folder, where={"split": "train"}), stop_step=10, pinned=pinned)
    after = [batch.keys for batch in continued]
    assert after == [tuple(index.key(substitute) if key == gone else key for key in keys) for keys in before]
    assert sum(keys.count(gone) for keys in before) >= 1


@pytest.mark.parametrize("where", [{"emotion": "joy"}, {"split": "train", "emotion": "joy"}, {"subject": "s2"}])
def test_a_run_on_a_label_is_refused_after_an_erasure_from_it(tmp_path: Path, where: dict[str, str]) -> None:
    folder = labelled(tmp_path / "shards")
    pinned = load(folder, data=config(folder, where=where)).state_description()
    drop_samples(folder, keys=["face_012"])
    with pytest.raises(IndexMismatchError, match="not those the run started with") as caught:
        load(folder, data=config(folder, where=where), pinned=pinned)
    count = pinned["faces"]["selection"]["samples"]
    assert f"selects {count - 1} samples" in caught.value.found
    assert f"{count} samples" in str(caught.value.expected)
    assert "--adopt-data" in str(caught.value.fix)
    # A state that an older version wrote does not say what was selected.
    old = {"faces": {name: pinned["faces"][name] for name in ("shards", "digest")}}
    assert load(folder, data=config(folder, where=where), pinned=old).epoch_samples


def test_an_erasure_outside_the_selection_changes_no_run(tmp_path: Path) -> None:
    folder = labelled(tmp_path / "shards")
    data = config(folder, where={"emotion": "joy"})
    loader = load(folder, data=data)
    before, pinned = list(loader), loader.state_description()
    drop_samples(folder, keys=["face_011"])
    assert all(same(one, other) for one, other in zip(before, load(folder, data=data, pinned=pinned), strict=True))


def test_wrong_settings_name_what_would_fit(shards: Path) -> None:
    with pytest.raises(UsageError, match="1, 2, 4 processes"):
        load(shards, world=3)
    with pytest.raises(UsageError, match="a multiple of 4: 8, 12, 16"):
        load(shards, batch_size=10)
    with pytest.raises(ConfigError, match="--data DIR"):
        load(shards, data=DataConfig(lanes=LANES))


def test_iterating_leaves_the_global_random_state_alone(shards: Path) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    list(load(shards, workers=1, stop_step=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_chosen_number_of_workers_leaves_a_core() -> None:
    assert 0 <= default_workers() <= 8


def test_a_killed_worker_is_said_when_the_thread_that_locks_its_pages_ends(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Loader) -> Iterator[Batch]:
        # Asked for its first batch, not before.
        return map(fail, (1,))

    def fail(_: int) -> Batch:
        raise RuntimeError("Pin memory thread exited unexpectedly")

    monkeypatch.setattr(Loader, "_data_loader", broken)
    data, view = DataConfig(streams=(StreamConfig(shards=str(shards)),), lanes=2), (ViewSpec("main", 16, 3),)
    with pytest.raises(DataError, match="a loader process ended unexpectedly: RuntimeError: Pin memory thread"):
        next(iter(build_loader(data, view, seed=0, batch_size=4, stop_step=4, workers=2)))
