"""Starting the processes of a run and watching over them: the first error is the one that is heard, nobody stays."""

import errno
import functools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from facemae.config import EfficiencyConfig
from facemae.errors import DataError, ProcessError, StorageError, UsageError
from facemae.parallel import usable_cores
from facemae.train.hardware.numerics import Numerics
from facemae.train.processes import launcher, world
from facemae.train.processes.launcher import ProcessCrash, run_in_processes
from facemae.train.processes.world import check_gpus, choose_world, describe_idle_gpus, place_by_slurm
from facemae.train.record.log import read_lines
from facemae.train.trainer import pretrain
from tests.train import rank_jobs
from tests.train.conftest import Facemae, Start, Tiny, wait_for
from tests.train.process_tree import alive, family, ranks


def run(job: Callable[..., Any], count: int = 2, lost: Callable[[str, str], None] | None = None) -> Any:
    return run_in_processes(job, count, lost or (lambda *_: None))


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_process_is_told_its_place_and_the_first_ones_result_counts() -> None:
    assert run(rank_jobs.tell_place, 3) == ["0", "0", "3", "3", "127.0.0.1"]


def test_the_error_that_came_first_is_the_one_that_is_raised(tmp_path: Path) -> None:
    lost: list[tuple[str, str]] = []
    job = functools.partial(rank_jobs.fail_after_the_others, tmp_path)
    with pytest.raises(DataError, match="the cause") as caught:
        run(job, 3, lambda reason, found: lost.append((reason, found)))
    assert (caught.value.expected, caught.value.fix) == ("none", "nothing")
    assert lost == [("DataError", "the cause")], "the first process does not know why it had to end"
    lost.clear()
    with pytest.raises(DataError, match="all of us"):
        run(rank_jobs.fail_alike, 2, lambda reason, found: lost.append((reason, found)))
    assert not lost, "the first process knows, and writes it down itself"

    for number, error in enumerate((StorageError("the disk is full"), OSError(errno.ESTALE, "Stale file handle"))):

        def unwritten(reason: str, found: str, error: Exception = error) -> None:
            raise error

        again = tmp_path / str(number)
        again.mkdir()
        with pytest.raises(DataError, match="the cause"):
            run(functools.partial(rank_jobs.fail_after_the_others, again), 3, unwritten)


@pytest.mark.parametrize("patient", [True, False])
def test_the_first_process_has_time_to_close_its_loggers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: bool
) -> None:
    monkeypatch.setattr(launcher, "GRACE", 0.3)
    monkeypatch.setattr(launcher, "CLOSING", 60 if patient else 0.3)
    with pytest.raises(DataError, match="all of us"):
        run(functools.partial(rank_jobs.close_slowly, tmp_path, 2 if patient else rank_jobs.LONG))
    assert (tmp_path / "closed").exists() == patient


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(ProcessCrash) as caught:
        run(functools.partial(rank_jobs.have_a_bug, tmp_path))
    text = str(caught.value)
    assert text.startswith("rank 1 failed:\nTraceback")
    assert "in have_a_bug" in text
    assert text.rstrip().endswith("ValueError: a bug")


def test_one_that_leaves_without_a_word_is_named_with_the_last_it_printed() -> None:
    with pytest.raises(ProcessError, match=r"rank 1 of 2 \(process \d+\) ended with exit code 3") as caught:
        run(rank_jobs.leave)
    assert "last words" in str(caught.value)


