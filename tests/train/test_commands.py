"""The commands as a person meets them: messages, exit codes, signals."""

import json
import signal
from pathlib import Path

import pytest

from tests.train.conftest import Facemae, Start, wait_for


def test_config_prints_what_pretrain_reads(facemae: Facemae, recipe_file: Path, tmp_path: Path) -> None:
    names = facemae("config", "--list").stdout.split()
    assert "fmae_tiny" in names
    printed = facemae("config", recipe_file, "optim.batch_size=16")
    assert printed.returncode == 0
    (tmp_path / "printed.yaml").write_text(printed.stdout)
    again = facemae("config", tmp_path / "printed.yaml", "--json")
    assert json.loads(again.stdout)["optim"]["batch_size"] == 16


def test_an_unknown_key_names_the_nearest(facemae: Facemae, recipe_file: Path, tmp_path: Path) -> None:
    result = facemae("pretrain", recipe_file, "optim.batchsize=16", "--out", tmp_path / "run")
    assert result.returncode == 2
    assert "optim.batchsize: unknown key; did you mean 'batch_size'?" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_and_a_second_job_is_refused_meanwhile(
    facemae: Facemae, start: Start, recipe_file: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "run"
    long = ["optim.total=80_000 samples", "checkpoint.every=80_000 samples"]
    process = start(out, long)
    wait_for(process, "step 2/")
    if number == signal.SIGTERM:
        second = facemae("pretrain", recipe_file, *long, "--out", out)
        assert second.returncode == 1
        assert f"in use by process {process.pid}" in second.stderr
        found = json.loads(facemae("status", out, "--json").stdout)
        assert found["state"] == "running"
        assert found["holder"]["pid"] == process.pid
        assert found["steps"] == 10_000
    process.send_signal(number)
    text = wait_for(process, "stopped by")
    assert number.name in text
    assert "the same command continues" in text
    assert process.wait() == code
    shown = facemae("status", out)
    assert "stopped" in shown.stdout
    assert "checkpoints step-" in shown.stdout


def test_status_of_something_else(facemae: Facemae, tmp_path: Path) -> None:
    result = facemae("status", tmp_path)
    assert result.returncode == 2
    assert "is not a run folder" in result.stderr


def test_data_goes_to_the_stream_it_names(facemae: Facemae, recipe_file: Path, shards: Path, tmp_path: Path) -> None:
    short = ("optim.total=8 samples", "optim.warmup=0 samples")
    done = facemae(
        "pretrain", recipe_file, *short, "data.streams.0.shards=''", f"--data=faces={shards}",
        "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stopped"] == "finished"
    twice = facemae("pretrain", recipe_file, "--data", shards, "--data", shards, "--out", tmp_path / "other")
    assert twice.returncode == 2
    assert "given twice" in twice.stderr


def test_a_misspelt_command_is_answered_with_the_nearest(facemae: Facemae) -> None:
    result = facemae("pretain", "fmae_tiny")
    assert result.returncode == 2
    assert result.stderr.startswith("facemae: there is no command 'pretain'")
    assert "to do:    facemae pretrain" in result.stderr
