"""Sound on the video's time line: clicks stay where they were, and what was wrong with a file is told."""

import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from facemae.errors import DataError, DecodeError, StorageError
from facemae.sound.decoding import Piece, mended
from facemae.sound.level import SILENT, level
from facemae.sound.source import BLOCK, SoundSource, has_sound
from tests.sound.media import CODECS, amplitude_at, click, click_time, tone, write_media

RATE = 16000
SAMPLE = 1 / RATE
MILLI = 0.0011
"""Containers that count milliseconds may be off by half of one, in picture and sound each."""


def first_frame(path: Path) -> float:
    """When the container presents the video's first frame."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.time is not None
        return frame.time


@pytest.mark.parametrize(
    ("kind", "rate"),
    [(kind, 48000) for kind in CODECS if kind not in ("mp3.mp3", "mp3.avi")]
    + [("aac.mp4", rate) for rate in (8000, 16000, 22050, 44100)]
    + [("mp2.mpg", 44100), ("pcm.avi", 44100), ("aac.mkv", 22050), ("opus.webm", 8000)],
)
def test_a_click_in_a_video_stays_in_its_place(tmp_path: Path, kind: str, rate: int) -> None:
    path = write_media(tmp_path / "film.bin", kind, [(0.0, click(rate, 1.0, 0.5))], rate, channels=2)
    source = SoundSource(path, rate=RATE, origin=first_frame(path))
    wave = source.read()
    assert click_time(wave, RATE) == pytest.approx(0.5, abs=SAMPLE if kind.endswith(("mp4", "mov", "avi")) else MILLI)
    assert source.damage is None
    assert source.report.laid.gaps == source.report.laid.overlaps == 0
    assert source.info.channels == 2
    assert source.info.rate == (48000 if kind == "opus.webm" else rate)
    assert source.info.codec == kind.partition(".")[0].replace("pcm", "pcm_s16le")
    assert source.info.duration == pytest.approx(1.0, abs=0.3)
    assert wave.dtype == np.float32
    assert 0.9 < len(wave) / RATE < 1.3


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize(("channels", "kind"), [(1, "wav"), (2, "flac"), (6, "wav")])
def test_a_click_in_a_file_of_its_own_stays_in_its_place(tmp_path: Path, rate: int, channels: int, kind: str) -> None:
    path = tmp_path / f"sound.{kind}"
    soundfile.write(path, np.repeat(click(rate, 1.5, 0.7)[:, None], channels, axis=1), rate)
    source = SoundSource(path, rate=RATE)
    wave = source.read()
    assert click_time(wave, RATE) == pytest.approx(0.7, abs=SAMPLE)
    assert len(wave) == 1.5 * RATE
    assert (source.info.rate, source.info.channels) == (rate, channels)
    assert source.info.duration == pytest.approx(1.5)


@pytest.mark.parametrize("rate", [48000, 44100, 22050, 16000])
def test_the_priming_that_an_mp3_declares_is_left_out(tmp_path: Path, rate: int) -> None:
    path = write_media(tmp_path / "a.mp3", "mp3.mp3", [(0.0, click(rate, 2.0, 1.0))], rate, video=None)
    source = SoundSource(path, rate=RATE)
    wave = source.read()
    assert click_time(wave, RATE) == pytest.approx(1.0, abs=SAMPLE)
    assert len(wave) == 2 * RATE
    assert source.info.start == 0.0


def test_a_container_that_cannot_declare_priming_keeps_it(tmp_path: Path) -> None:
    """AVI has no field for it: the sound is late by the 1105 samples of LAME and its decoder, in every player."""
    path = write_media(tmp_path / "a.avi", "mp3.avi", [(0.0, click(44100, 2.0, 1.0))], 44100, video=(0.0, 2.0))
    late = click_time(SoundSource(path, rate=RATE).read(), RATE) - 1.0
    assert late == pytest.approx(1105 / 44100, abs=2 * SAMPLE)


@pytest.mark.parametrize("kind", ["aac.mp4", "aac.mkv", "pcm.mov", "opus.webm", "flac.mkv", "mp2.mpg"])
@pytest.mark.parametrize(("sound", "video"), [(0.48, 0.0), (0.24, 0.72)])
def test_sound_that_starts_later_or_earlier_than_the_picture(
    tmp_path: Path, kind: str, sound: float, video: float
) -> None:
    path = write_media(tmp_path / "a", kind, [(sound, click(48000, 1.2, 0.8))], 48000, video=(video, 1.0))
    source = SoundSource(path, rate=RATE, origin=first_frame(path))
    wave = source.read()
    shift = sound - video
    assert click_time(wave, RATE) == pytest.approx(0.8 + shift, abs=MILLI)
    assert source.info.start == pytest.approx(shift, abs=0.03)
    assert source.report.laid.gaps == source.report.laid.overlaps == 0
    if shift > 0:
        # What an encoder rings before its sound is no sound.
        assert np.abs(wave[: round((shift - 0.03) * RATE)]).max() < 1e-4
    assert len(wave) / RATE == pytest.approx(1.2 + shift, abs=0.1)


def test_early_sound_is_cut_as_if_the_whole_had_been_resampled(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(44100, 2.0, 997.0), 44100, subtype="FLOAT")
    whole = SoundSource(path, rate=RATE).read()
    cut = SoundSource(path, rate=RATE, origin=0.5).read()
    np.testing.assert_allclose(cut, whole[RATE // 2 :], atol=2e-6)
    late = SoundSource(path, rate=RATE, origin=-0.5).read()
    assert not late[: RATE // 2 - 800].any()
    np.testing.assert_allclose(late[RATE // 2 :], whole, atol=2e-6)


def test_a_gap_is_silence_and_counted(tmp_path: Path) -> None:
    pieces = [(0.0, tone(48000, 0.5, 440.0)), (1.0, click(48000, 1.0, 0.25))]
    path = write_media(tmp_path / "a.mkv", "flac.mkv", pieces, 48000, video=(0.0, 2.0))
    source = SoundSource(path, rate=RATE)
    wave = source.read()
    assert click_time(wave, RATE) == pytest.approx(1.25, abs=MILLI)
    assert np.abs(wave[round(0.52 * RATE) : round(1.2 * RATE)]).max() < 1e-5
    assert source.report.laid.gaps == 1
    assert source.report.laid.filled == pytest.approx(24000, abs=60)
    assert source.damage is None


def test_sound_that_begins_late_in_a_long_video_is_heard(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", "flac.mkv", [(605.0, click(48000, 1.0, 0.5))], 48000, video=(0.0, 2.0))
    source = SoundSource(path, rate=RATE, until=700.0)
    assert click_time(source.read(), RATE) == pytest.approx(605.5, abs=MILLI)
    assert source.damage is None
    source = SoundSource(path, rate=RATE, until=600.0)
    assert len(source.read()) == 0
    assert source.damage == "the sound starts at 605.000 s by its time stamps, and is left out from there"


def test_an_overlap_is_cut_and_counted(tmp_path: Path) -> None:
    pieces = [(0.0, tone(48000, 1.0, 440.0)), (0.75, click(48000, 1.0, 0.5))]
    path = write_media(tmp_path / "a.mkv", "flac.mkv", pieces, 48000, video=(0.0, 2.0))
    source = SoundSource(path, rate=RATE)
    wave = source.read()
    assert click_time(wave[RATE:], RATE) + 1 == pytest.approx(1.25, abs=MILLI)
    assert source.report.laid.overlaps >= 1
    assert source.report.laid.cut == pytest.approx(12000, abs=60)
    assert amplitude_at(wave[:RATE], RATE, 440.0) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("wrong", [{20: 5.0}, {20: -3.0}, {20: 700.0}, {20: 5.0, 21: 5.0}])
def test_a_wrong_time_stamp_moves_no_sound(wrong: dict[int, float]) -> None:
    """Its piece goes on from the one before, and nothing is silenced or cut for it."""
    wave, counted = np.zeros(1024, np.float32), []
    due = [number * 1024 / 16000 for number in range(40)]
    found = [Piece(time + wrong.get(number, 0.0), 16000, wave, 0) for number, time in enumerate(due)]
    line = [piece.time for piece in mended(iter(found), lambda: counted.append(1))]
    assert line == [None if number in wrong else pytest.approx(time) for number, time in enumerate(due)]
    assert len(counted) == len(wrong)


def test_gaps_overlaps_and_missing_stamps_are_no_wrong_ones() -> None:
    wave = np.zeros(1024, np.float32)
    times = [None, 0.0, 0.064, 5.0, 5.064, 5.128, 2.0, 2.064, None, 9.0]
    pieces = [Piece(time, 16000, wave, 0) for time in times]
    assert [piece.time for piece in mended(iter(pieces), lambda: pytest.fail("none is wrong"))] == times


def test_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "mute.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    assert not has_sound(path)
    with pytest.raises(DataError, match=r"mute\.mp4: no sound in this file") as caught:
        SoundSource(path, rate=RATE)
    assert "has_sound" in str(caught.value)


def test_a_silent_track_has_sound_of_a_level_that_says_so(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", "aac.mp4", [(0.0, np.zeros(48000, np.float32))], 48000)
    assert has_sound(path)
    source = SoundSource(path, rate=RATE)
    assert level(source.read()) < SILENT
    assert source.report.level < SILENT
    loud = write_media(tmp_path / "b.mov", "pcm.mov", [(0.0, tone(48000, 1.0, 440.0))], 48000)
    source = SoundSource(loud, rate=RATE)
    source.read()
    assert source.report.level == pytest.approx(-6.02, abs=0.1)


def test_the_extension_does_not_matter(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.txt", "aac.mp4", [(0.0, click(44100, 1.0, 0.5))], 44100)
    assert click_time(SoundSource(path, rate=RATE).read(), RATE) == pytest.approx(0.5, abs=SAMPLE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has zero bytes"),
        (b"these are words, not sound; " * 50, "no sound or video file that FFmpeg knows"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n", "no sound or video file that FFmpeg knows"),
        (b"RIFF\x00\x00\x00\x00WAVE", r"a\.wav: no sound or video file"),
    ],
)
def test_what_is_no_sound_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=message):
        SoundSource(path, rate=RATE)
    with pytest.raises(DecodeError, match=message):
        has_sound(path)


def test_a_missing_file_and_a_folder_are_storage_errors(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere\.wav"):
        SoundSource(tmp_path / "nowhere.wav", rate=RATE)
    with pytest.raises(StorageError, match="reading"):
        has_sound(tmp_path)


@pytest.mark.parametrize("kind", ["aac.mp4", "pcm.mov", "flac.mkv", "aac.mkv", "opus.webm"])
def test_a_broken_tail_ends_the_sound_and_is_told(tmp_path: Path, kind: str) -> None:
    path = write_media(tmp_path / "a", kind, [(0.0, tone(48000, 4.0, 440.0))], 48000, video=(0.0, 4.0))
    if kind.endswith(("mp4", "mov")):
        path = _index_first(path, tmp_path / "b", kind.split(".")[1])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = SoundSource(path, rate=RATE)
    wave = source.read()
    assert 0.7 < len(wave) / RATE < 3.6
    assert amplitude_at(wave[: RATE // 2], RATE, 440.0) == pytest.approx(0.5, rel=0.05)
    assert source.damage is not None
    assert "declared" in source.damage or "nvalid" in source.damage


def _index_first(path: Path, target: Path, kind: str) -> Path:
    """The same streams with the index in front, so that a cut file still opens."""
    with (
        av.open(str(path)) as old,
        av.open(str(target), "w", format=kind, container_options={"movflags": "faststart"}) as new,
    ):
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return target


def test_a_video_cut_off_before_its_index_does_not_open(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", "aac.mp4", [(0.0, tone(48000, 1.0, 440.0))], 48000)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DecodeError, match=r"a\.mp4: no sound or video file that FFmpeg knows: Invalid data"):
        SoundSource(path, rate=RATE)


def test_a_sound_that_changes_its_rate_ends_there(tmp_path: Path) -> None:
    parts = [
        write_media(tmp_path / f"{rate}", "mp2.mpg", [(0.0, tone(rate, 1.0, 440.0))], rate, video=None).read_bytes()
        for rate in (48000, 32000)
    ]
    path = tmp_path / "both.mpg"
    path.write_bytes(b"".join(parts))
    source = SoundSource(path, rate=RATE)
    assert 0.8 < len(source.read()) / RATE < 1.1
    assert "the rate changes from 48000 to 32000 Hz at 1.0" in str(source.damage)


def test_a_title_in_another_encoding_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    title = "Gespräch".encode("latin-1") + bytes(8)
    chunk = b"LIST" + struct.pack("<I", 12 + len(title)) + b"INFOINAM" + struct.pack("<I", len(title)) + title
    soundfile.write(path, tone(16000, 1.0, 500.0), 16000)
    data = path.read_bytes()
    path.write_bytes(data[:12] + chunk + data[12:])
    assert len(SoundSource(path, rate=RATE).read()) == RATE


def test_a_damaged_middle_is_silence_in_its_place(tmp_path: Path) -> None:
    wave = np.concatenate([tone(48000, 2.0, 440.0), click(48000, 1.0, 0.5)])
    path = write_media(tmp_path / "a.mp4", "aac.mp4", [(0.0, wave)], 48000, video=None)
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 4
    third = (data.find(b"moov") - start) // 3
    data[start + third : start + third + 400] = bytes(400)
    path.write_bytes(data)
    source = SoundSource(path, rate=RATE)
    heard = source.read()
    assert source.damage is not None
    assert click_time(heard[2 * RATE :], RATE) + 2 == pytest.approx(2.5, abs=0.003)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_kind_of_wav_has_its_level(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000, 1.0, 500.0), 16000, subtype=subtype)
    wave = SoundSource(path, rate=RATE).read()
    step = {"PCM_U8": 2**-7, "PCM_16": 2**-15, "ULAW": 0.02}.get(subtype, 1e-6)
    np.testing.assert_allclose(wave, tone(16000, 1.0, 500.0), atol=step)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    left, right = tone(16000, 1.0, 500.0), tone(16000, 1.0, 900.0, 0.3)
    soundfile.write(path, np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(SoundSource(path, rate=RATE).read(), (left + right) / 2, atol=1e-6)


def test_a_wav_of_numbers_that_are_none_and_too_loud(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    wave = tone(16000, 1.0, 500.0)
    wave[100:110] = np.nan
    wave[200] = np.inf
    wave[300:303] = 4.0
    soundfile.write(path, wave, 16000, subtype="FLOAT")
    source = SoundSource(path, rate=RATE)
    heard = source.read()
    assert np.isfinite(heard).all()
    assert heard.max() == 1.0
    assert (source.report.invalid, source.report.clipped) == (11, 3)


def lie(path: Path, claimed: int) -> None:
    """Write another length into a wav's header."""
    data = bytearray(path.read_bytes())
    at = data.find(b"data") + 4
    data[at : at + 4] = struct.pack("<I", claimed)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("claimed", "seconds", "damage"),
    [
        (160000, 2.0, "claims 5.00 s of sound, the file holds 2.00 s"),
        (32000, 1.0, "claims 1.00 s of sound, the file holds 2.00 s; what follows the claim is not read"),
        (0, 2.0, None),
        (0xFFFFFFFF, 2.0, None),
        (64000, 2.0, None),
    ],
)
def test_a_wav_whose_header_lies(tmp_path: Path, claimed: int, seconds: float, damage: str | None) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000, 2.0, 500.0), 16000, subtype="PCM_16")
    lie(path, claimed)
    source = SoundSource(path, rate=RATE)
    assert len(source.read()) == seconds * RATE
    if damage is None:
        assert source.damage is None
    else:
        assert damage in str(source.damage)


def test_blocks_are_bounded_and_the_same_each_time(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(44100, 20.0, 440.0), 44100)
    source = SoundSource(path, rate=RATE)
    blocks = list(source.blocks())
    assert {len(block) for block in blocks[:-1]} == {BLOCK}
    assert len(blocks[-1]) <= BLOCK
    np.testing.assert_array_equal(np.concatenate(blocks), source.read())
    assert sum(map(len, blocks)) == 20 * RATE
    late = SoundSource(path, rate=RATE, origin=-100.0)
    assert max(len(block) for block in late.blocks()) == BLOCK


def test_without_the_optional_packages_log_mel_works_and_the_rest_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(av=None, soxr=None, soundfile=None)\n"
        "import facemae, facemae.sound.mel, facemae.sound.align, facemae.sound.level\n"
        "from facemae.errors import MissingExtraError\n"
        "for name in ('source', 'store', 'resample'):\n"
        "    try:\n        __import__('facemae.sound.' + name)\n"
        "    except MissingExtraError as error:\n        print(error.fix)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["pip install 'facemae[video]'"] * 3, done.stderr


def test_a_rate_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rate is 0"):
        SoundSource(tmp_path / "a.wav", rate=0)