def test_one_that_is_killed_is_named_and_the_others_end(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"rank 1 of 3 \(process \d+\) was killed by SIGKILL") as caught:
        run(functools.partial(rank_jobs.be_killed, tmp_path), 3)
    assert caught.value.exit_code == 1
    assert "the same command continues" in str(caught.value)
    assert len(rank_jobs.pids(tmp_path)) == 3
    assert not any(alive(pid) for pid in rank_jobs.pids(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on(number: signal.Signals) -> None:
    assert run(functools.partial(rank_jobs.signal_the_starter, number)) == number.name


def test_a_signal_to_one_process_asks_it_alone_however_often() -> None:
    assert run(rank_jobs.hear_a_signal) == "SIGINT"


def test_a_second_ctrl_c_ends_all_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lost: list[tuple[str, str]] = []
    with pytest.raises(KeyboardInterrupt):
        run(functools.partial(rank_jobs.insist, tmp_path), lost=lambda reason, found: lost.append((reason, found)))
    first, second = capfd.readouterr().err.splitlines()[-2:]
    assert (first[:8], second[:13]) == ("Ctrl-C: ", "Ctrl-C again:")
    assert lost == [("KeyboardInterrupt", "a second Ctrl-C ended it at once")]
    assert not any(alive(pid) for pid in rank_jobs.pids(tmp_path))


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    starter = multiprocessing.get_context("fork").Process(
        target=run, args=(functools.partial(rank_jobs.sleep, tmp_path), 2)
    )
    starter.start()
    wait_until(lambda: len(rank_jobs.pids(tmp_path)) == 2)
    starter.kill()
    starter.join()
    wait_until(lambda: not any(alive(pid) for pid in rank_jobs.pids(tmp_path)))


@pytest.mark.parametrize(
    "everybody", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["ctrl-c", "sigterm-to-one"]
)
def test_a_signal_stops_a_run_of_two_with_one_line(start: Start, tmp_path: Path, everybody: bool) -> None:
    long = ["optim.total=80_000 samples", "checkpoint.every=80_000 samples", "efficiency.workers=1"]
    process = start(tmp_path / "run", long, "--processes", "2")
    assert process.stderr is not None
    try:
        wait_for(process, "step 2/")
        members, numbers = family(process.pid), ranks(process.pid)
        assert sorted(numbers.values()) == [0, 1]
        for pid in members if everybody else [max(numbers, key=lambda pid: numbers[pid])]:
            # A terminal sends Ctrl-C to all of them.
            os.kill(pid, signal.SIGINT if everybody else signal.SIGTERM)
        said = [line for line in process.stderr.read().splitlines() if not line.startswith(("step ", "saved "))]
        assert process.wait() == (130 if everybody else 0)
    finally:
        process.kill()
    name = "SIGINT" if everybody else "SIGTERM"
    *answer, line = said
    assert answer == ["Ctrl-C: saving at the end of this step; again, it ends at once"] * everybody
    assert line.startswith(f"stopped by {name} after step ")
    assert line.endswith("saved; the same command continues")
    assert read_lines(tmp_path / "run/log/events.jsonl")[-1]["reason"] == name
    wait_until(lambda: not any(alive(pid) for pid in members))


def test_an_impossible_number_is_refused_before_anything_is_started(
    facemae: Facemae, recipe_file: Path, tmp_path: Path
) -> None:
    done = facemae("pretrain", recipe_file, "--processes", "3", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith("facemae: 3 processes cannot share 2 lanes equally")
    assert "one of 1, 2 processes" in done.stderr
    done = facemae("pretrain", recipe_file, "efficiency.micro_batch=8", "--processes", "2", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "efficiency.micro_batch 8 does not divide the 4 samples of a process's step" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("gpus", "lanes", "micro", "expected"),
    [
        *((0, 8, None, 1), (3, 8, None, 2), (4, 8, None, 4), (5, 8, None, 4), (7, 8, None, 4), (8, 8, None, 8)),
        *((6, 6, None, 6), (7, 6, None, 6), (5, 6, None, 3), (8, 8, 12, 4)),
    ],
)
def test_as_many_processes_as_gpus_can_share_the_lanes(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, gpus: int, lanes: int, micro: int | None, expected: int
) -> None:
    monkeypatch.setattr(world, "visible_gpus", lambda: gpus)
    more = ("optim.batch_size=48", f"data.lanes={lanes}", f"efficiency.micro_batch={micro or 'null'}")
    recipe = tiny("efficiency.device=auto", *more)
    assert choose_world(recipe) == expected
    said = describe_idle_gpus(recipe, expected)
    assert (said is not None) == (expected < gpus)
    assert said is None or said.startswith(f"{expected} of {gpus} GPUs: more processes cannot share")
    assert choose_world(tiny(*more)) == 1, "on the CPU"
    assert choose_world(tiny("efficiency.device=auto", "efficiency.processes=3", *more)) == 3
    assert describe_idle_gpus(tiny("efficiency.device=auto", "efficiency.processes=1", *more), 1) is None


def test_no_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "visible_gpus", lambda: 4)
    check_gpus(EfficiencyConfig(), 2)
    check_gpus(EfficiencyConfig(device="cpu"), 8)
    monkeypatch.setattr(world, "visible_gpus", lambda: 1)
    with pytest.raises(UsageError, match="2 processes on a machine that shows 1 GPUs") as caught:
        check_gpus(EfficiencyConfig(), 2)
    assert "--processes 1" in str(caught.value)


def test_a_number_beside_a_launchers_own_is_refused(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UsageError, match=r"efficiency\.processes is 1 in a run of 2 processes"):
        pretrain(tiny("efficiency.processes=1"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_where_one_of_externally_started_processes_lacks_the_shards_all_end(recipe_file: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    common = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    command = [sys.executable, "-m", "facemae", "pretrain", str(recipe_file), "--out", str(tmp_path / "run")]
    first, second = (
        subprocess.Popen(
            [*command, *overrides],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank, overrides in enumerate([[], [f"data.streams.0.shards={tmp_path / 'gone'}"]])
    )
    try:
        assert "there is no shard set" in second.communicate(timeout=120)[1]
        # It would wait an hour for one that ended before they met.
        assert "lost the others" in first.communicate(timeout=120)[1]
    finally:
        first.kill()
        second.kill()
    assert (first.returncode, second.returncode) == (1, 1)


def test_tasks_of_srun_find_each_other() -> None:
    task = {
        "SLURM_JOB_ID": "71",
        "SLURM_STEP_ID": "2",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_STEP_NODELIST": "gpu[007-008,12],login1",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
    }
    found = place_by_slurm(task)
    assert found == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "gpu007",
        "MASTER_PORT": str(20_000 + 712),
    }
    racks = {**task, "SLURM_STEP_NODELIST": "rack[1-2]node[3,4],other"}
    assert place_by_slurm(racks)["MASTER_ADDR"] == "rack1node3"
    assert place_by_slurm({**task, "SLURM_STEP_NODELIST": "a[2]b,c"})["MASTER_ADDR"] == "a2b"
    for node, local in enumerate((2, 2, 2, 1)):
        there = {**task, "SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": str(node)}
        assert place_by_slurm(there)["LOCAL_WORLD_SIZE"] == str(local)
    assert place_by_slurm({**task, "SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_NODEID": "0"})["LOCAL_WORLD_SIZE"] == "8"
    assert place_by_slurm({**task, "SLURM_STEP_NODELIST": "alone"})["MASTER_ADDR"] == "alone"
    assert place_by_slurm({**task, "MASTER_ADDR": "here", "MASTER_PORT": "1"})["MASTER_ADDR"] == "here"
    # One task of a step starts its own; what torchrun says counts more.
    assert place_by_slurm({**task, "SLURM_STEP_NUM_TASKS": "1"}) == {}
    assert place_by_slurm({**task, "RANK": "0"}) == {}
    # A batch script has the job's variables, but is no step.
    assert place_by_slurm({"SLURM_JOB_ID": "71", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == {}


def test_processes_of_a_machine_divide_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cpu = EfficiencyConfig(device="cpu")
    assert (usable_cores(), Numerics.choose(cpu).threads) == (8, 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert (usable_cores(), Numerics.choose(cpu).threads) == (2, 2)
    assert Numerics.choose(EfficiencyConfig(device="cpu", threads=5)).threads == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert Numerics.choose(cpu).threads == 8
