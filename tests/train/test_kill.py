"""Kill -9 of any process at random moments, writing checkpoints included: same keys, views, masks, and weights.

Bitwise the same weights where the continuation promised it, nearly the same elsewhere.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from facemae.checkpoint import find_checkpoint
from facemae.train.record.log import read_lines
from tests.train.conftest import Start, result_files, wait_for
from tests.train.process_tree import alive, family, ranks

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


def kill_one(process: "subprocess.Popen[str]", out: Path, draw: random.Random) -> None:
    """Kill the process that was started or one of those it has started, and see how the others take it."""
    assert process.stderr is not None
    everyone, numbers = family(process.pid), ranks(process.pid)
    victim = draw.choice([process.pid, *sorted(numbers)])
    rank = numbers.get(victim)
    os.kill(victim, signal.SIGKILL)
    said, code = process.stderr.read(), process.wait()
    assert "Traceback" not in said
    if rank is None:
        assert code == -signal.SIGKILL
    else:
        assert code == 1
        assert re.search(rf"facemae: rank {rank} of \d \(process {victim}\) was killed by SIGKILL", said), said
        assert said.count("facemae: ") == 1
        assert "was killed by SIGKILL" in read_lines(out / "log/events.jsonl")[-1]["text"]
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in everyone):
        assert time.monotonic() < deadline, "a process stayed behind"
        time.sleep(0.05)


def disturbed_in_worlds(
    start: Start, out: Path, overrides: list[str], worlds: list[int], most: float, seed: int
) -> None:
    """Kill one process of each start, then run to the end; the starts have these numbers of processes in turn.

    Each makes its steps and saves once, so that the next one has to go on from there; then it has up to `most` seconds.
    """
    draw = random.Random(seed)
    for world in worlds[:-1]:
        process = start(out, overrides, "--processes", str(world))
        wait_for(process, STEPPED)
        wait_for(process, "saved step-")
        time.sleep(draw.uniform(0, most))
        kill_one(process, out, draw)
    process = start(out, overrides, "--processes", str(worlds[-1]))
    wait_for(process, "finished")
    assert process.wait() == 0


def resumes(run: Path) -> list[dict[str, Any]]:
    begun = [event for event in read_lines(run / "log/events.jsonl") if event["event"] in {"start", "resume"}]
    points = [event["step"] for event in begun]
    assert points == sorted(set(points)), "a start did not go on from where the one before it had saved"
    return begun[1:]


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@needs_linux
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_of_any_process_in_changing_worlds(start: Start, tmp_path: Path) -> None:
    overrides = ["data.lanes=4", "optim.total=3200 samples", "checkpoint.every=48 samples", "efficiency.workers=1"]
    seconds = undisturbed(start, tmp_path / "whole", overrides)
    worlds = [1, 2, 4, 2, 1, 4, 4, 2, 2, 1, 2]
    disturbed_in_worlds(start, tmp_path / "killed", overrides, worlds, 0.03 * seconds, seed=21)
    # The same samples, and of each the same views and masks.
    whole, killed = ((tmp_path / name / "log/keys.jsonl").read_bytes() for name in ("whole", "killed"))
    assert whole == killed
    assert len(whole.splitlines()) == 400
    changed_at = None
    for said, before, now in zip(resumes(tmp_path / "killed"), worlds[:-1], worlds[1:], strict=True):
        assert said["facts"]["world"] == now
        if before != now:
            changed_at = said["step"]
        # The first start of all is followed by another world, and no later one undoes that.
        assert not said["bitwise"], said["text"]
        assert said["changed_at"] == changed_at
        assert (f"bitwise as if not interrupted since step {changed_at}" in said["text"]) == (before == now)
        assert (f"world {before} -> {now}" in said["text"]) == (before != now)
    numbers = [[number for line in losses(tmp_path / name) for number in line] for name in ("killed", "whole")]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-4)
    ours, theirs = (find_checkpoint(tmp_path / name).tensors("model") for name in ("killed", "whole"))
    for name, value in theirs.items():
        # A key's bias has no gradient but rounding, since softmax cancels it, and Adam makes that a full step.
        assert name.endswith("qkv.bias") or torch.allclose(ours[name], value, rtol=0, atol=1e-3), name


@needs_linux
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_of_any_process_of_two_are_bitwise_without_effect(start: Start, tmp_path: Path) -> None:
    overrides = ["optim.total=1600 samples", "checkpoint.every=48 samples"]
    seconds = undisturbed(start, tmp_path / "whole", [*overrides, "efficiency.processes=2"])
    disturbed_in_worlds(start, tmp_path / "killed", overrides, [2] * 5, 0.06 * seconds, seed=22)
    assert all(said["bitwise"] for said in resumes(tmp_path / "killed"))
    assert result_files(tmp_path / "whole", 200) == result_files(tmp_path / "killed", 200)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")
