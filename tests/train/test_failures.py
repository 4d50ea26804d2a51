"""Runs that end badly: values that are not finite, full disks, a lost lease; each says so in its folder."""

import json
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from facemae.checkpoint import find_checkpoint, write_checkpoint
from facemae.data.quarantine import Quarantine
from facemae.data.schema import Batch
from facemae.errors import DataError, LeaseError, NonFiniteError, StorageError, UsageError
from facemae.objectives.pretraining import PretrainModel
from facemae.train.record.log import read_lines
from facemae.train.record.status import read_status
from facemae.train.saving import lease, saver
from facemae.train.saving.folder import RunFolder
from facemae.train.saving.lease import Holder, Lease
from facemae.train.trainer import pretrain, record_loss
from tests.train.conftest import Facemae, Mount, Tiny, run_until

BLAMED = "encoder.vit.norm.weight"


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int], *, only_gradient: bool = False) -> None:
    """Make the loss of these steps NaN, or the gradient of one parameter only."""
    forward = PretrainModel.forward
    hooks: list[Any] = []

    def poisoned(self: PretrainModel, batch: Batch, step: int, counts: Any) -> Any:
        while hooks:
            hooks.pop().remove()
        loss, metrics = forward(self, batch, step, counts)
        if step in steps and only_gradient:
            parameter = dict(self.named_parameters())[BLAMED]
            hooks.append(parameter.register_hook(lambda gradient: gradient * torch.nan))  # type: ignore[no-untyped-call]
        elif step in steps:
            loss = loss * torch.nan
        return loss, metrics

    monkeypatch.setattr(PretrainModel, "forward", poisoned)


def last_event(run: Path) -> dict[str, Any]:
    return read_lines(run / "log/events.jsonl")[-1]


def test_bad_updates_are_skipped_recorded_and_counted_over_a_stop(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {2, 3})
    out = tmp_path / "run"
    recipe = tiny("optim.max_bad_steps=2")
    run_until(recipe, out, 4)
    assert pretrain(recipe, out).stopped == "finished"
    skips = [event["skipped_step"] for event in read_lines(out / "log/events.jsonl") if event["event"] == "skip"]
    assert skips == [2, 3]
    metrics = read_lines(out / "log/metrics.jsonl")
    assert metrics[1]["loss"] is None
    assert metrics[-1]["skipped"] == 2
    assert all(value.isfinite().all() for value in find_checkpoint(out).tensors("model").values())


