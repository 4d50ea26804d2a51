"""Sound beneath clips: what is missing is counted, what is not a video's own is never beneath it, and all is told."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from facemae.data.clips.pack import ClipPackReport, pack_videos
from facemae.data.clips.settings import ClipSettings
from facemae.data.index import ShardIndex
from facemae.data.material import Material
from facemae.data.reader import ShardReader
from facemae.sound.store import read_window
from facemae.video.source import VideoSource
from tests.data.clips.films import Pixels, Wave, face, film, noise

RATE = 48000


def pack(source: Path, **changes: Any) -> tuple[dict[str, Material], ClipPackReport]:
    settings = ClipSettings(**{"size": 32, "detections": 5, **changes})
    report = pack_videos(source, source.parent / f"{source.name}-out", settings=settings, workers=1)
    reader = ShardReader(ShardIndex.open(report.out))
    return {reader.index.key(i): Material(reader.read(i)) for i in range(len(reader.index))}, report


def sounding(path: Path, count: int, pieces: Sequence[tuple[float, Wave]], *, rate: int = RATE) -> Path:
    """A video of so many frames at 25 a second, with FLAC sound that begins at the given seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        sound: Any = file.add_stream("flac", rate=rate, layout="mono")
        packets = []
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(face(), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += stream.encode(frame)
        packets += stream.encode()
        for start, wave in pieces:
            for first in range(0, len(wave), 4096):
                data = (wave[None, first : first + 4096] * 32767).astype(np.int16)
                block = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = rate, round(start * rate) + first, Fraction(1, rate)
                packets += sound.encode(block)
        packets += sound.encode()
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            file.mux(packet)
    return path


def part(path: Path, frames: Sequence[Pixels], wave: Wave | None, container: str) -> bytes:
    """A file of MPEG-2 video, with MPEG sound or without."""
    with av.open(str(path), "w", format=container) as file:
        stream: Any = file.add_stream("mpeg2video", rate=25, options={"b": "4000000"})
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        sound: Any = None if wave is None else file.add_stream("mp2", rate=RATE, layout="mono")
        packets = []
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += stream.encode(frame)
        packets += stream.encode()
        for first in range(0, 0 if wave is None else len(wave), 1152):
            assert wave is not None
            data = (wave[None, first : first + 1152] * 32767).astype(np.int16)
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, first, Fraction(1, RATE)
            packets += sound.encode(block)
        packets += [] if sound is None else sound.encode()
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            file.mux(packet)
    return path.read_bytes()


def tone(seconds: float, hertz: float) -> Wave:
    wave: Wave = (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)
    return wave


def strength(wave: Wave, hertz: float) -> float:
    """Amplitude of a tone in a wave at 16 kHz."""
    return 2 * abs(complex((wave * np.exp(-2j * np.pi * hertz * np.arange(len(wave)) / 16000)).mean()))


@pytest.mark.parametrize("container", ["mpegts", "vob"])
@pytest.mark.parametrize("first_sounds", [2.4, 1.0, None])
def test_of_joined_files_the_first_has_its_own_sound(
    container: str, first_sounds: float | None, tmp_path: Path
) -> None:
    """Also where its sound ends early, or it has none: that of the second is never beneath its frames."""
    wave = None if first_sounds is None else tone(first_sounds, 500)
    one = part(tmp_path / "one", [face()] * 60, wave, container)
    two = part(tmp_path / "two", [face()] * 75, tone(3.0, 2000), container)
    (tmp_path / "v").mkdir()
    (tmp_path / "v/joined.mpg").write_bytes(one + two)
    found, report = pack(tmp_path / "v")
    (material,) = found.values()
    assert material.clip is not None
    assert 57 <= material.clip.count <= 60
    assert any("time stamps start anew at 2." in text for _, text in report.remarks)
    flac = material.sample.members.get("flac")
    if first_sounds is None:
        assert flac is None
        return
    assert flac is not None
    heard = read_window(flac, 0.0, material.clip.count / 25, name="x").wave
    assert strength(heard[: round(first_sounds * 16000) - 3200], 500) > 0.4
    assert strength(heard, 2000) < 0.01
    missing = material.sample.meta["sound"].get("missing_s", 0.0)
    assert missing == pytest.approx(material.clip.count / 25 - first_sounds, abs=0.15)


def test_a_joined_video_without_sound_goes_on(tmp_path: Path) -> None:
    one = part(tmp_path / "one", [face()] * 40, None, "mpegts")
    (tmp_path / "joined").write_bytes(one + one)
    with VideoSource(tmp_path / "joined") as source:
        assert sum(1 for _ in source) > 75
        assert source.joint is None


def restamped(path: Path, source: Path, moved: dict[int, int], kind: str = "video") -> Path:
    """The same packets, those of a kind and the given numbers so many milliseconds later."""
    with av.open(str(source)) as file, av.open(str(path), "w") as other:
        streams: dict[int, Any] = {stream.index: other.add_stream_from_template(stream) for stream in file.streams}
        packets = [packet for packet in file.demux() if packet.dts is not None]
        pictures = [packet for packet in packets if packet.stream.type == kind]
        for number, milliseconds in moved.items():
            picture = pictures[number]
            assert picture.pts is not None
            assert picture.time_base is not None
            picture.pts += round(Fraction(milliseconds, 1000) / picture.time_base)
        for packet in packets:
            packet.stream = streams[packet.stream.index]
            other.mux(packet)
    return path


@pytest.mark.parametrize("name", ["moved.mkv", "moved.ts"])
@pytest.mark.parametrize("moved", [{20: 1200}, {20: 5000, 21: 5000}, {0: 5000}])
def test_a_wrong_time_stamp_costs_nothing(name: str, moved: dict[int, int], tmp_path: Path) -> None:
    """It is no joint of files, and neither frames nor sound end there."""
    whole = film(tmp_path / "whole.mp4", [face()] * 50, wave=tone(2.0, 500), rate=RATE)
    (tmp_path / "v").mkdir()
    path = restamped(tmp_path / "v" / name, whole, moved)
    found, report = pack(tmp_path / "v")
    (material,) = found.values()
    assert material.clip is not None
    assert material.clip.count == 50
    heard = read_window(material.sample.members["flac"], 0.0, 2.0, name="x").wave
    assert strength(heard, 500) > 0.45
    assert [text for _, text in report.remarks] == [f"time stamps of {len(moved)} frames repaired"]
    with VideoSource(path) as source:
        assert [frame.time for frame in source] == pytest.approx([number / 25 for number in range(50)], abs=0.002)


def test_a_wrong_time_stamp_of_sound_silences_nothing(tmp_path: Path) -> None:
    whole = sounding(tmp_path / "whole.mkv", 50, [(0.0, tone(2.0, 500))])
    (tmp_path / "v").mkdir()
    restamped(tmp_path / "v/a.mkv", whole, {8: 1200}, "audio")
    found, report = pack(tmp_path / "v")
    heard = read_window(found["a-0-0000"].sample.members["flac"], 0.0, 2.0, name="x").wave
    assert strength(heard, 500) > 0.45
    assert [text for _, text in report.remarks] == ["time stamps of 1 pieces of the sound repaired"]


def test_pictures_whose_clock_is_set_back_end_there_and_it_is_told(tmp_path: Path) -> None:
    """Which sound belongs to those behind, nothing says; it is not said to be another file."""
    whole = sounding(tmp_path / "whole.mkv", 75, [(0.0, tone(3.0, 500))])
    path = restamped(tmp_path / "moved.mkv", whole, dict.fromkeys(range(25, 50), 2000))
    with VideoSource(path) as source:
        assert sum(1 for _ in source) == 50
    text = "time stamps go back by 1.96 s at 4.00 s: what follows, whose sound is not known, is left out"
    assert text in str(source.damage)
    assert source.joint is not None


def test_sound_that_begins_late_is_missing_where_it_is(tmp_path: Path) -> None:
    sounding(tmp_path / "v/a.mkv", 75, [(1.5, noise(1.5, RATE))])
    found, report = pack(tmp_path / "v", longest=1.0)
    facts = [found[f"a-0-{piece:04d}"].sample.meta["sound"] for piece in range(3)]
    assert facts[0] == {"stored": False, "missing_s": 1.0, "level_db": -120.0, "file": "a.mkv"}
    assert facts[1]["missing_s"] == pytest.approx(0.5, abs=0.002)
    assert "missing_s" not in facts[2]
    assert ["flac" in found[f"a-0-{piece:04d}"].sample.members for piece in range(3)] == [False, True, True]
    assert ("a.mkv", "the sound begins 1.50 s after the picture") in report.remarks


def test_gaps_are_missing_and_told(tmp_path: Path) -> None:
    sounding(tmp_path / "v/a.mkv", 50, [(0.0, noise(0.5, RATE)), (1.25, noise(0.75, RATE))])
    found, report = pack(tmp_path / "v")
    assert found["a-0-0000"].sample.meta["sound"]["missing_s"] == pytest.approx(0.75, abs=0.01)
    (text,) = (text for _, text in report.remarks if "gaps" in text)
    assert float(text.split(" s of gaps in the sound are filled with silence")[0]) == pytest.approx(0.75, abs=0.02)


def test_a_separate_sound_that_cannot_be_used_does_not_cost_the_videos_own(tmp_path: Path) -> None:
    for name in ("good", "garbage", "silent", "mute"):
        film(tmp_path / f"v/{name}.mkv", [face()] * 25, wave=None if name == "mute" else tone(1.0, 500), rate=RATE)
        soundfile.write(tmp_path / f"v/{name}.wav", tone(1.0, 2000) * (name == "good"), RATE)
    (tmp_path / "v/garbage.wav").write_bytes(b"RIFF\x00\x00\x00\x00garbage" * 10)
    found, report = pack(tmp_path / "v")
    told = {path: text for path, text in report.remarks if "wav" in text}
    assert set(told) == {"garbage.mkv", "silent.mkv", "mute.mkv"}
    assert told["garbage.mkv"].startswith("garbage.wav: the sound is left out: no sound or video file")
    assert told["garbage.mkv"].endswith("; the video's own sound is taken")
    assert told["silent.mkv"] == "silent.wav: a silent track; the video's own sound is taken"
    assert told["mute.mkv"] == "mute.wav: a silent track; the video has none of its own"
    for name, file, hertz in (("good", "wav", 2000), ("garbage", "mkv", 500), ("silent", "mkv", 500)):
        sample = found[f"{name}-0-0000"].sample
        assert sample.meta["sound"]["file"] == f"{name}.{file}"
        assert strength(read_window(sample.members["flac"], 0.0, 1.0, name="x").wave, hertz) > 0.4
    assert "sound" not in found["mute-0-0000"].sample.meta


def test_videos_without_a_file_in_the_folder_of_sounds_are_counted(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    for name in "abc":
        film(tmp_path / f"v/{name}.mkv", [face()] * 15, wave=tone(0.6, 500), rate=RATE)
    soundfile.write(tmp_path / "sounds/b.wav", tone(0.6, 2000), RATE)
    settings = ClipSettings(size=32, detections=5)
    report = pack_videos(tmp_path / "v", tmp_path / "out", settings=settings, sound=tmp_path / "sounds", workers=0)
    note = f"2 of 3 videos have no file in {tmp_path / 'sounds'}, and are taken with their own: a.mkv, c.mkv"
    assert note in report.notes
    assert note in report.lines()
    _, report = pack(tmp_path / "v")
    assert report.notes == []


def test_a_silent_piece_has_no_sound_member(tmp_path: Path) -> None:
    film(tmp_path / "v/a.mkv", [face()] * 50, wave=np.concatenate([noise(1.0, 16000), np.zeros(16000, np.float32)]))
    found, _ = pack(tmp_path / "v", longest=1.0)
    assert "flac" in found["a-0-0000"].sample.members
    assert "flac" not in found["a-0-0001"].sample.members
    assert found["a-0-0001"].sample.meta["sound"] == {"stored": False, "level_db": -120.0, "file": "a.mkv"}


def test_overlaps_clipping_and_what_is_no_number_are_told(tmp_path: Path) -> None:
    sounding(tmp_path / "v/a.mkv", 50, [(0.0, noise(1.0, RATE)), (0.5, noise(1.5, RATE))])
    for name, wave in (("loud", 3 * noise(2.0, 16000)), ("nan", noise(2.0, 16000))):
        film(tmp_path / f"v/{name}.mkv", [face()] * 50)
        if name == "nan":
            wave[1000:1160] = np.nan
        soundfile.write(tmp_path / f"v/{name}.wav", 2 * wave, 16000, subtype="FLOAT")
    _, report = pack(tmp_path / "v")
    told = {path: text for path, text in report.remarks if path in ("loud.mkv", "nan.mkv") or "cut" in text}
    assert told["a.mkv"].endswith("s of the sound are cut: by their time stamps there was sound already")
    assert float(told["a.mkv"].split(" s ")[0]) == pytest.approx(0.5, abs=0.1)
    assert told["loud.mkv"].startswith("the sound is beyond full scale for ")
    assert told["nan.mkv"] == "0.0100 s of the sound are no numbers, and silence here"


def test_interlaced_video_and_pixels_that_are_not_square_are_told(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    with av.open(str(tmp_path / "v/a.mkv"), "w") as file:
        options = {"flags": "+ilme+ildct", "b": "4000000"}
        stream: Any = file.add_stream("mpeg2video", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(64, 45)
        for number in range(30):
            # Squeezed as in the camera: with square pixels again a face.
            frame = av.VideoFrame.from_ndarray(face(), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    _, report = pack(tmp_path / "v")
    assert ("a.mkv", "interlaced: its fields are not separated") in report.remarks
    assert ("a.mkv", "pixels 1.333 times as wide as high, made square") in report.remarks


def test_the_rate_that_is_kept_is_that_of_the_frames(tmp_path: Path) -> None:
    """A header may state another one: here frames come ten times a second, and the header says 25."""
    film(tmp_path / "v/a.mkv", [face()] * 20, stamps=[100 * number for number in range(20)])
    with VideoSource(tmp_path / "v/a.mkv") as source:
        assert source.info.fps == pytest.approx(25)
    found, _ = pack(tmp_path / "v", fps=None)
    clip = found["a-0-0000"].sample.meta["clip"]
    assert clip["fps"] == pytest.approx(10, rel=0.05)
    assert clip["frames"] == 20
