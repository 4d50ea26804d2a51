"""Going back from a spike: where to, what is passed over, and the same however a run is broken."""

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from facemae.config import Recipe
from facemae.data.pack import pack_samples
from facemae.errors import DataError, ResumeError, SpikeError, StorageError
from facemae.train import trainer
from facemae.train.optim.schedule import Lengths, due
from facemae.train.processes.process_group import Processes
from facemae.train.record.log import read_lines
from facemae.train.saving.preempt import StopRequest
from facemae.train.saving.rewind import (
    GoBack,
    Rewind,
    position,
    read_rewinds,
    record_rewind,
    remove_abandoned,
    scheduled,
)
from facemae.train.start import Start
from facemae.train.trainer import Request, RunResult, pretrain, pretrain_among
from tests.spawn import run_in_processes
from tests.train.conftest import Tiny, noise_items, result_files, run_until
from tests.train.spikes import STEPS, events, keys, slow, spike_at, watched


def test_positions_after_going_back() -> None:
    once = (Rewind(spike=13, step=10, position=14),)
    assert [position(once, step) for step in (0, 9, 10, 11)] == [0, 9, 14, 15]
    further = (*once, Rewind(spike=25, step=24, position=30))
    assert [position(further, step) for step in (9, 10, 23, 24)] == [9, 14, 27, 30]
    # Its checkpoint was lost, and it went back behind the first one.
    behind = (*once, Rewind(spike=12, step=8, position=17))
    assert [position(behind, step) for step in (7, 8, 10)] == [7, 17, 19]


def test_the_step_to_go_back_to_is_one_after_which_a_checkpoint_was_due() -> None:
    for every in (1, 8, 12, 20, 32, 1000):
        lengths = Lengths(epoch=80, batch=8, total=160, warmup=0, ema=None, save=every, pictures=8, stages={})
        for step in range(21):
            expected = max([0, *(done for done in range(1, step + 1) if due(every, done * 8, 8))])
            assert scheduled(lengths, step) == expected


