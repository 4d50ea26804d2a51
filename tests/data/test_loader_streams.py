"""Views of some streams: rows of their samples alone, the same however a batch is read and cut."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from facemae.config import DataConfig, StreamConfig
from facemae.data.loader import build_loader
from facemae.data.pack import PackItem, pack_samples
from facemae.data.schema import Batch, ClipSpec, MaskSpec, SoundSpec, ViewSpec
from facemae.errors import ConfigError, DataError
from facemae.train.processes.process_group import OneProcess
from facemae.train.record.audit import consumed
from tests.data.test_loader_clips import LONG, MEL, SIDE, equal, members, write

CLIPS = ViewSpec(
    "clips", SIDE, 3, clip=ClipSpec(4, 0.16), streams=("film",), mask=MaskSpec("random", (4, 4), 9, steps=2)
)
STILLS = ViewSpec("stills", SIDE, 3, streams=("photo",), mask=MaskSpec("random", (4, 4), 3))
WHOLE = ViewSpec("whole", SIDE, 3)
SOUND = SoundSpec("voice", "clips", 64, MEL, MaskSpec("random", (8, 1), 3))

Sets = tuple[Path, Path]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    folder = tmp_path_factory.mktemp("streams")
    film = write(
        folder / "film", {f"clip{number}": members(LONG - number, sound=number % 3 > 0) for number in range(8)}
    )
    items = []
    for number in range(16):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        items.append(PackItem(f"face{number}", buffer.getvalue(), "png", {}))
    pack_samples(items, folder / "photo", shard_size=8)
    return film, folder / "photo"


def load(sets: Sets, *views: ViewSpec, **changes: Any) -> list[Batch]:
    streams = [StreamConfig(name=name, shards=str(path)) for name, path in zip(("film", "photo"), sets, strict=True)]
    data = DataConfig(streams=(streams[0], streams[1].model_copy(update={"share": 2})), lanes=2)
    settings = {"seed": 0, "batch_size": 12, "stop_step": 3, "sounds": [SOUND], **changes}
    return list(build_loader(data, views or [CLIPS, STILLS, WHOLE], **settings))


def test_a_view_has_rows_of_its_streams_alone(sets: Sets) -> None:
    for batch in load(sets):
        assert [len(batch.views[name].image) for name in ("clips", "stills", "whole")] == [4, 8, 12]
        assert batch.rows("whole") is None
        for name, stream in (("clips", "film"), ("stills", "photo"), ("voice", "film")):
            rows = batch.rows(name)
            assert rows is not None
            assert rows.tolist() == [slot for slot, found in enumerate(batch.streams) if found == stream]
        sound = batch.sounds["voice"]
        assert sound.mel.shape == (4, 64, 8)
        keys = [batch.keys[row] for row in batch.rows("clips").tolist()]  # type: ignore[union-attr]
        assert sound.present.tolist() == [int(key[4:]) % 3 > 0 for key in keys]
        assert batch.tensors()[-1] is sound.rows


def test_its_pixels_and_masks_are_those_that_a_view_of_all_would_have(sets: Sets) -> None:
    """What is drawn for a sample knows nothing of the others."""
    everywhere = ViewSpec("stills", SIDE, 3, mask=STILLS.mask)
    for part, whole in zip(load(sets), load(sets, CLIPS, everywhere), strict=True):
        rows = part.rows("stills")
        assert rows is not None
        assert torch.equal(part.views["stills"].image, whole.views["stills"].image[rows])
        given, seen = part.views["stills"].visible, whole.views["stills"].visible
        assert given is not None
        assert seen is not None
        assert torch.equal(given, seen[rows])


def test_batches_are_the_same_with_workers_in_parts_and_from_the_middle(sets: Sets) -> None:
    whole = load(sets)
    for other in (load(sets, workers=2), [*whole[:1], *load(sets, start_step=1)]):
        assert all(equal(one, two) for one, two in zip(whole, other, strict=True))
    halves = [load(sets, rank=rank, world=2) for rank in range(2)]
    for step, one in enumerate(whole):
        for rank, part in enumerate(one.split(2)):
            assert equal(part, halves[rank][step])


def test_parts_may_have_no_row_of_a_view(sets: Sets) -> None:
    (batch, *_) = load(sets)
    parts = batch.split(12)
    assert [len(part.views["clips"].image) for part in parts] == [int(name == "film") for name in batch.streams]
    for part in parts:
        assert len(part.views["clips"].image) + len(part.views["stills"].image) == 1
        assert all(rows.tolist() in ([], [0]) for name in ("clips", "stills") if (rows := part.rows(name)) is not None)


def test_some_samples_keep_their_rows(sets: Sets) -> None:
    (batch, *_) = load(sets)
    chosen = [1, 4, 5, 11]
    few = batch.of(chosen)
    assert few.keys == tuple(batch.keys[sample] for sample in chosen)
    for name, view in few.views.items():
        for place, sample in enumerate(chosen):
            mine, theirs = view.row(place), batch.views[name].row(sample)
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                assert torch.equal(view.image[mine], batch.views[name].image[theirs])


def test_the_audit_tells_each_samples_own_views(sets: Sets) -> None:
    batch = load(sets)[0]
    alone = consumed(batch, OneProcess())
    assert alone == consumed(load(sets)[0], OneProcess())
    batch.views["stills"].image[-1] += 1
    assert alone.views != consumed(batch, OneProcess()).views


def test_a_view_that_a_stream_cannot_give_is_an_error_before_the_first_batch(sets: Sets) -> None:
    wrong = ViewSpec("clips", SIDE, 3, clip=ClipSpec(4, 0.16))
    with pytest.raises(DataError) as caught:
        load(sets, wrong, STILLS, stop_step=0)
    message = "view 'clips' is made of stream 'photo', whose samples have only json, png"
    assert message in str(caught.value)
    assert "name in views.clips.streams those that it can be made of" in str(caught.value)


def test_region_maps_are_asked_of_a_views_own_streams_alone(sets: Sets) -> None:
    guided = replace(STILLS, mask=MaskSpec("region", (4, 4), 3))
    with pytest.raises(ConfigError, match="the shards of stream 'photo'"):
        load(sets, CLIPS, guided, stop_step=0)