def test_too_many_bad_updates_stop_with_their_keys_and_the_gradient_to_blame(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two steps where one is allowed; the flags of the second are read when the next step, a good one, is done.
    poison(monkeypatch, {3, 4}, only_gradient=True)
    out = tmp_path / "run"
    recipe = tiny("optim.max_bad_steps=1", "optim.clip=1.0")
    with pytest.raises(NonFiniteError, match="2 updates in a row, the last at step 5"):
        pretrain(recipe, out)
    bundle = json.loads((out / "debug/nonfinite-step-00000004.json").read_text())
    assert bundle["bad_parameters"] == [BLAMED]
    assert [entry["step"] for entry in bundle["recent"]] == [0, 1, 2, 3, 4]
    assert len(bundle["recent"][-1]["keys"]) == 8
    assert last_event(out)["reason"] == "NonFiniteError"
    # A streak across a stop and a continuation counts as one.
    with pytest.raises(NonFiniteError, match="last at step 5"):
        pretrain(recipe, out)


def test_a_start_on_shards_that_are_not_there_makes_no_folder(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no shard set"):
        pretrain(tiny(f"data.streams.0.shards={tmp_path / 'gone'}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_start_without_data_is_no_run_yet_and_status_says_so(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UsageError, match="gone"):
        pretrain(tiny("data.streams.0.where={split: gone}"), out)
    assert [path.name for path in out.iterdir()] == ["lease.lock"]
    # As where the first of several processes is killed so early.
    record_loss(RunFolder(out), "ProcessError", "killed")
    found = read_status(out)
    assert found["state"] == "not begun: a start ended before its data were read; the same command tries again"
    assert (found["steps"], found["checkpoints"]) == (None, [])
    with Lease(RunFolder(out).lease):
        assert read_status(out)["state"] == "starting"
    assert pretrain(tiny(), out).stopped == "finished"
    assert read_status(out)["state"] == "finished"
    (out / "recipe.yaml").unlink()
    with pytest.raises(UsageError, match=r"is not a run folder: it has no recipe\.yaml"):
        read_status(out)


def test_disk_full_at_a_save(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    write = write_checkpoint

    def full(folder: Path, *rest: Any, **more: Any) -> Any:
        if folder.name == "step-00000004":
            raise StorageError("the disk is full")
        return write(folder, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(saver, "write_checkpoint", full)
        with pytest.raises(StorageError, match="the disk is full"):
            pretrain(tiny(), out)
    assert find_checkpoint(out).manifest.step == 2
    assert read_status(out)["state"] == "stopped"
    assert last_event(out)["text"] == "stopped after step 4: the disk is full"
    assert pretrain(tiny(), out).stopped == "finished"


def test_disk_full_on_a_full_disk(tiny: Tiny, mount: Mount, whole: Path) -> None:
    out = mount("64m") / "run"
    pretrain(tiny("optim.total=16 samples", "checkpoint.every=8 samples"), out)
    size = sum(path.stat().st_size for path in (out / "checkpoints/step-00000002").iterdir())
    disk = out.parent
    free = shutil.disk_usage(disk).free
    (disk / "other").write_bytes(bytes(free - size // 2))
    longer = tiny("optim.total=64 samples", "checkpoint.every=8 samples")
    with pytest.raises(StorageError, match="the disk is full"):
        pretrain(longer, out, extend=True)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000001", "step-00000002"]
    assert find_checkpoint(out).manifest.step == 2
    (disk / "other").unlink()
    assert pretrain(longer, out, extend=True).stopped == "finished"


@pytest.mark.parametrize("room", [0, 100, 1000, 10_000])
def test_disk_full_in_the_logs(tiny: Tiny, mount: Mount, room: int) -> None:
    disk = mount("16m")
    recipe = tiny("log.every_steps=1")
    run_until(recipe, disk / "run", 1)
    (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - room))
    with pytest.raises(StorageError, match="the disk is full"):
        pretrain(recipe, disk / "run")
    assert find_checkpoint(disk / "run").manifest.step == 2


def test_metrics_on_a_full_device(facemae: Facemae, recipe_file: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no full device")
    out = tmp_path / "run"
    (out / "log").mkdir(parents=True)
    (out / "recipe.yaml").touch()
    (out / "log/metrics.jsonl").symlink_to("/dev/full")
    done = facemae("pretrain", recipe_file, "log.every_steps=1", "--out", out)
    assert done.returncode == 1
    assert f"facemae: the disk is full: writing {out}/log/metrics.jsonl failed" in done.stderr
    assert "to do:    free space" in done.stderr
    assert "Traceback" not in done.stderr
    assert last_event(out)["reason"] == "StorageError"
    assert find_checkpoint(out).manifest.step == 0


def test_a_lost_lease_stops_before_the_save(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    record = Quarantine.record

    def lose(self: Quarantine, batch: Batch, *rest: Any, **more: Any) -> None:
        if batch.step == 1:  # after the step's own check; step 2 is to be saved
            holder = replace(Holder.here(), host="elsewhere", heartbeat=time.time() + 60)
            (out / "lease.json").write_text(json.dumps(asdict(holder)))
            monkeypatch.setattr(lease, "STALE", -1.0)  # as after a pause of that length
        record(self, batch, *rest, **more)

    monkeypatch.setattr(Quarantine, "record", lose)
    with pytest.raises(LeaseError, match="taken over"):
        pretrain(tiny(), out)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000000"]
    assert last_event(out)["reason"] == "LeaseError"
