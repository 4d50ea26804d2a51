"""Kill -9 at random moments, writing checkpoints included: same keys, bitwise the same weights."""

import json
import random
import subprocess
import time
from pathlib import Path

import pytest

from facemae.train.log import read_lines
from tests.train.conftest import Start, result_files, wait_for

STEPPED = "  loss "
"""In every line of metrics and in no other: the first one comes after the first steps of a start."""


def undisturbed(start: Start, out: Path, overrides: list[str]) -> float:
    """Run to the end; the seconds from the first steps to the last."""
    process = start(out, overrides)
    wait_for(process, STEPPED)
    begin = time.monotonic()
    wait_for(process, "finished")
    seconds = time.monotonic() - begin
    assert process.wait() == 0
    return seconds


def kill_while_saving(process: "subprocess.Popen[str]", out: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        # One that is being removed has such a name too, but sorts before the newest.
        if max(path.name for path in (out / "checkpoints").iterdir()).endswith(".tmp"):
            process.kill()
            return
    raise AssertionError("no checkpoint was written")


def disturbed(start: Start, out: Path, overrides: list[str], delays: list[float | None]) -> None:
    """Kill each start, then run to the end.

    Each makes its steps and saves once, so that the next one has to go on from there; then it is killed after its
    delay, or while it writes the next checkpoint where that is None.
    """
    for delay in delays:
        process = start(out, overrides)
        wait_for(process, STEPPED)
        wait_for(process, "saved step-")
        if delay is None:
            kill_while_saving(process, out)
        else:
            time.sleep(delay)
            process.kill()
        assert process.wait() == -9, "the run had ended before it was killed"
    process = start(out, overrides)
    wait_for(process, "finished")
    assert process.wait() == 0


def losses(run: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (run / "log/metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines]


def check(start: Start, tmp_path: Path, overrides: list[str], steps: int, kills: list[float | None]) -> None:
    seconds = undisturbed(start, tmp_path / "whole", overrides)
    disturbed(start, tmp_path / "killed", overrides, [kill and kill * seconds for kill in kills])
    whole, killed = (result_files(tmp_path / name, steps) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    for name, content in whole.items():
        assert content == killed[name], f"{name} differs"
    assert len(whole["keys"].splitlines()) == steps
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")
    begun = [
        event for event in read_lines(tmp_path / "killed/log/events.jsonl") if event["event"] in {"start", "resume"}
    ]
    assert [event["event"] for event in begun] == ["start"] + ["resume"] * len(kills)
    points = [event["step"] for event in begun]
    assert points == sorted(set(points)), "a start did not go on from where the one before it had saved"


def test_two_kills(start: Start, tmp_path: Path) -> None:
    # Thirty checkpoints: on a busy machine the watcher may sleep through some of them, but not through all.
    check(start, tmp_path, ["optim.total=720 samples", "checkpoint.every=24 samples"], 90, [0.2, None])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_kills(start: Start, tmp_path: Path) -> None:
    draw = random.Random(20)
    # Up to three distances between checkpoints each, so that ten kills fit into the run; every third one hits a
    # checkpoint being written.
    kills = [None if number % 3 == 2 else draw.uniform(0, 0.04) for number in range(10)]
    overrides = ["optim.total=1600 samples", "checkpoint.every=24 samples", "efficiency.workers=1"]
    check(start, tmp_path, overrides, 200, kills)
