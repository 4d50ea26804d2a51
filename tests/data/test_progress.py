"""Progress of long work where there is no terminal: lines with rate and time left."""

import itertools
import sys
import time

import pytest

from facemae.data import progress


def test_lines_tell_rate_and_time_left_of_this_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = itertools.count(0.0, 4.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with progress.progress("packing") as report:
        for done in range(51, 57):  # fifty were finished before
            report(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "packing: 53 of 100, 0.25 a second, ETA 0:03:08",
        "packing: 56 of 100, 0.25 a second, ETA 0:02:56",
    ]
