"""Video files as frames with times."""

import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facemae.errors import DecodeError, MissingExtraError, StorageError
from facemae.rng import generator
from facemae.video.rate import at_rate
from facemae.video.source import VideoSource
from tests.video.conftest import CODECS, HEIGHT, KINDS, WIDTH, Pixels, number_of, numbered, write_video

Videos = Callable[[str], Path]

QUARTERS: Pixels = np.kron(
    np.array([[[220, 30, 30], [30, 220, 30]], [[30, 30, 220], [220, 220, 220]]], np.uint8),
    np.ones((HEIGHT // 2, WIDTH // 2, 1), np.uint8),
).astype(np.uint8)


def read(path: Path) -> tuple[list[int], list[float], VideoSource]:
    """Numbers that the images carry, times, and the source; the frames' own numbers are checked."""
    with VideoSource(path) as source:
        frames = list(source)
        assert [frame.number for frame in frames] == list(range(len(frames)))
        return [number_of(frame.image) for frame in frames], [frame.time for frame in frames], source


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_comes_in_order_at_its_time(kind: str, videos: Videos) -> None:
    numbers, times, source = read(videos(kind))
    assert numbers == list(range(20))
    assert times == pytest.approx([number / 25 for number in range(20)], abs=0.0006)
    assert (source.info.width, source.info.height, source.info.rotation) == (WIDTH, HEIGHT, 0)
    assert source.info.fps == pytest.approx(25, abs=0.01)
    assert not source.info.has_sound
    assert (source.damage, source.repaired) == (None, 0)


def test_content_decides_what_a_file_is(videos: Videos, tmp_path: Path) -> None:
    path = shutil.copy(videos("vp9.webm"), tmp_path / "x.mp4")
    numbers, _, source = read(Path(path))
    assert numbers == list(range(20))
    assert (source.info.codec, source.info.container) == ("vp9", "matroska,webm")


def test_a_name_with_a_colon_is_a_file(videos: Videos, tmp_path: Path) -> None:
    path = shutil.copy(videos("h264.mp4"), tmp_path / "http:clip.mp4")
    assert read(Path(path))[0] == list(range(20))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_rotated_video_is_upright(suffix: str, turn: int, tmp_path: Path) -> None:
    """The file holds the picture as a turned camera saw it, and says so."""
    stored = np.ascontiguousarray(np.rot90(QUARTERS, turn // 90))
    path = write_video(tmp_path / f"x.{suffix}", [stored], prepare=lambda stream: stream.set_display_rotation(-turn))
    check_upright(path, turn, QUARTERS)


def test_a_mirrored_video_is_upright(tmp_path: Path) -> None:
    def prepare(stream: Any) -> None:
        stream.set_display_rotation(0, hflip=True)

    path = write_video(tmp_path / "x.mp4", [np.ascontiguousarray(QUARTERS[:, ::-1])], prepare=prepare)
    assert check_upright(path, 0, QUARTERS).mirrored


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_the_tag_rotate_is_honoured(turn: int, tmp_path: Path) -> None:
    stored = np.ascontiguousarray(np.rot90(QUARTERS, turn // 90))
    path = write_video(
        tmp_path / "x.mkv", [stored], prepare=lambda stream: stream.metadata.update({"rotate": str(turn)})
    )
    check_upright(path, turn, QUARTERS)


def check_upright(path: Path, turn: int, expected: Pixels) -> Any:
    with VideoSource(path) as source:
        (frame,) = source
        assert (source.info.width, source.info.height, source.info.rotation) == (WIDTH, HEIGHT, turn)
    assert frame.image.shape == expected.shape
    assert frame.image.flags.c_contiguous
    difference = np.abs(frame.image.astype(int) - expected)
    assert difference.mean() < 8  # edges between the colours are smeared; another turn differs by 80
    return source.info


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_gives_the_true_times(suffix: str, tmp_path: Path) -> None:
    stamps = [0, 40, 50, 200, 233, 267, 300, 900, 901, 1500]
    path = write_video(tmp_path / f"x.{suffix}", numbered(10), codec="h264", stamps=stamps)
    numbers, times, source = read(path)
    assert numbers == list(range(10))
    assert times == pytest.approx([stamp / 1000 for stamp in stamps], abs=1e-4)
    assert source.repaired == 0


@pytest.mark.parametrize(("kind", "codec", "sound"), [("mpeg", "mpeg2", "mp2"), ("matroska", "h264", "pcm_s16le")])
def test_sound_may_come_first(kind: str, codec: str, sound: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "x", numbered(20), codec=codec, container=kind, sound=sound)
    numbers, _, source = read(path)
    assert numbers == list(range(20))
    assert source.info.has_sound


def test_origin_is_the_first_frames_place_on_the_files_time_line(videos: Videos, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = write_video(tmp_path / "x.mkv", numbered(5), stamps=[400, 440, 480, 520, 560], sound="pcm_s16le")
    assert read(path)[2].origin == pytest.approx(0.4)
    with av.open(str(videos("mpeg1.mpg"))) as container:
        start = float(container.streams.video[0].start_time * container.streams.video[0].time_base)
    assert start > 0.1
    assert read(videos("mpeg1.mpg"))[2].origin == pytest.approx(start)
    # Its frames leave the decoder late, but the first one belongs to the start of the sound.
    assert read(videos("h264.avi"))[2].origin == 0


@pytest.mark.parametrize("codec", ["lossless", "vp9", "mpeg4"])
def test_odd_sizes(codec: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mkv", numbered(5, width=63, height=47), codec=codec)
    with VideoSource(path) as source:
        frames = list(source)
    assert [frame.image.shape for frame in frames] == [(47, 63, 3)] * 5
    assert [number_of(frame.image) for frame in frames] == list(range(5))


def test_interlaced_frames_are_given_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        CODECS, "fields", {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme", "field_order": "tt"}}
    )
    path = write_video(tmp_path / "x.mpg", numbered(10), codec="fields", container="vob")
    assert read(path)[0] == list(range(10))


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(16, 11), (93, 48)),
        (Fraction(8, 9), (64, 54)),
        (Fraction(1280, 1281), (64, 48)),
        (Fraction(1, 50), (64, 48)),
    ],
)
def test_pixels_become_square(aspect: Fraction, size: tuple[int, int], tmp_path: Path) -> None:
    """PAL 16:9 and NTSC 4:3 on DV and DVD; what rounding left behind, and what no device has, stretches nothing."""

    def prepare(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = aspect

    path = write_video(tmp_path / "x.mkv", numbered(3), prepare=prepare)
    with VideoSource(path) as source:
        frames = list(source)
        assert (source.info.width, source.info.height) == size
        assert source.info.pixel_aspect == pytest.approx(float(aspect), rel=1e-3)
    assert [frame.image.shape[1::-1] for frame in frames] == [size] * 3
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2]


def test_one_frame(tmp_path: Path) -> None:
    numbers, times, source = read(write_video(tmp_path / "x.mp4", numbered(1)))
    assert (numbers, times, source.damage) == ([0], [0.0], None)


def test_a_video_is_read_anew_with_every_iteration(videos: Videos) -> None:
    with VideoSource(videos("h264.mp4")) as source:
        first = [number_of(frame.image) for frame, _ in zip(source, range(7), strict=False)]
        again = [number_of(frame.image) for frame in source]
    assert (first, again) == (list(range(7)), list(range(20)))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "tag"), [("601", 5), ("601", 6), ("709", 1), ("none", 2)])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p"])
def test_colours_are_those_of_the_tagged_matrix_and_range(
    pixels: str, matrix: str, tag: int, full: bool, tmp_path: Path
) -> None:
    """Against the formulas of ITU-R BT.601 and BT.709; what is not tagged is 601 at this size."""
    av = pytest.importorskip("av")
    planes = [generator(0, "plane", place).integers(70, 180, (3, 4)).astype(np.uint8) for place in range(3)]
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, 2 if full else 1
        frame = av.VideoFrame(WIDTH, HEIGHT, pixels)
        for plane, values in zip(frame.planes, planes, strict=True):
            filled = np.zeros((plane.height, plane.line_size), np.uint8)
            block = np.ones((plane.height // 3, plane.width // 4), np.uint8)
            filled[:, : plane.width] = np.kron(values, block)
            plane.update(filled.tobytes())
        frame.colorspace, frame.color_range, frame.pts, frame.time_base = tag, 2 if full else 1, 0, Fraction(1, 25)
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with VideoSource(path) as source:
        (found,) = source
    centres = found.image[8::16, 8::16].astype(float)
    assert np.abs(centres - by_formula(planes, "709" if matrix == "709" else "601", full)).max() <= 1.01


def by_formula(planes: list[Pixels], matrix: str, full: bool) -> Any:
    red, blue = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}[matrix]
    luma, cb, cr = (plane.astype(float) for plane in planes)
    luma = luma if full else (luma - 16) * 255 / 219
    cb, cr = ((plane - 128) * (1 if full else 255 / 224) for plane in (cb, cr))
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.stack([r, g, b], axis=-1), 0, 255)


@pytest.mark.parametrize(
    ("codec", "container", "muxer"),
    [
        ("h264-plain", "mp4", {"movflags": "faststart"}),
        ("h264-plain", "matroska", {}),
        ("mpeg4", "avi", {}),
        ("mpeg1", "mpeg", {}),
        ("mpeg2", "vob", {}),
        ("h264-plain", "mpegts", {}),
        ("vp9", "webm", {}),
    ],
)
def test_of_a_broken_tail_the_frames_before_it_are_given(
    codec: str, container: str, muxer: dict[str, str], tmp_path: Path
) -> None:
    whole = write_video(tmp_path / "whole", numbered(40), codec=codec, container=container, muxer=muxer)
    data = whole.read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(data[: int(len(data) * 0.6)])
    numbers, times, source = read(cut)
    assert 10 < len(numbers) < 36
    assert numbers[:-2] == list(range(len(numbers) - 2))  # at the cut, the one that others build on may come alone
    assert times == sorted(times)
    assert source.damage is not None


def packets_of(path: Path) -> list[bytes]:
    """The packets of a video as they stand in its file."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_frames_that_build_on_damage_are_left_out(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mkv", numbered(30), codec="h264-plain")
    packets = packets_of(path)
    data = path.read_bytes()
    assert data.count(packets[14]) == 1
    path.write_bytes(data.replace(packets[14], packets[14][:30] + bytes(len(packets[14]) - 30)))
    numbers, times, source = read(path)
    assert numbers == [*range(14), *range(20, 30)]  # every tenth is a key frame
    assert times[14] == pytest.approx(0.8)
    assert source.damage == (
        "a packet does not decode: Invalid data found when processing input; 5 frames after damage are left out"
    )


def test_a_video_none_of_whose_frames_decodes_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mkv", numbered(5), codec="h264-plain")
    data = path.read_bytes()
    for packet in packets_of(path):
        data = data.replace(packet, b"\xff" * len(packet))
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=r"x\.mkv: none of its frames decodes \(.+\)"), VideoSource(path):
        pass


def test_files_that_are_no_video(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("a text\n" * 100)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    with av.open(str(tmp_path / "sound.mkv"), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        file.mux(stream.encode(frame))
    for name, message in (
        ("empty.mp4", "the file has zero bytes"),
        ("text.mp4", "no video file, or its header is damaged"),
        ("list.mp4", "no video file, or its header is damaged"),
        ("sound.mkv", r"holds no video stream \(audio\)"),
    ):
        with pytest.raises(DecodeError, match=message), VideoSource(tmp_path / name):
            pass
    with pytest.raises(StorageError, match=r"reading .*none\.mp4 failed"), VideoSource(tmp_path / "none.mp4"):
        pass
    with pytest.raises(StorageError, match="is a folder"), VideoSource(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["h264.mp4", "vp9.webm", "mpeg1.mpg"])
def test_a_frame_with_too_many_pixels_is_refused(kind: str, videos: Videos) -> None:
    with pytest.raises(DecodeError) as caught, VideoSource(videos(kind), max_pixels=1000):
        pass
    # Some codecs say their size to the decoder only, which refuses it then.
    assert any(part in caught.value.found for part in ("64 x 48 pixels", "none of its frames decodes"))
    assert "at most 1000 pixels" in (caught.value.expected or "")


def test_a_header_that_claims_a_huge_frame_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.avi", numbered(2), codec="raw")
    size = WIDTH.to_bytes(4, "little") + HEIGHT.to_bytes(4, "little")
    huge = (30000).to_bytes(4, "little") * 2
    path.write_bytes(path.read_bytes().replace(size, huge))
    with pytest.raises(DecodeError, match="none of its frames decodes") as caught, VideoSource(path):
        pass
    assert caught.value.expected == "a whole video, of at most 64000000 pixels a frame"


def test_a_codec_that_ffmpeg_does_not_know(tmp_path: Path, videos: Videos) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(videos("h264.mp4").read_bytes().replace(b"avc1", b"zzz9"))
    with pytest.raises(DecodeError, match="its video is in a codec that FFmpeg does not know"), VideoSource(path):
        pass


def test_missing_timestamps_are_made_up_and_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.h264", numbered(10), codec="h264", container="h264")
    numbers, times, source = read(path)
    assert numbers == list(range(10))
    assert times == pytest.approx([number / 25 for number in range(10)])
    assert (source.repaired, source.origin) == (10, 0)


def test_a_video_that_begins_before_zero_has_its_origin_there(tmp_path: Path) -> None:
    """Matroska gives its frames before zero no time stamp."""
    stamps = [40 * number - 200 for number in range(20)]
    path = write_video(tmp_path / "x.mkv", numbered(20), stamps=stamps, muxer={"avoid_negative_ts": "disabled"})
    numbers, times, source = read(path)
    assert numbers == list(range(20))
    assert times == pytest.approx([number / 25 for number in range(20)], abs=0.001)
    assert source.repaired == 5
    assert source.origin == pytest.approx(-0.2)


def test_no_more_frames_are_held_of_a_longer_video(tmp_path: Path) -> None:
    def most_alive(count: int) -> int:
        frames = [np.full((HEIGHT, WIDTH, 3), number % 200, np.uint8) for number in range(count)]
        path = write_video(tmp_path / f"{count}.mp4", frames, codec="mpeg4")
        seen: dict[int, weakref.ref[Any]] = {}
        most = shown = 0
        with VideoSource(path) as source:
            for _, frame in at_rate(source, 40):
                seen[frame.number] = weakref.ref(frame.image)
                most = max(most, sum(image() is not None for image in seen.values()))
                shown += 1
        assert shown == round(count * 40 / 25)
        return most

    assert most_alive(200) == most_alive(20) <= 3


def test_without_pyav_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, videos: Videos) -> None:
    path = videos("h264.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match="reading and writing video needs an opt") as caught, VideoSource(path):
        pass
    assert caught.value.fix == "pip install 'facemae[video]'"


def test_the_room_is_imported_without_pyav() -> None:
    code = (
        "import sys\nsys.modules['av'] = sys.modules['decord'] = None\n"
        "import facemae.video.source, facemae.video.rate, facemae.video.store, facemae.video.read, facemae.bench.clips"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_source_is_used_in_a_with_statement(videos: Videos) -> None:
    with pytest.raises(ValueError, match="`with` statement"):
        _ = VideoSource(videos("h264.mp4")).origin
