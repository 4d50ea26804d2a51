"""Signals that ask for a stop, one after another and mixed."""

import signal

import pytest

from facemae.train.saving.preempt import StopRequest


def test_a_first_ctrl_c_after_a_sigterm_saves_too(capfd: pytest.CaptureFixture[str]) -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.reason == "SIGTERM"
        signal.raise_signal(signal.SIGINT)
        assert stop.reason == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("Ctrl-C: saving")
    assert second.startswith("Ctrl-C again: ended at once")


def test_a_sigterm_after_ctrl_c_does_not_hide_it() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert stop.reason == "SIGINT"
