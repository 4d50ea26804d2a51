"""Pieces laid on a time line equal a canvas that they are painted on."""

import numpy as np
import pytest

from facemae.rng import generator
from facemae.sound.timeline import MAX_BACK, MAX_GAP, TOLERANCE, TimeLine, TimeStampError
from facemae.sound.wave import Wave

RATE = 1000


def laid(line: TimeLine, pieces: list[tuple[float | None, Wave]]) -> Wave:
    return np.concatenate([np.zeros(0, np.float32), *(part for time, wave in pieces for part in line.lay(time, wave))])


def painted(pieces: list[tuple[float | None, Wave]], first: int) -> Wave:
    """The earliest piece wins where two are; silence where none is."""
    canvas = np.zeros(100_000, np.float32)
    end = None
    for time, wave in pieces:
        start = end if time is None else round(time * RATE)
        assert start is not None
        if end is not None and time is not None and abs(start - end) <= TOLERANCE * RATE:
            start = end
        for offset, value in enumerate(wave):
            if end is None or start + offset >= end:
                canvas[50_000 + start + offset] = value
        end = start + len(wave) if end is None else max(end, start + len(wave))
    assert end is not None
    return canvas[50_000 + first : max(50_000 + end, 50_000 + first)]


@pytest.mark.parametrize("seed", range(20))
def test_random_pieces_equal_a_painted_canvas(seed: int) -> None:
    draw = generator(seed, "pieces")
    time = float(draw.uniform(-3, 3))
    pieces: list[tuple[float | None, Wave]] = []
    for _ in range(30):
        wave = draw.uniform(0.1, 1, size=int(draw.integers(1, 200))).astype(np.float32)
        pieces.append((None if pieces and draw.random() < 0.2 else time, wave))
        time += len(wave) / RATE + float(draw.choice([0, 0, 0, 0.004, -0.004, 0.05, 0.3, -0.05, -0.3]))
    first = int(draw.integers(-500, 500))
    np.testing.assert_array_equal(laid(TimeLine(RATE, first), pieces), painted(pieces, first))


def test_gaps_and_overlaps_are_counted_and_rounded_stamps_are_not() -> None:
    ones = np.ones(100, np.float32)
    line = TimeLine(RATE, 0)
    wave = laid(line, [(0.5, ones), (0.6009, ones), (1.0, ones), (1.05, ones), (None, ones)])
    assert len(wave) == 1250
    assert (line.laid.gaps, line.laid.filled) == (1, 300)
    assert (line.laid.overlaps, line.laid.cut) == (1, 50)
    assert line.end == 1.25


def test_a_piece_wholly_before_the_start_is_left_out() -> None:
    line = TimeLine(RATE, 0)
    assert len(laid(line, [(-1.0, np.ones(100, np.float32))])) == 0
    assert line.laid.overlaps == 0
    assert len(laid(line, [(-0.1, np.ones(300, np.float32))])) == 200
    assert line.laid.gaps == 0


def test_drifting_stamps_are_followed_once_they_are_off_by_more_than_the_tolerance() -> None:
    line = TimeLine(RATE, 0)
    wave = laid(line, [(index * 0.101, np.ones(100, np.float32)) for index in range(100)])
    assert len(wave) == pytest.approx(100 * 101, abs=TOLERANCE * RATE + 1)
    assert line.laid.gaps == pytest.approx(100 / (TOLERANCE * RATE), abs=1)


def test_time_stamps_that_cannot_be_followed_are_refused() -> None:
    ones = np.ones(100, np.float32)
    line = TimeLine(RATE, 0)
    with pytest.raises(TimeStampError, match=r"starts at 601\.000 s"):
        list(line.lay(MAX_GAP + 1, ones))
    line = TimeLine(RATE, 0)
    list(line.lay(20.0, ones))
    with pytest.raises(TimeStampError, match=r"jumps from 20\.100 s to 9\.000 s by its time stamps"):
        list(line.lay(19 - MAX_BACK, ones))
    with pytest.raises(TimeStampError, match=r"jumps from 20\.100 s to 700\.000 s"):
        list(line.lay(100 + MAX_GAP, ones))


def test_a_pause_of_any_length_is_one_while_the_pictures_go_on() -> None:
    line = TimeLine(RATE, 0, until=2000.0)
    parts = [*line.lay(MAX_GAP + 100, np.ones(10, np.float32)), *line.lay(1999.0, np.ones(10, np.float32))]
    assert sum(map(len, parts)) == 1999 * RATE + 10
    with pytest.raises(TimeStampError, match=r"jumps from 1999\.010 s to 3000\.000 s"):
        list(line.lay(3000.0, np.ones(10, np.float32)))


def test_silence_comes_in_bounded_blocks_that_cannot_be_written_to() -> None:
    parts = list(TimeLine(48000, 0).lay(60.0, np.ones(1, np.float32)))
    assert max(map(len, parts)) <= 16384
    assert sum(map(len, parts)) == 60 * 48000 + 1
    assert not parts[0].flags.writeable
