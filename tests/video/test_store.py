"""Storing clips, and reading single frames of them."""

import io
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import simplejpeg

from facemae.errors import DataError, DecodeError
from facemae.rng import generator
from facemae.video.decoding import decoded_frames
from facemae.video.read import open_clip
from facemae.video.source import VideoSource
from facemae.video.store import Storage, write_clip
from tests.video.conftest import Pixels, number_of, numbered, write_video

SIDE, COUNT = 48, 30

STORAGES = {
    "mjpeg": Storage("mjpeg"),
    "mjpeg-444": Storage("mjpeg", quality=95, chroma="444"),
    "mp4": Storage("mp4"),
    "mp4-long": Storage("mp4", gop=250, crf=10),
}


@dataclass(frozen=True)
class Stored:
    """A clip before and after."""

    frames: Pixels
    data: bytes
    sizes: tuple[int, ...] | None
    storage: Storage


def moving(count: int = COUNT, side: int = SIDE) -> Pixels:
    """Smooth colours that drift, with the frame's number in the brightness of a corner."""
    wide = generator(0, "colours").integers(30, 220, (8, 8, 3)).astype(np.float64)
    rows = np.kron(wide, np.ones((side // 4, side // 4, 1)))
    smooth = np.stack([np.roll(rows, shift, axis=axis) for axis in (0, 1) for shift in range(side // 4)]).mean(axis=0)
    clip = np.stack([np.roll(smooth, 2 * number, axis=1)[:side, :side] for number in range(count)]).astype(np.uint8)
    clip[:, : side // 3, : side // 3] = (20 + 6 * np.arange(count))[:, None, None, None]
    return clip


@pytest.fixture(scope="module")
def stored() -> Callable[[str], Stored]:
    """A clip in a storage of `STORAGES`, written once."""
    made: dict[str, Stored] = {}

    def make(kind: str) -> Stored:
        if kind not in made:
            frames, target = moving(), io.BytesIO()
            written = write_clip(iter(frames), target, fps=25, storage=STORAGES[kind])
            assert (written.count, written.size) == (COUNT, len(target.getvalue()))
            made[kind] = Stored(frames, target.getvalue(), written.sizes, STORAGES[kind])
        return made[kind]

    return make


Make = Callable[[str], Stored]


@pytest.mark.parametrize("kind", STORAGES)
def test_a_stored_clip_comes_back(kind: str, stored: Make) -> None:
    clip = stored(kind)
    opened = open_clip(clip.data, clip.storage.kind, sizes=clip.sizes, name="x")
    assert opened.count == COUNT
    found = opened.frames(range(COUNT))
    assert (found.shape, str(found.dtype)) == (clip.frames.shape, "uint8")
    difference = found.astype(int) - clip.frames
    assert np.abs(difference).mean() < 6  # strong colours at half their resolution
    assert abs(difference.mean()) < 0.3  # no shift by a wrong matrix or range
    corner = found[:, 4:12, 4:12].mean(axis=(1, 2, 3))
    assert corner == pytest.approx(20 + 6 * np.arange(COUNT), abs=2)


@pytest.mark.parametrize("kind", STORAGES)
def test_the_same_frames_give_the_same_bytes(kind: str, stored: Make) -> None:
    clip, frames, held = stored(kind), moving(), []
    for again in range(30):  # each among other memory: where that decided, a few in a hundred differed
        target = io.BytesIO()
        write_clip(iter(frames), target, fps=25, storage=clip.storage)
        assert target.getvalue() == clip.data
        held.append(generator(again, "memory").bytes(1000 * (again + 1)))
    for name in (b"Lavf", b"Lavc"):
        assert name not in clip.data


@pytest.mark.parametrize("kind", STORAGES)
@pytest.mark.parametrize("channels", [3, 1])
def test_frames_read_alone_equal_those_read_in_a_row(kind: str, channels: int, stored: Make) -> None:
    clip = stored(kind)
    every = open_clip(clip.data, clip.storage.kind, sizes=clip.sizes, name="x").frames(range(COUNT), channels)
    assert every.shape[3] == channels
    opened = open_clip(clip.data, clip.storage.kind, sizes=clip.sizes, name="x")
    for indices in ([29], [0], [13], [12, 11], [3, 7, 11, 15], [28, 0, 28, 5, 5], [*range(1, 30, 4)]):
        assert np.array_equal(opened.frames(indices, channels), every[indices]), indices


@pytest.mark.parametrize("kind", ["mjpeg", "mp4"])
def test_grey_is_the_luma_of_the_colours(kind: str, stored: Make) -> None:
    clip = stored(kind)
    opened = open_clip(clip.data, kind, sizes=clip.sizes, name="x")
    luma = opened.frames([3, 9]) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(opened.frames([3, 9], channels=1)[..., 0] - luma).mean() < 1.5


def test_the_frames_of_an_mjpeg_are_found_without_their_sizes(stored: Make) -> None:
    clip = stored("mjpeg")
    assert clip.sizes is not None
    opened = open_clip(clip.data, "mjpeg", name="x")
    assert opened.count == COUNT
    sized = open_clip(clip.data, "mjpeg", sizes=clip.sizes, name="x")
    assert np.array_equal(opened.frames(range(COUNT)), sized.frames(range(COUNT)))


def test_borders_are_found_in_any_kind_of_jpeg() -> None:
    """Progressive ones have several scans; a thumbnail inside one is no frame."""
    from PIL import Image

    image, thumbnail = Image.fromarray(moving(1)[0]), io.BytesIO()
    image.save(thumbnail, "jpeg")
    target, sizes = io.BytesIO(), []
    for options in (
        {"progressive": True},
        {"restart_marker_blocks": 2},
        {"exif": b"Exif\x00\x00" + thumbnail.getvalue()},
        {"quality": 100, "subsampling": 0},
    ):
        before = target.tell()
        image.save(target, "jpeg", **options)
        sizes.append(target.tell() - before)
    found = open_clip(target.getvalue(), "mjpeg", name="x")
    sized = open_clip(target.getvalue(), "mjpeg", sizes=sizes, name="x")
    assert found.count == 4
    assert np.array_equal(found.frames(range(4)), sized.frames(range(4)))


def test_ffmpeg_plays_both(stored: Make) -> None:
    av = pytest.importorskip("av")
    for kind in ("mjpeg", "mp4"):
        with av.open(io.BytesIO(stored(kind).data), format=kind) as container:
            assert sum(1 for _ in container.decode(video=0)) == COUNT


def test_an_mp4_starts_fast_and_has_key_frames(stored: Make) -> None:
    av = pytest.importorskip("av")
    data = stored("mp4").data
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.codec_context.pix_fmt) == (25, "yuv420p")
        keys = [packet.is_keyframe for packet in container.demux(stream) if packet.size]
    assert [number for number, key in enumerate(keys) if key] == [0, 12, 24]


def test_a_fractional_rate_is_kept() -> None:
    av = pytest.importorskip("av")
    target = io.BytesIO()
    write_clip(moving(5), target, fps=30000 / 1001, storage=Storage("mp4"))
    with av.open(io.BytesIO(target.getvalue())) as container:
        assert container.streams.video[0].average_rate.as_integer_ratio() == (30000, 1001)


def test_a_clip_is_written_where_the_target_stands(stored: Make) -> None:
    for kind in ("mjpeg", "mp4"):
        target = io.BytesIO(b"before")
        target.seek(6)
        write_clip(moving(), target, fps=25, storage=STORAGES[kind])
        assert target.getvalue() == b"before" + stored(kind).data


def test_frames_are_encoded_as_they_come() -> None:
    """Each frame has been written when the next one is asked for."""
    target = io.BytesIO()
    filled = []

    def source() -> Iterator[Pixels]:
        for frame in moving(6):
            filled.append(target.tell())
            yield frame

    write_clip(source(), target, fps=25, storage=Storage("mjpeg"))
    assert all(after > before for before, after in itertools.pairwise(filled))


def test_other_mp4_files_are_read_from_their_start(tmp_path: Path) -> None:
    """With frames in another order than their packets."""
    path = write_video(tmp_path / "x.mp4", numbered(20), codec="h264")
    with VideoSource(path) as source:
        every = np.stack([frame.image for frame in source])
    opened = open_clip(path.read_bytes(), "mp4", name="x")
    assert opened.count == 20
    assert np.array_equal(opened.frames([17, 2, 9]), every[[17, 2, 9]])


def test_damage_in_an_mjpeg_names_sample_and_frame(stored: Make) -> None:
    clip = stored("mjpeg")
    assert clip.sizes is not None
    at = sum(clip.sizes[:8]) - 300
    damaged = clip.data[:at] + b"\xff\xd9" + clip.data[at + 2 :]
    opened = open_clip(damaged, "mjpeg", sizes=clip.sizes, name="s1/x")
    assert opened.frames([6, 8]).shape[0] == 2
    with pytest.raises(DecodeError, match=r"s1/x: frame 7 of the clip does not decode: .+"):
        opened.frames([7])
    with pytest.raises(
        DecodeError, match=r"s1/x: its metadata speaks of 30 frames of \d+ bytes together, the clip has"
    ):
        open_clip(clip.data[:-5], "mjpeg", sizes=clip.sizes, name="s1/x")
    with pytest.raises(DecodeError, match="s1/x: a JPEG of the clip has no end"):
        open_clip(clip.data[:-5], "mjpeg", name="s1/x")
    with pytest.raises(DecodeError, match=r"s1/x: no JPEG starts at byte 0 of 80"):
        open_clip(b"no jpeg " * 10, "mjpeg", name="s1/x")


def test_damage_in_an_mp4_names_the_sample(stored: Make) -> None:
    data = stored("mp4").data
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 2
    damaged = data[:middle] + bytes(400) + data[middle + 400 :]
    opened = open_clip(damaged, "mp4", name="s1/x")
    assert opened.frames([0, 1]).shape[0] == 2
    with pytest.raises(DecodeError, match=r"s1/x: (the clip|frame \d+ of the clip) does not decode"):
        opened.frames(range(COUNT))
    with pytest.raises(DecodeError, match=r"s1/x: (the clip|frame \d+ of the clip) does not decode"):
        open_clip(data[: len(data) * 3 // 4], "mp4", name="s1/x").frames(range(COUNT))
    with pytest.raises(DecodeError, match=r"s1/x: (no video file|holds no video stream)"):
        open_clip(data[:100], "mp4", name="s1/x")


def test_frames_of_different_sizes_are_no_clip() -> None:
    parts = [simplejpeg.encode_jpeg(np.zeros((side, side, 3), np.uint8)) for side in (16, 32)]
    opened = open_clip(b"".join(parts), "mjpeg", sizes=[len(part) for part in parts], name="x")
    with pytest.raises(DecodeError, match="x: its frames have different sizes"):
        opened.frames([0, 1])


@pytest.mark.parametrize("kind", ["mjpeg", "mp4"])
def test_wrong_questions(kind: str, stored: Make) -> None:
    clip = stored(kind)
    opened = open_clip(clip.data, kind, sizes=clip.sizes, name="x")
    for wrong in (-1, COUNT):
        with pytest.raises(IndexError, match=f"a clip that has {COUNT}"):
            opened.frames([0, wrong])
    with pytest.raises(ValueError, match="no frames are asked for"):
        opened.frames([])
    with pytest.raises(ValueError, match="channels is 2"):
        opened.frames([0], channels=2)
    with pytest.raises(DecodeError, match="x: the clip has zero bytes"):
        open_clip(b"", kind, name="x")
    with pytest.raises(DataError, match="x: a clip is stored as 'gif'"):
        open_clip(clip.data, "gif", name="x")


def test_what_cannot_be_stored() -> None:
    def write(frames: Any, storage: Storage, fps: float = 25) -> None:
        write_clip(frames, io.BytesIO(), fps=fps, storage=storage)

    for storage in (Storage("mjpeg"), Storage("mp4")):
        with pytest.raises(DataError, match="a clip without frames cannot be stored"):
            write([], storage)
        with pytest.raises(DataError, match=r"frame 1 is \[16, 16, 3\], the first was \[32, 32, 3\]"):
            write([np.zeros((side, side, 3), np.uint8) for side in (32, 16)], storage)
        with pytest.raises(DataError, match=r"frames are float64 \[32, 32, 3\]"):
            write([np.zeros((32, 32, 3))], storage)
        with pytest.raises(DataError, match="a clip of 0 frames a second cannot be stored"):
            write(moving(1), storage, fps=0)
    with pytest.raises(DataError, match="frames of 33 x 33 pixels cannot be stored as mp4") as caught:
        write([np.zeros((33, 33, 3), np.uint8)], Storage("mp4"))
    assert caught.value.fix == "choose an even size, or store as mjpeg"
    for wrong, message in (
        ({"kind": "gif"}, "no way to store clips is called 'gif'"),
        ({"chroma": "422"}, "chroma is '422'"),
        ({"quality": 0}, "quality of stored clips is 0"),
        ({"crf": 52}, "crf of stored clips is 52"),
        ({"gop": 0}, "gop of stored clips is 0"),
    ):
        with pytest.raises(DataError, match=message):
            Storage(**cast("dict[str, Any]", wrong))


def test_mp4_needs_no_file_besides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: Make) -> None:
    """A pack that is killed would leave it behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    target = io.BytesIO()
    write_clip(moving(), target, fps=25, storage=STORAGES["mp4"])
    assert target.getvalue() == stored("mp4").data


@pytest.mark.parametrize("kind", ["mjpeg", "mp4"])
def test_all_frames_one_after_the_other(kind: str, stored: Make) -> None:
    clip = stored(kind)
    opened = open_clip(clip.data, kind, sizes=clip.sizes, name="x")
    assert np.array_equal(np.stack(list(opened.every())), opened.frames(range(COUNT)))
    assert opened.fps == (25 if kind == "mp4" else None)


def test_of_other_mp4_files_every_frame_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def counted(*arguments: Any) -> Iterator[Any]:
        for frame in decoded_frames(*arguments):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr("facemae.video.read.decoded_frames", counted)
    data = write_video(tmp_path / "x.mp4", numbered(20), codec="h264", rate=50).read_bytes()
    opened = open_clip(data, "mp4", name="x")
    assert opened.fps == 50
    counting = len(decoded)
    assert [number_of(frame) for frame in opened.every()] == list(range(20))
    assert len(decoded) - counting == 20


@pytest.mark.parametrize("channels", [3, 1])
def test_other_mp4_files_are_upright_with_square_pixels(channels: int, tmp_path: Path) -> None:
    def prepare(stream: Any) -> None:
        stream.set_display_rotation(-90)
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)

    upright = numbered(3)[2]
    path = write_video(tmp_path / "x.mp4", [np.ascontiguousarray(np.rot90(upright))], prepare=prepare)
    (found,) = open_clip(path.read_bytes(), "mp4", name="x").frames([0], channels)
    # Stored 48 wide and 64 high; 70 wide with square pixels; then a quarter turn.
    assert found.shape == (70, 64, channels)
    assert number_of(found[11:-11]) == 2
