"""Gradients that stand out: noticed before their update, and skipped; exact however a run is broken."""

import json
import math
import statistics
from pathlib import Path

import pytest
import torch

from facemae.checkpoint import find_checkpoint
from facemae.config import SpikeConfig
from facemae.errors import ConfigError, SpikeError
from facemae.train.optim.schedule import Lengths
from facemae.train.optim.spike import SpikeWatch
from facemae.train.record.log import read_lines
from facemae.train.strategy import Update
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny, result_files, run_until
from tests.train.spikes import STEPS, events, slow, spike_at, watched

# --- noticing ------------------------------------------------------------------------------------------------------


def update(norm: float, *, bad: bool = False) -> Update:
    zero = torch.zeros(())
    return Update(torch.tensor(norm), torch.tensor(float(bad)), zero, zero + math.inf, torch.zeros(0), ())


def test_the_ceiling_is_a_multiple_of_the_running_median() -> None:
    watch = SpikeWatch(3.0, 5, torch.device("cpu"))
    norms = [4.0, 2.0, 9.0, 1.0, 5.0, 7.0, 3.0, 8.0, 6.0]
    for step, norm in enumerate(norms):
        known = norms[max(0, step - 5) : step]
        expected = 3 * statistics.median_low(known) if len(known) >= 3 else math.inf
        assert watch.ceiling().item() == expected
        watch.push(update(norm))
    before = watch.ceiling().item()
    watch.push(update(math.nan, bad=True))
    watch.push(update(500.0, bad=True))
    assert watch.ceiling().item() == before


def test_steps_without_a_label_do_not_make_those_with_one_stand_out() -> None:
    watch = SpikeWatch(5.0, 8, torch.device("cpu"))
    for step in range(40):
        watch.push(update(0.0 if step % 4 else 1.0))
        assert watch.ceiling().item() == (5.0 if step >= 12 else math.inf)


def test_the_watch_is_kept_over_a_stop() -> None:
    lengths = Lengths(epoch=80, batch=8, total=160, warmup=0, ema=None, save=8, pictures=8, stages={})
    config = SpikeConfig.model_validate({"window": "64 samples"})
    watch = SpikeWatch.open(config, lengths, torch.device("cpu"), ())
    assert len(watch.state()) == 8
    for step in range(5):
        watch.push(update(1.1 + step))
    saved = json.loads(json.dumps(watch.state()))
    assert saved[:3] == [None] * 3
    other = SpikeWatch.open(config, lengths, torch.device("cpu"), saved)
    assert torch.equal(other.ceiling(), watch.ceiling())
    assert other.state() == watch.state()
    with pytest.raises(ConfigError, match="holds 2 steps of 8 samples") as caught:
        SpikeWatch.open(SpikeConfig.model_validate({"window": 16}), lengths, torch.device("cpu"), ())
    assert "at least 4 steps, 32 samples" in str(caught.value)


def test_a_window_in_percent_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="would change when the run is extended"):
        tiny("optim.spike.window=5 percent")


# --- skipping ------------------------------------------------------------------------------------------------------


def test_a_spike_is_skipped_and_changes_no_weight(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spike_at(monkeypatch, 7)
    recipe = watched(tiny, "skip", "checkpoint.every=8 samples", "checkpoint.keep=30", "optim.total=80 samples")
    pretrain(recipe, tmp_path / "run")
    (skip,) = events(tmp_path / "run", "skip")
    assert skip["skipped_step"] == 7
    assert skip["text"].startswith("step 8: gradient norm ")
    before, after, later = (
        find_checkpoint(tmp_path / "run" / f"checkpoints/step-{step:08d}").tensors("model") for step in (7, 8, 9)
    )
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert any(not torch.equal(value, later[name]) for name, value in before.items())
    lines = read_lines(tmp_path / "run/log/metrics.jsonl")
    assert [line["spikes"] for line in lines] == [0] * 8 + [1] * 2
    assert lines[7]["loss"] is None
    assert lines[-1]["skipped"] == 1


def test_without_a_policy_nothing_is_skipped(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spike_at(monkeypatch, 7)
    pretrain(watched(tiny, "skip", "optim.spike=null"), tmp_path / "run")
    assert not events(tmp_path / "run", "skip")
    assert "spikes" not in read_lines(tmp_path / "run/log/metrics.jsonl")[-1]


@pytest.mark.parametrize("step", [8, slow(7), slow(12)])
def test_a_run_that_skips_continues_bitwise(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    spike_at(monkeypatch, 7, 8, 13)
    recipe = watched(tiny, "skip")
    pretrain(recipe, tmp_path / "whole")
    assert [event["skipped_step"] for event in events(tmp_path / "whole", "skip")] == [7, 8, 13]
    run_until(recipe, tmp_path / "run", step)
    pretrain(recipe, tmp_path / "run")
    assert result_files(tmp_path / "run", STEPS) == result_files(tmp_path / "whole", STEPS)


def test_too_many_spikes_in_a_row_stop_the_run(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spike_at(monkeypatch, 6, 10, 11, 12, 13)
    out = tmp_path / "run"
    with pytest.raises(SpikeError, match="as in the 2 updates before it, which were skipped") as caught:
        pretrain(watched(tiny, "skip"), out)
    assert "at most 2 in a row (optim.spike.limit)" in str(caught.value)
    bundle = json.loads((out / "debug/spike-step-00000012.json").read_text())
    assert bundle["gradient_norm"] > bundle["ceiling"] > 0
    assert len(bundle["recent"][-1]["keys"]) == 8
    # Giving up is no part of what was trained.
    assert pretrain(watched(tiny, "skip", "optim.spike.limit=5"), out).stopped == "finished"
