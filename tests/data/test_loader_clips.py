"""Views of clips and the sound beneath them: a pure function of seed, sample, epoch and moment."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facemae.config import DataConfig, MelSettings, StreamConfig
from facemae.data.index import build_index
from facemae.data.loader import build_loader
from facemae.data.material import Material
from facemae.data.schema import Batch, ClipSpec, PhotometricSpec, Sample, SoundSpec, ViewSpec
from facemae.data.shard_writer import ShardWriter
from facemae.errors import DataError, DecodeError
from facemae.sound import store
from facemae.video.store import Storage, write_clip

SIDE, RATE = 16, 8000
MEL = MelSettings(rate=RATE, mels=8, pad="floor")
VIEW = ViewSpec("main", SIDE, 3, crop="resize", flip=False, clip=ClipSpec(4, 0.16))
SOUND = SoundSpec("sound", "main", 64, MEL)
LONG = 40
"""Frames of the longest clip; frame k has brightness 4 k."""


def clip(count: int, kind: str = "mjpeg") -> tuple[bytes, dict[str, Any]]:
    frames = [np.full((SIDE, SIDE, 3), 4 * number, np.uint8) for number in range(count)]
    target = io.BytesIO()
    storage = Storage("mjpeg", quality=100) if kind == "mjpeg" else Storage("mp4", crf=1)
    written = write_clip(frames, target, fps=25, storage=storage)
    facts: dict[str, Any] = {"fps": 25.0, "frames": count}
    return target.getvalue(), facts if written.sizes is None else {**facts, "sizes": list(written.sizes)}


def ramp(seconds: float) -> np.ndarray:
    """A tone that grows with time, so that a window tells where it lies."""
    times = np.arange(round(seconds * RATE)) / RATE
    return (times / 2 * np.sin(2 * np.pi * 500 * times)).astype(np.float32)


def members(count: int, *, kind: str = "mjpeg", sound: bool = True) -> dict[str, bytes]:
    data, facts = clip(count, kind)
    found = {kind: data, "json": json.dumps({"clip": facts, "split": "train"}).encode()}
    return {**found, **({"flac": store.encode(ramp(count / 25), RATE)} if sound else {})}


def write(folder: Path, samples: Mapping[str, Mapping[str, bytes]]) -> Path:
    folder.mkdir()
    writer = ShardWriter(folder, 100)
    for key, found in samples.items():
        writer.write(key, dict(found))
    writer.close()
    build_index(folder)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = {f"clip{number}": members(LONG - number) for number in range(6)}
    made["mp4"] = members(LONG, kind="mp4")
    made["mute"] = members(LONG, sound=False)
    return write(tmp_path_factory.mktemp("clips") / "shards", made)


def load(shards: Path, *views: ViewSpec, **changes: Any) -> list[Batch]:
    data = DataConfig(streams=(StreamConfig(shards=str(shards)),), lanes=changes.pop("lanes", 2))
    settings = {"seed": 0, "batch_size": 4, "stop_step": 6, "sounds": [SOUND], **changes}
    return list(build_loader(data, views or [VIEW], **settings))


def numbers(view: torch.Tensor) -> list[int]:
    """Which frames a view of one sample shows."""
    return [round(float(frame.float().mean()) / 4) for frame in view]


def equal(one: Batch, other: Batch) -> bool:
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return one.keys == other.keys and all(torch.equal(a, b) for a, b in pairs)


def test_frames_are_taken_at_the_wanted_rate(shards: Path) -> None:
    starts = set()
    for batch in load(shards):
        assert batch.views["main"].image.shape == (4, 4, 3, SIDE, SIDE)
        for key, view in zip(batch.keys, batch.views["main"].image, strict=True):
            found = numbers(view)
            assert np.diff(found).tolist() == [4, 4, 4]
            # The window is four times 0.16 s: sixteen stored frames, the last of which stand for what passes after it.
            length = LONG - int(key[4:]) if key.startswith("clip") else LONG
            assert 0 <= found[0] <= length - 16
            starts.add(found[0])
    assert len(starts) > 5


def test_a_clip_stored_at_another_rate_is_read_by_time(tmp_path: Path) -> None:
    data, facts = clip(LONG)
    made = {"a": {"mjpeg": data, "json": json.dumps({"clip": {**facts, "fps": 50.0}}).encode()}}
    (batch,) = load(write(tmp_path / "s", made), lanes=1, batch_size=1, stop_step=1, sounds=())
    assert np.diff(numbers(batch.views["main"].image[0])).tolist() == [8, 8, 8]


def test_the_sound_lies_beneath_the_frames(shards: Path) -> None:
    louder = []
    for batch in load(shards):
        for place, key in enumerate(batch.keys):
            if key != "mute":
                mel = batch.sounds["sound"].mel[place]
                louder.append((numbers(batch.views["main"].image[place])[0], float(mel[:60].max())))
    louder.sort()
    # The tone grows with time: a later window is louder.
    loudness = [level for _, level in louder]
    assert np.corrcoef(np.arange(len(louder)), loudness)[0, 1] > 0.9
    assert loudness[-1] > loudness[0] + 0.01


def test_a_sample_without_sound_is_marked(shards: Path) -> None:
    seen = False
    for batch in load(shards):
        for place, key in enumerate(batch.keys):
            assert bool(batch.sounds["sound"].present[place]) == (key != "mute")
            if key == "mute":
                seen = True
                assert not batch.sounds["sound"].mel[place].any()
    assert seen


def test_batches_are_the_same_with_workers_in_parts_and_from_the_middle(shards: Path) -> None:
    whole = load(shards)
    for one, other in zip(whole, load(shards, workers=2), strict=True):
        assert equal(one, other)
    for one, other in zip(whole[3:], load(shards, start_step=3), strict=True):
        assert equal(one, other)
    halves = [load(shards, rank=rank, world=2) for rank in range(2)]
    for step, one in enumerate(whole):
        for rank, part in enumerate(one.split(2)):
            assert equal(part, halves[rank][step])


def test_views_of_one_moment_begin_together(shards: Path) -> None:
    same = ViewSpec("same", SIDE, 3, crop="resize", flip=False, clip=ClipSpec(4, 0.16))
    other = ViewSpec("other", SIDE, 3, crop="resize", flip=False, clip=ClipSpec(4, 0.16, moment="other"))
    differ = 0
    for batch in load(shards, VIEW, same, other):
        for place in range(len(batch)):
            main, together, apart = (numbers(batch.views[name].image[place]) for name in ("main", "same", "other"))
            assert main == together
            differ += main != apart
    assert differ > 5


def test_without_a_moment_each_view_begins_by_itself(shards: Path) -> None:
    """Copies of a view too; the sound lies beneath the one that it names."""
    alone = ClipSpec(4, 0.16, moment=None)
    views = [ViewSpec(name, SIDE, 3, crop="resize", flip=False, clip=alone) for name in ("main", "main/0", "main/1")]
    differ = [0, 0]
    for batch, same in zip(load(shards, *views), load(shards, views[0]), strict=True):
        found = [[numbers(view) for view in batch.views[spec.name].image] for spec in views]
        assert torch.equal(batch.views["main"].image, same.views["main"].image)
        assert torch.equal(batch.sounds["sound"].mel, same.sounds["sound"].mel)
        for place in range(len(batch)):
            differ[0] += found[0][place] != found[1][place]
            differ[1] += found[1][place] != found[2][place]
    assert min(differ) > 5


def test_all_frames_are_changed_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    target = io.BytesIO()
    write_clip([picture] * 20, target, fps=25, storage=Storage(quality=95))
    shards = write(tmp_path / "s", {"a": {"mjpeg": target.getvalue(), "json": b"{}"}})
    changes = PhotometricSpec(colour=1.0, brightness=(0.5, 1.5), contrast=(0.5, 1.5), hue=(-0.3, 0.3), blur=0.5)
    view = ViewSpec("main", SIDE, 3, scale=(0.2, 0.6), photometric=changes, clip=ClipSpec(4, 0.16))
    seen = set()
    for batch in load(shards, view, lanes=1, batch_size=1, stop_step=8, sounds=()):
        frames = batch.views["main"].image[0]
        assert all(torch.equal(frame, frames[0]) for frame in frames)
        seen.add(frames[0].numpy().tobytes())
    assert len(seen) == 8


def test_a_picture_of_a_clip_is_one_of_its_frames(shards: Path) -> None:
    still = ViewSpec("main", SIDE, 3, crop="resize", flip=False)
    found = set()
    for batch in load(shards, still, sounds=[]):
        assert batch.views["main"].image.shape == (4, 3, SIDE, SIDE)
        found |= set(numbers(batch.views["main"].image))
    assert len(found) > 10


@pytest.fixture
def short(tmp_path: Path) -> Path:
    return write(tmp_path / "short", {"long0": members(LONG), "long1": members(LONG), "short": members(6)})


def test_a_clip_shorter_than_the_window_holds_its_last_frame(short: Path) -> None:
    batches = load(short, lanes=1, batch_size=3, stop_step=1)
    place = batches[0].keys.index("short")
    assert numbers(batches[0].views["main"].image[place]) == [0, 4, 5, 5]


def test_clips_whose_last_frame_is_held_are_counted(short: Path) -> None:
    (batch,) = load(short, lanes=1, batch_size=3, stop_step=1)
    assert batch.held == {"main": 1}
    view = ViewSpec("main", SIDE, 3, crop="resize", flip=False, clip=ClipSpec(2, 0.04))
    (batch,) = load(short, view, lanes=1, batch_size=3, stop_step=1)
    assert batch.held == {}


def test_a_view_may_refuse_short_clips(short: Path) -> None:
    view = ViewSpec("main", SIDE, 3, crop="resize", flip=False, clip=ClipSpec(4, 0.16, hold=False))
    (batch,) = load(short, view, lanes=1, batch_size=3, stop_step=1)
    (replaced,) = batch.replaced
    assert (replaced.requested, replaced.used in ("long0", "long1")) == ("short", True)
    assert "a clip of 0.24 s, and a view of 0.52 s" in replaced.reason


@pytest.mark.parametrize("extension", ["mjpeg", "flac"])
def test_a_damaged_clip_or_sound_is_replaced_and_named(tmp_path: Path, extension: str) -> None:
    made = {"good": members(LONG), "bad": members(LONG)}
    data = bytearray(made["bad"][extension])
    data[len(data) // 3 :: 7] = b"\x55" * len(data[len(data) // 3 :: 7])
    made["bad"][extension] = bytes(data)
    (batch,) = load(write(tmp_path / "s", made), lanes=1, batch_size=2, stop_step=1)
    assert batch.keys == ("good", "good")
    assert [(entry.requested, entry.used) for entry in batch.replaced] == [("bad", "good")]


def test_a_still_is_no_clip(tmp_path: Path) -> None:
    data, _facts = clip(1)
    still = {"jpg": data, "json": b"{}"}
    with pytest.raises(DataError, match="made of stream 'faces', whose samples have only jpg, json") as caught:
        load(write(tmp_path / "stills", {"still": still}), lanes=1, batch_size=1, stop_step=1)
    assert "take `clip` out of the view" in str(caught.value)
    mixed = write(tmp_path / "mixed", {"still": still, "clip": members(LONG)})
    with pytest.raises(DataError, match="sample still has no clip, only jpg") as caught:
        load(mixed, lanes=1, batch_size=2, stop_step=1)
    assert "take `clip` out of the view" in str(caught.value)


def test_a_sound_that_no_sample_has_is_refused(tmp_path: Path) -> None:
    mute = write(tmp_path / "mute", {"a": members(LONG, sound=False)})
    with pytest.raises(
        DataError, match="sound 'sound' is heard beneath view 'main', and no sample of 'faces' has sound"
    ):
        load(mute, lanes=1, batch_size=1, stop_step=1)
    # One sample with sound is enough: the others count for nothing in what hears.
    some = write(tmp_path / "some", {"a": members(LONG, sound=False), "b": members(LONG)})
    (batch,) = load(some, lanes=1, batch_size=2, stop_step=1)
    assert sorted(batch.sounds["sound"].present.tolist()) == [False, True]


def test_a_clip_without_known_sizes_is_read_all_the_same(shards: Path, tmp_path: Path) -> None:
    """Shards that others wrote: a member of JPEG frames and nothing else."""
    data, _ = clip(LONG)
    plain = write(tmp_path / "s", {"a": {"mjpeg": data}})
    (batch,) = load(plain, lanes=1, batch_size=1, stop_step=1, sounds=())
    assert np.diff(numbers(batch.views["main"].image[0])).tolist() == [4, 4, 4]


def test_shards_of_clips_are_plain_webdataset(shards: Path) -> None:
    with tarfile.open(next(shards.glob("*.tar"))) as tar:
        names = [name for name in tar.getnames() if name.startswith("clip0.")]
    assert names == ["clip0.mjpeg", "clip0.json", "clip0.flac"]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"fps": "abc"}, "one: clip.fps of its metadata is 'abc'"),
        ({"fps": float("nan")}, "one: clip.fps of its metadata is nan"),
        ({"fps": 0}, "one: clip.fps of its metadata is 0"),
        ({"fps": -5}, "one: clip.fps of its metadata is -5"),
        ({"fps": 1e-300}, "one: clip.fps of its metadata is 1e-300"),
        ({"fps": True}, "one: clip.fps of its metadata is True"),
        ({"sizes": ["x"]}, "one: clip.sizes of its metadata is ['x']"),
        ({"sizes": 7}, "one: clip.sizes of its metadata is 7"),
        ({"sizes": [1.5] * 100}, "one: clip.sizes of its metadata is [1.5, 1.5"),
    ],
)
def test_malformed_metadata_is_damage_of_that_sample(facts: dict[str, Any], message: str) -> None:
    data, good = clip(20)
    material = Material(Sample("one", 0, {"mjpeg": data}, {"clip": {**good, **facts}}))
    with pytest.raises(DecodeError) as caught:
        material.frames(material.numbers(ClipSpec(4, 0.16), 0.5), 3)
    assert caught.value.found.startswith(message)
    assert len(caught.value.found) < 120
    with pytest.raises(DecodeError):
        list(material.check())


def test_a_sample_with_malformed_metadata_is_replaced(tmp_path: Path) -> None:
    bad = members(LONG, sound=False)
    bad["json"] = json.dumps({"clip": {"fps": "abc"}}).encode()
    (batch,) = load(write(tmp_path / "s", {"a": members(LONG), "bad": bad}), lanes=1, batch_size=2, stop_step=1)
    assert set(batch.keys) == {"a"}
    assert [(one.requested, one.reason) for one in batch.replaced] == [
        ("bad", "bad: clip.fps of its metadata is 'abc'")
    ]


def test_a_foreign_mp4_has_the_rate_of_its_header() -> None:
    target = io.BytesIO()
    frames = [np.full((SIDE, SIDE, 3), 4 * number, np.uint8) for number in range(LONG)]
    write_clip(frames, target, fps=50, storage=Storage("mp4", crf=1))
    material = Material(Sample("one", 0, {"mp4": target.getvalue()}, {}))
    assert material.fps == 50
    assert material.numbers(ClipSpec(4, 0.16), 0.0) == [0, 8, 16, 24]
    stated = Material(Sample("one", 0, {"mp4": target.getvalue()}, {"clip": {"fps": 25}}))
    assert stated.numbers(ClipSpec(4, 0.16), 0.0) == [0, 4, 8, 12]
    assert Material(Sample("one", 0, {"mjpeg": clip(LONG)[0]}, {})).fps == 25


def test_checking_holds_one_block_of_the_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    data, facts = clip(5)
    flac = store.encode(ramp(20.0), RATE)
    lengths = [len(block) for block in store.read_blocks(flac, name="one")]
    assert (len(lengths) > 1, sum(lengths), max(lengths)) == (True, 160_000, 1 << 16)
    material = Material(Sample("one", 0, {"mjpeg": data, "flac": flac}, {"clip": facts}))
    monkeypatch.setattr(store, "read_window", None)
    assert len(list(material.check())) == 5
    broken = Material(Sample("one", 0, {"mjpeg": data, "flac": flac[: len(flac) // 2]}, {"clip": facts}))
    with pytest.raises(DecodeError, match="one: the sound does not decode"):
        list(broken.check())
