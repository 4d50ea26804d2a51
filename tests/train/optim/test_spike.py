"""Gradients that stand out: noticed before their update, skipped or gone back from; exact however a run is broken."""

import errno
import json
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from facemae.checkpoint import find_checkpoint
from facemae.config import Recipe, SpikeConfig
from facemae.data.index import build_index
from facemae.data.pack import pack_samples
from facemae.data.schema import Batch
from facemae.errors import ConfigError, ResumeError, SpikeError, StorageError
from facemae.objectives.pretraining import PretrainModel
from facemae.train import trainer
from facemae.train.optim.schedule import Lengths, due
from facemae.train.optim.spike import SpikeWatch
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
from facemae.train.strategy import Update
from facemae.train.trainer import Request, RunResult, pretrain, pretrain_among
from tests.spawn import run_in_processes
from tests.train.conftest import Tiny, noise_items, result_files, run_until

STEPS = 20


def slow(value: Any) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


def watched(tiny: Tiny, action: str, *more: str) -> Recipe:
    policy = f"optim.spike={{factor: 20, window: 64 samples, action: {action}, limit: 2}}"
    return tiny(
        "optim.total=160 samples", "checkpoint.every=32 samples", "log.every_steps=1", "log.pictures=160", policy, *more
    )


def spike_at(patch: pytest.MonkeyPatch, *batches: int) -> None:
    """Make the loss of these global batches 10,000 times as large."""
    forward = PretrainModel.forward

    def spiking(self: PretrainModel, batch: Batch, step: int, counts: Any) -> Any:
        loss, metrics = forward(self, batch, step, counts)
        return (loss * 1e4 if batch.step in batches else loss), metrics

    patch.setattr(PretrainModel, "forward", spiking)


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_lines(run / "log/events.jsonl") if event["event"] == kind]


def keys(run: Path) -> list[list[str]]:
    return [line["keys"] for line in read_lines(run / "log/keys.jsonl")]


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


# --- going back ----------------------------------------------------------------------------------------------------


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


@pytest.fixture(scope="module")
def rewound(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A run that met spikes in the batches 7 and 14."""
    from facemae.recipe import load_recipe
    from tests.train.conftest import RECIPE

    folder = tmp_path_factory.mktemp("rewound")
    (folder / "tiny.yaml").write_text(RECIPE.replace("SHARDS", str(shards)))
    recipe = watched(lambda *overrides: load_recipe(folder / "tiny.yaml", overrides), "rewind")
    with pytest.MonkeyPatch.context() as patch:
        spike_at(patch, 7, 14)
        assert pretrain(recipe, folder / "run").stopped == "finished"
    return folder / "run"


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


@pytest.mark.parametrize("granted", ["extend", "adopt_data"])
def test_what_a_start_was_granted_holds_where_the_run_goes_back_to(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granted: str
) -> None:
    shards, out = tmp_path / "faces", tmp_path / "run"
    pack_samples(noise_items(20), shards, shard_size=10)
    recipe = watched(tiny, "rewind", f"data.streams.0.shards={shards}")
    run_until(recipe, out, 5)
    if granted == "extend":
        recipe = watched(tiny, "rewind", f"data.streams.0.shards={shards}", "optim.total=176 samples")
    else:
        pack_samples(noise_items(10, first=50), tmp_path / "more", shard_size=10)
        next((tmp_path / "more").glob("*.tar")).rename(shards / "zz.tar")
        build_index(shards)
    run_until(recipe, out, 6, extend=granted == "extend", adopt_data=granted == "adopt_data")
    spike_at(monkeypatch, 7)
    # Without the flag, as any start may be: the run goes back to step 4, where neither was granted yet.
    assert pretrain(recipe, out).stopped == "finished"
    assert read_rewinds(out / "rewinds.json") == (Rewind(7, 4, 8, undisturbed=False),)
    assert find_checkpoint(out).document("data")["streams"]["faces"]["shards"] == (2 if granted == "extend" else 3)
    back = events(out, "resume")[-1]
    assert back["text"].startswith("continuing from step-00000004: ")
    assert ("another learning rate" if granted == "extend" else "another order of samples") in back["text"]
    assert not back["bitwise"]
    assert "undisturbed run goes back" not in back["text"]
    assert len(events(out, "setup")) == 3


def test_what_came_since_the_start_is_not_adopted_when_the_run_goes_back(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, out = tmp_path / "faces", tmp_path / "run"
    pack_samples(noise_items(20), shards, shard_size=10)
    recipe = watched(tiny, "rewind", f"data.streams.0.shards={shards}")
    run_until(recipe, out, 2)
    spike_at(monkeypatch, 7)

    def grown(*arguments: Any) -> Rewind:
        pack_samples(noise_items(10, first=50), tmp_path / "more", shard_size=10)
        next((tmp_path / "more").glob("*.tar")).rename(shards / "zz.tar")
        build_index(shards)
        return record_rewind(*arguments)

    monkeypatch.setattr(trainer, "record_rewind", grown)
    assert pretrain(recipe, out, adopt_data=True).stopped == "finished"
    assert find_checkpoint(out).document("data")["streams"]["faces"]["shards"] == 2
    assert not (out / "terms.json").exists()


def test_records_of_checkpoints_that_are_gone_are_removed(rewound: Path, tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(rewound, run)
    shutil.rmtree(run / "checkpoints")
    run_until(watched(tiny, "rewind"), run, 9)
    assert events(run, "note")[-1]["text"] == "removed rewinds.json, of a run whose checkpoints are gone"
    saved = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert pretrain(watched(tiny, "rewind"), run).stopped == "finished"
    assert events(run, "resume")[-1]["text"].startswith(f"continuing from {saved[-1]}")


def test_damaged_terms_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    run_until(tiny(), tmp_path / "run", 2)
    (tmp_path / "run/terms.json").write_text("{}")
    with pytest.raises(ResumeError, match="does not say how long the run is and what it reads"):
        pretrain(tiny(), tmp_path / "run")


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
