"""Training: resumes bitwise, accumulation changes rounding only, settings of torch are left as they were."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from facemae.checkpoint import find_checkpoint
from facemae.config import Recipe
from facemae.errors import ConfigError, UsageError
from facemae.objectives.pretraining import build_pretrain_model
from facemae.revision import revision
from facemae.train.hardware.numerics import Numerics
from facemae.train.record.log import read_lines
from facemae.train.trainer import RunResult, pretrain
from tests.train.conftest import Tiny, result_files, run_until, stop_at


def run_in_two(recipe: Recipe, out: Path, step: int, **options: Any) -> RunResult:
    run_until(recipe, out, step)
    return pretrain(recipe, out, **options)


def test_the_run_folder_holds_what_it_should(whole: Path) -> None:
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["step-00000006", "step-00000008"]
    metrics = read_lines(whole / "log/metrics.jsonl")
    assert [line["step"] for line in metrics] == [2, 4, 6, 8]
    assert set(metrics[0]) >= {
        *("step", "samples", "epoch", "loss", "loss/masked_image", "lr", "grad_norm"),
        *("samples_per_s", "data_wait", "eta_s", "memory_mb", "skipped", "replaced"),
    }
    events = read_lines(whole / "log/events.jsonl")
    assert [event["code"] for event in events if event["event"] == "start"] == [revision()]
    kinds = [event["event"] for event in events]
    assert kinds == ["setup", "start", "groups", *["save"] * 5, "stop"]
    pictures = {path.name for path in (whole / "log/pictures").iterdir()}
    assert pictures == {"views-step-0.png", "reconstruction-step-4.png", "reconstruction-step-8.png", "curve.png"}
    assert not (whole / "lease.json").exists()
    checkpoint = find_checkpoint(whole)
    assert checkpoint.manifest.cards["faces"].licence == "CC0"
    assert checkpoint.manifest.input.image_size == 16
    assert checkpoint.manifest.machine["precision"] == "fp32"


def test_training_reduces_the_loss(whole: Path) -> None:
    losses = [line["loss"] for line in read_lines(whole / "log/metrics.jsonl")]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("step", [0, 3, 4])
def test_a_stopped_run_continues_bitwise(tiny: Tiny, tmp_path: Path, whole: Path, step: int) -> None:
    assert run_in_two(tiny(), tmp_path / "run", step).stopped == "finished"
    assert result_files(tmp_path / "run", 8) == result_files(whole, 8)
    resume = next(event for event in read_lines(tmp_path / "run/log/events.jsonl") if event["event"] == "resume")
    assert resume["bitwise"]
    assert "bitwise" in resume["text"]
    columns = ("step", "loss", "grad_norm", "lr")
    ours, theirs = (read_lines(run / "log/metrics.jsonl") for run in (tmp_path / "run", whole))
    assert [[line[name] for name in columns] for line in ours] == [[line[name] for name in columns] for line in theirs]


def test_a_run_in_bf16_continues_bitwise(tiny: Tiny, tmp_path: Path) -> None:
    # Attention is another computation there.
    recipe = tiny("efficiency.precision=bf16")
    pretrain(recipe, tmp_path / "whole")
    run_in_two(recipe, tmp_path / "run", 3)
    assert result_files(tmp_path / "run", 8) == result_files(tmp_path / "whole", 8)


def test_a_signal_in_the_last_step_stops_nothing(
    tiny: Tiny, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 7)
    assert pretrain(tiny(), tmp_path / "run").stopped == "finished"
    assert result_files(tmp_path / "run", 8) == result_files(whole, 8)
    stop = read_lines(tmp_path / "run/log/events.jsonl")[-1]
    assert (stop["event"], stop["reason"]) == ("stop", "finished")
    assert stop["text"].startswith("finished: 8 steps")


def test_a_run_of_less_than_a_step_says_what_a_bare_number_counts(tiny: Tiny, tmp_path: Path) -> None:
    pretrain(tiny("optim.total=3"), tmp_path / "run")
    events = read_lines(tmp_path / "run/log/events.jsonl")
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert any("optim.total of 3 samples is less than a step of 8: a number without a unit" in note for note in notes)
    assert events[-1]["text"].endswith(f"; pictures and curve in {tmp_path / 'run/log/pictures'}")


def test_loader_processes_change_nothing(tiny: Tiny, tmp_path: Path, whole: Path) -> None:
    pretrain(tiny("efficiency.workers=2"), tmp_path / "run")
    assert result_files(tmp_path / "run", 8) == result_files(whole, 8)


def test_accumulation_changes_rounding_only(tiny: Tiny, tmp_path: Path, whole: Path) -> None:
    pretrain(tiny("efficiency.micro_batch=2"), tmp_path / "run")
    ours, theirs = (find_checkpoint(run).tensors("model") for run in (tmp_path / "run", whole))
    for name, value in theirs.items():
        # A key's bias has no gradient but rounding, since softmax cancels it, and Adam makes that a full step.
        assert name.endswith("qkv.bias") or torch.allclose(ours[name], value, atol=2e-4), name
    logs = [read_lines(run / "log/metrics.jsonl") for run in (tmp_path / "run", whole)]
    assert [line["loss"] for line in logs[0]] == pytest.approx([line["loss"] for line in logs[1]], rel=1e-5)
    with pytest.raises(ConfigError, match="micro_batch 3 does not divide") as caught:
        pretrain(tiny("efficiency.micro_batch=3"), tmp_path / "other")
    assert "1, 2, 4, 8" in str(caught.value)


def test_a_finished_run_stays_as_it_is(tiny: Tiny, tmp_path: Path, whole: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    result = pretrain(tiny(), run)
    assert (result.step, result.stopped) == (8, "finished")
    assert result.loss is not None
    assert result_files(run, 8) == result_files(whole, 8)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tiny: Tiny, tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "run"
    pretrain(tiny(), out)
    path = out / "checkpoints/step-00000008/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (out / "checkpoints/step-00000010.tmp").mkdir()
    pretrain(tiny(), out)
    notes = [event["text"] for event in read_lines(out / "log/events.jsonl") if event["event"] == "note"]
    assert any("step-00000008" in note and "using the checkpoint before" in note for note in notes)
    assert any("removed step-00000010.tmp" in note for note in notes)
    assert "kept step-00000008.damaged" in notes
    assert result_files(out, 8) == result_files(whole, 8)
    assert (out / "checkpoints/step-00000008.damaged").is_dir()


def test_efficiency_and_log_may_change_and_the_promise_says_what_it_means(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_in_two(tiny(), out, 3)
    pretrain(tiny("efficiency.micro_batch=4", "log.every_steps=1"), out)
    resume = [event for event in read_lines(out / "log/events.jsonl") if event["event"] == "resume"][-1]
    assert not resume["bitwise"]
    assert "micro_batch 8 -> 4" in resume["text"]


def test_a_run_on_other_terms_is_never_called_undisturbed_again(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    other = tiny("efficiency.micro_batch=4")
    run_until(tiny(), out, 1)
    run_until(tiny(), out, 2)
    run_until(other, out, 4)
    run_until(other, out, 5)
    pretrain(tiny(), out)
    said = [event for event in read_lines(out / "log/events.jsonl") if event["event"] == "resume"]
    assert [(event["bitwise"], event["changed_at"]) for event in said] == [
        (True, None),
        (False, 3),
        (False, 3),
        (False, 6),
    ]
    assert "undisturbed" in said[0]["text"]
    assert "micro_batch 8 -> 4" in said[1]["text"]
    assert "bitwise as if not interrupted since step 3" in said[2]["text"]
    assert find_checkpoint(out).document("trainer")["changed_at"] == 6


def test_a_folder_of_something_else_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"not a run folder: it holds thesis\.tex"):
        pretrain(tiny(), tmp_path)


def test_settings_of_torch_are_restored(tiny: Tiny) -> None:
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    numerics = Numerics.choose(tiny().efficiency)
    with numerics.applied():
        assert torch.are_deterministic_algorithms_enabled()
        build_pretrain_model(tiny())
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
