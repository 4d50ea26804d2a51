"""Everything a view can do, at once: still a pure function of seed, sample, epoch and view."""

import io
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from facemae.config import DataConfig, StreamConfig
from facemae.data.augment import make_view
from facemae.data.decode import decode_image
from facemae.data.loader import Loader, build_loader
from facemae.data.pack import PackItem, pack_samples
from facemae.data.schema import Batch, MaskSpec, PhotometricSpec, StageSpec, ViewSpec

BATCH, STEPS, LANES, COUNT = 8, 8, 4, 40
CHANGES = PhotometricSpec(
    colour=0.8, brightness=(0.6, 1.4), contrast=(0.6, 1.4), saturation=(0.6, 1.4), hue=(-0.1, 0.1),
    grey=0.3, blur=0.5, sigma=(0.1, 1.0), solarise=0.3,
)  # fmt: skip
MAIN = ViewSpec(
    "main",
    16,
    3,
    photometric=CHANGES,
    mask=MaskSpec("random", (4, 4), 4, copies=3),
    stages=(
        StageSpec(20, 16, MaskSpec("random", (4, 4), 2, copies=3)),
        StageSpec(40, 24, MaskSpec("block", (6, 6), 9, 2, copies=3)),
    ),
)
LOCAL = ViewSpec("local/0", 8, 3, scale=(0.1, 0.3), photometric=CHANGES)
SPECS = (MAIN, LOCAL, replace(LOCAL, name="local/1"))


def encoded(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (30, 28, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views") / "shards"
    pack_samples([PackItem(f"face_{i:03d}", encoded(i), "png", {}) for i in range(COUNT)], folder, shard_size=10)
    return folder


def load(shards: Path, **changes: Any) -> Loader:
    data = DataConfig(streams=(StreamConfig(shards=str(shards)),), lanes=LANES)
    return build_loader(data, SPECS, **{"seed": 3, "batch_size": BATCH, "stop_step": STEPS, **changes})


def tensors(batch: Batch) -> Iterator[torch.Tensor]:
    for name in sorted(batch.views):
        yield batch.views[name].image
        visible = batch.views[name].visible
        if visible is not None:
            yield visible


def same(one: Batch, other: Batch) -> bool:
    return one.keys == other.keys and all(
        torch.equal(ours, theirs) for ours, theirs in zip(tensors(one), tensors(other), strict=True)
    )


@pytest.fixture(scope="module")
def whole(shards: Path) -> list[Batch]:
    return list(load(shards))


def test_shapes_follow_the_stage_of_the_step(whole: list[Batch]) -> None:
    sizes = [tuple(batch.views["main"].image.shape) for batch in whole]
    assert sizes == [(BATCH, 3, 16, 16)] * 5 + [(BATCH, 3, 24, 24)] * 3
    masks = [visible.shape for batch in whole if (visible := batch.views["main"].visible) is not None]
    assert masks == [(BATCH, 3, 4)] * 3 + [(BATCH, 3, 2)] * 2 + [(BATCH, 3, 9)] * 3
    assert all(batch.views["local/1"].image.shape == (BATCH, 3, 8, 8) for batch in whole)


@pytest.mark.parametrize("changes", [{"workers": 2}, {"start_step": 4}, {"start_step": 6}])
def test_neither_workers_nor_a_stop_change_anything(shards: Path, whole: list[Batch], changes: dict[str, int]) -> None:
    found = list(load(shards, **changes))
    assert len(found) == STEPS - changes.get("start_step", 0)
    assert all(same(one, other) for one, other in zip(whole[changes.get("start_step", 0) :], found, strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_processes_and_micro_batches_cut_the_same_views(shards: Path, whole: list[Batch], world: int) -> None:
    ranks = [list(load(shards, rank=rank, world=world)) for rank in range(world)]
    for step, batch in enumerate(whole):
        parts = [ranks[rank][step] for rank in range(world)]
        assert tuple(itertools.chain(*(part.keys for part in parts))) == batch.keys
        for cut in (parts, batch.split(world)):
            joined = map(torch.cat, zip(*(list(tensors(part)) for part in cut), strict=True))
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(joined, tensors(batch), strict=True))


def test_a_view_is_made_of_its_sample_alone(shards: Path, whole: list[Batch]) -> None:
    """The loader's views again, from the plan and the bare function."""
    loader = load(shards)
    for step in (0, 4, 7):
        for place, slot in enumerate(loader.plan.slots(step)):
            image = decode_image(encoded(int(whole[step].keys[place][-3:])), channels=3, name="")
            for spec in SPECS:
                pixels, visible = make_view(image, spec.at(step * BATCH), 3, slot.stream, slot.epoch, slot.sample)
                view = whole[step].views[spec.name]
                np.testing.assert_array_equal(view.image[place].numpy(), pixels)
                if visible is not None:
                    assert view.visible is not None
                    np.testing.assert_array_equal(view.visible[place].numpy(), visible)


def test_copies_differ_and_so_do_epochs_and_seeds(shards: Path, whole: list[Batch]) -> None:
    for batch in whole:
        first, second = (batch.views[f"local/{copy}"].image for copy in range(2))
        assert bool((first != second).flatten(1).any(dim=1).all())
    by_key: dict[str, list[bytes]] = {}
    for batch in whole:
        for place, key in enumerate(batch.keys):
            by_key.setdefault(key, []).append(batch.views["local/0"].image[place].numpy().tobytes())
    assert sum(len(views) for views in by_key.values()) - len(by_key) == (STEPS - 5) * BATCH  # five steps are an epoch
    assert all(len(set(views)) == len(views) for views in by_key.values())
    other = next(iter(load(shards, seed=4)))
    assert not torch.equal(other.views["local/0"].image, whole[0].views["local/0"].image)


def test_a_stage_changes_neither_crop_nor_flip_nor_colour() -> None:
    image = decode_image(encoded(0), channels=3, name="")
    plain = replace(MAIN, stages=(StageSpec(8, 16, MaskSpec("random", (4, 4), 1)),))
    for sample in range(5):
        before, _ = make_view(image, plain.at(0), 0, "faces", 0, sample)
        after, visible = make_view(image, plain.at(8), 0, "faces", 0, sample)
        np.testing.assert_array_equal(before, after)
        assert visible is not None
        assert visible.shape == (1,)