def test_the_run_goes_back_and_passes_the_samples_over(rewound: Path, tiny: Tiny, tmp_path: Path) -> None:
    # Batch 7 spikes in step 7, after the checkpoint of step 4; batch 14 is then read by step 10, after that of step 8.
    assert read_rewinds(rewound / "rewinds.json") == (Rewind(7, 4, 8), Rewind(10, 8, 15))
    pretrain(watched(tiny, "rewind", "optim.spike=null", "optim.total=216 samples"), tmp_path / "plain")
    order = keys(tmp_path / "plain")
    assert keys(rewound) == [*order[:4], *order[8:12], *order[15:27]]
    assert [event["step"] for event in events(rewound, "rewind")] == [8, 11]
    resumed = [event["text"] for event in events(rewound, "resume")]
    assert [text.partition(":")[0] for text in resumed] == [
        "continuing from step-00000004",
        "continuing from step-00000008",
    ]
    lines = read_lines(rewound / "log/metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["rewinds"] for line in lines] == [0] * 4 + [1] * 4 + [2] * 12
    assert all(line["loss"] < 10 for line in lines)


@pytest.mark.parametrize("batch", [13, *map(slow, (2, 7, 8, 9, 14, 18))])
def test_a_run_that_went_back_continues_bitwise(
    tiny: Tiny, tmp_path: Path, rewound: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    spike_at(monkeypatch, 7, 14)
    recipe = watched(tiny, "rewind")
    run_until(recipe, tmp_path / "run", batch)
    pretrain(recipe, tmp_path / "run")
    assert result_files(tmp_path / "run", STEPS) == result_files(rewound, STEPS)
    assert read_rewinds(tmp_path / "run/rewinds.json") == read_rewinds(rewound / "rewinds.json")


@pytest.mark.parametrize("recorded", [True, slow(False)])
def test_a_run_killed_while_it_goes_back_continues_bitwise(
    tiny: Tiny, tmp_path: Path, rewound: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    spike_at(monkeypatch, 7, 14)
    record = record_rewind

    def killed(*arguments: Any) -> None:
        if recorded:
            record(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "record_rewind", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain(watched(tiny, "rewind"), tmp_path / "run")
    pretrain(watched(tiny, "rewind"), tmp_path / "run")
    assert result_files(tmp_path / "run", STEPS) == result_files(rewound, STEPS)


@pytest.mark.slow
def test_a_lost_checkpoint_does_not_change_what_is_passed_over(
    tiny: Tiny, tmp_path: Path, rewound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spike_at(monkeypatch, 7, 14)
    recipe = watched(tiny, "rewind", "checkpoint.keep=10")
    run_until(recipe, tmp_path / "run", 9)
    # The stretch in front of the place it went back to has to be done once more.
    for folder in sorted((tmp_path / "run/checkpoints").iterdir())[1:]:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    pretrain(recipe, tmp_path / "run")
    assert keys(tmp_path / "run") == keys(rewound)


def test_too_many_rewinds_stop_the_run(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spike_at(monkeypatch, 7, 9, 11)
    with pytest.raises(SpikeError, match="and the run has gone back 2 times already") as caught:
        pretrain(watched(tiny, "rewind"), tmp_path / "run")
    assert "at most 2 times (optim.spike.limit)" in str(caught.value)
    assert read_lines(tmp_path / "run/log/events.jsonl")[-1]["reason"] == "SpikeError"


def test_an_abandoned_checkpoint_that_stays_is_not_said_to_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (4, 8):
        folder = tmp_path / f"checkpoints/step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "trainer.json").write_text("{}")
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "rename", refused)
    back = [Rewind(spike=6, step=4, position=7)]
    with pytest.raises(StorageError, match=r"removing .*/step-00000008 is not permitted"):
        remove_abandoned(tmp_path, back)
    monkeypatch.setattr(Path, "rename", rename)
    assert remove_abandoned(tmp_path, back) == ["step-00000008"]
    assert not (tmp_path / "checkpoints/step-00000008").exists()


@pytest.mark.parametrize(
    ("target", "changed_at", "undisturbed"),
    [(8, None, True), (8, 3, True), (8, 8, True), (8, 9, False), (12, None, False)],
    ids=["as ever", "other terms before", "at it", "in what is left behind", "to an older one"],
)
def test_a_record_says_whether_an_undisturbed_run_would_have_gone_back_there(
    rewound: Path, tmp_path: Path, target: int, changed_at: int | None, undisturbed: bool
) -> None:
    run = tmp_path / "run"
    for step in (8, 12):
        shutil.copytree(rewound / "checkpoints/step-00000020", run / f"checkpoints/step-{step:08d}")
    manifests = [run / f"checkpoints/step-{step:08d}/manifest.json" for step in (8, 12)]
    manifests[0].write_text(manifests[0].read_text().replace('"step": 20', '"step": 8'))
    manifests[1].write_text("damaged")
    rewind = record_rewind(run, run / "rewinds.json", GoBack(14, 14, target), changed_at)
    assert rewind == Rewind(14, 8, 15, undisturbed)
    assert read_rewinds(run / "rewinds.json") == (rewind,)
    start = Start(state={"step": 8, "changed_at": changed_at}, rewinds=(rewind,))
    assert start.went_back
    assert start.changed_at == (changed_at if undisturbed else 8)
    assert not Start(state={"step": 12}, rewinds=(rewind,)).went_back


def test_going_back_to_where_an_undisturbed_run_would_not_is_said(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spike_at(monkeypatch, 7)

    def as_if_damaged(run: Path, path: Path, request: GoBack, changed_at: int | None) -> Rewind:
        shutil.rmtree(run / "checkpoints/step-00000004")
        return record_rewind(run, path, request, changed_at)

    monkeypatch.setattr(trainer, "record_rewind", as_if_damaged)
    pretrain(watched(tiny, "rewind", "checkpoint.keep=10"), tmp_path / "run")
    (resumed,) = events(tmp_path / "run", "resume")
    assert not resumed["bitwise"]
    assert "undisturbed" not in resumed["text"]


def test_an_error_between_two_starts_is_written_down(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spike_at(monkeypatch, 7)

    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(trainer, "record_rewind", full)
    with pytest.raises(StorageError, match="the disk is full"):
        pretrain(watched(tiny, "rewind"), tmp_path / "run")
    stop = read_lines(tmp_path / "run/log/events.jsonl")[-1]
    assert (stop["event"], stop["reason"]) == ("stop", "StorageError")
    assert stop["text"].endswith("the disk is full")


def test_faces_that_are_gone_when_a_run_goes_back_are_written_down(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tmp_path / "held"
    pack_samples(noise_items(20, first=200), held, shard_size=10)
    spike_at(monkeypatch, 7)

    def losing(*given: Any) -> None:
        record_rewind(*given)
        shutil.rmtree(held)

    monkeypatch.setattr(trainer, "record_rewind", losing)
    watching = (f"monitor.data={held}", "monitor.query={split: train}")
    with pytest.raises(DataError, match="there is no shard set"):
        pretrain(watched(tiny, "rewind", *watching), tmp_path / "run")
    stop = read_lines(tmp_path / "run/log/events.jsonl")[-1]
    assert (stop["event"], stop["reason"]) == ("stop", "DataError")


def test_a_lost_or_damaged_record_is_refused(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spike_at(monkeypatch, 7, 14)
    recipe = watched(tiny, "rewind")
    run_until(recipe, tmp_path / "run", 12)
    record = tmp_path / "run/rewinds.json"
    text = record.read_text()
    record.write_text(text[:-9])
    with pytest.raises(ResumeError, match=r"does not say which samples the run passes over(.|\n)*put the file back"):
        pretrain(recipe, tmp_path / "run")
    record.unlink()
    with pytest.raises(ResumeError, match=r"had passed 13 global batches; by its record rewinds\.json it were 9"):
        pretrain(recipe, tmp_path / "run")
    record.write_text(text)
    assert pretrain(recipe, tmp_path / "run").stopped == "finished"


# --- in several processes ------------------------------------------------------------------------------------------


def train_with_spikes(group: Processes, recipe: Recipe, out: Path) -> RunResult:
    with pytest.MonkeyPatch.context() as patch, StopRequest() as stop:
        spike_at(patch, 7, 14)
        return pretrain_among(group, Request(recipe, out), stop)


@pytest.mark.slow
def test_all_processes_skip_and_go_back_together(tiny: Tiny, tmp_path: Path, rewound: Path) -> None:
    results = run_in_processes(train_with_spikes, 2, watched(tiny, "rewind"), tmp_path / "run")
    assert {(result.step, result.stopped) for result in results} == {(STEPS, "finished")}
    assert keys(tmp_path / "run") == keys(rewound)
    assert read_rewinds(tmp_path / "run/rewinds.json") == read_rewinds(rewound / "rewinds.json")
    losses = [[line["loss"] for line in read_lines(run / "log/metrics.jsonl")] for run in (tmp_path / "run", rewound)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    run_in_processes(train_with_spikes, 2, watched(tiny, "skip"), tmp_path / "other")
    assert [event["skipped_step"] for event in events(tmp_path / "other", "skip")] == [7, 14]
