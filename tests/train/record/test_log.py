"""Logs: cut back to a checkpoint, whole lines, means over steps that counted."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from facemae.data.pack import pack_samples
from facemae.train.processes.process_group import OneProcess, ProcessGroup
from facemae.train.record.log import StepLog, append_line, read_lines
from facemae.train.record.metrics import MetricBag
from facemae.train.record.progress import make_bar, metrics_line
from facemae.train.record.status import describe, read_status
from facemae.train.saving.promise import Promise, resume_promise
from facemae.train.trainer import pretrain
from tests.data.test_loader import damage
from tests.spawn import run_in_processes
from tests.train.conftest import Tiny, noise_items, run_until


def test_lines_after_the_checkpoint_are_removed_and_a_torn_one_too(tmp_path: Path) -> None:
    path = tmp_path / "log" / "keys.jsonl"
    log = StepLog(path, 0)
    for step in range(1, 7):
        log.write({"step": step, "keys": ["a"]})
    log.close()
    path.write_bytes(path.read_bytes() + b'{"step": 7, "ke')
    StepLog(path, 4).close()
    assert [line["step"] for line in read_lines(path)] == [1, 2, 3, 4]
    StepLog(path, 4).close()
    assert len(read_lines(path)) == 4
    StepLog(path, 0).close()
    assert path.read_bytes() == b""


def test_an_event_after_a_torn_line_is_on_its_own(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_line(path, {"event": "start"})
    path.write_bytes(path.read_bytes() + b'{"event": "sa')
    append_line(path, {"event": "resume"})
    assert [line["event"] for line in read_lines(path)] == ["start", "resume"]


def test_numbers_json_does_not_know_become_null(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "metrics.jsonl", 0)
    log.write({"step": 1, "loss": float("nan"), "norm": float("inf"), "lr": 0.5})
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": None, "norm": None, "lr": 0.5}


def test_means_leave_out_skipped_steps() -> None:
    bag = MetricBag(torch.device("cpu"))
    good, bad = torch.tensor(0.0), torch.tensor(1.0)
    bag.add({"loss": torch.tensor(1.0)}, good)
    bag.add({"loss": torch.tensor(torch.nan)}, bad)
    saved = bag.state(OneProcess())
    bag.add({"loss": torch.tensor(4.0)}, good)
    assert bag.read(OneProcess()) == {"loss": 2.5}
    other = MetricBag(torch.device("cpu"))
    other.load(json.loads(json.dumps(saved)))
    other.add({"loss": torch.tensor(4.0)}, good)
    assert other.read(OneProcess()) == {"loss": 2.5}
    bag.add({"loss": torch.tensor(torch.nan)}, bad)
    assert bag.read(OneProcess()) == {"loss": None}


def test_means_leave_out_steps_in_which_nothing_counted() -> None:
    good = torch.tensor(0.0)

    def step(bag: MetricBag, mood: float | None) -> None:
        counted = {"masked": True, "mood": mood is not None, "mood/wild": False}
        values = {"loss": 1.0, "loss/masked": 1.0, "loss/mood": mood or 0.0, "accuracy/mood": 0.0, "loss/mood/wild": 0}
        bag.add({name: torch.tensor(value) for name, value in values.items()}, good, counted)

    bag, other = MetricBag(torch.device("cpu")), MetricBag(torch.device("cpu"))
    for mood in (None, 0.5, None):
        step(bag, mood)
    other.load(json.loads(json.dumps(bag.state(OneProcess()))))
    for each in (bag, other):
        step(each, 1.5)
        found = each.read(OneProcess())
        assert found == {
            "loss": 1, "loss/masked": 1, "loss/mood": 1, "accuracy/mood": 0, "loss/mood/wild": None
        }  # fmt: skip


def read_together(group: ProcessGroup) -> tuple[dict[str, float], dict[str, float | None]]:
    bag = MetricBag(torch.device("cpu"))
    good, one = torch.tensor(0.0), torch.tensor(1.0)
    # Where no sample of a process counts for an objective, it may say nothing of it, at first or at all.
    if group.rank == 0:
        bag.add({"loss": one, "accuracy": one / 2, "norm": 3 * one}, good)
    else:
        bag.add({"norm": 0 * one, "loss": one, **({"late": one} if group.rank == 2 else {})}, good)
    return bag.state(group), bag.read(group)


def test_processes_add_up_metrics_by_their_names() -> None:
    sums = {"steps": 1.0, "loss": 3.0, "accuracy": 0.5, "norm": 3.0, "late": 1.0}
    means = {name: value for name, value in sums.items() if name != "steps"}
    assert run_in_processes(read_together, 3) == [(sums, means)] * 3


def test_the_promise_names_what_differs() -> None:
    facts = {"device": "cpu", "threads": 1, "precision": "fp32", "torch": "2.6"}
    assert resume_promise(facts, facts, step=4) == Promise(
        "the same samples, views and masks, and bitwise the weights of an undisturbed run", None
    )
    changed = resume_promise(facts, {**facts, "threads": 2}, step=4)
    assert (changed.bitwise, changed.changed_at) == (False, 4)
    assert "loss of the next steps within 0.001, because of other threads 1 -> 2" in changed.text
    assert not resume_promise({"device": "cuda"}, {"device": "cuda"}).bitwise
    coarser = resume_promise(facts, {**facts, "precision": "bf16"}, step=4)
    assert "loss of the next steps within 0.01, because of other precision fp32 -> bf16" in coarser.text
    other = resume_promise(facts, {**facts, "threads": 2, "torch": "2.7"}, step=4)
    assert "within rounding, unless changed otherwise, because of other threads 1 -> 2, torch 2.6 -> 2.7" in other.text


@pytest.mark.parametrize("name", ["code", "numpy", "torch", "opencv-python-headless", "av", "soxr"])
def test_views_and_masks_are_not_promised_where_other_code_draws_them(name: str) -> None:
    facts = {"device": "cpu", "threads": 1, name: "1"}
    changed = resume_promise(facts, {**facts, name: "2"}, step=4)
    assert (changed.bitwise, changed.changed_at) == (False, 4)
    # Our code and numpy draw the order of samples as well.
    samples = "the same samples, views" if name in ("code", "numpy") else "the same samples; the same views"
    assert changed.text.startswith(f"{samples} and masks unless changed by other {name} 1 -> 2;")
    order = resume_promise(facts, {**facts, name: "2"}, step=4, other_order=True)
    assert order.text.startswith("another order of samples from here")
    assert "the same samples" not in order.text


def test_spectrograms_are_not_promised_on_another_processor() -> None:
    facts = {"device": "cpu", "threads": 1, "processor": "A"}
    assert resume_promise(facts, {**facts, "processor": "B"}).text.startswith("the same samples, views and masks; loss")
    heard = resume_promise(facts, {**facts, "processor": "B"}, sounds=True)
    assert heard.text.startswith("the same samples; the same views and masks unless changed by other processor A -> B;")


def test_the_promise_does_not_forget_that_terms_have_changed() -> None:
    facts = {"device": "cpu", "threads": 1}
    later = resume_promise(facts, facts, step=6, changed_at=4)
    assert (later.bitwise, later.changed_at) == (False, 4)
    assert "bitwise as if not interrupted since step 4, where the run went on on other terms" in later.text
    assert "undisturbed" not in later.text
    assert resume_promise(facts, {**facts, "threads": 2}, step=6, changed_at=4).changed_at == 6


def test_other_data_and_another_length_are_no_undisturbed_run() -> None:
    facts = {"device": "cpu", "threads": 1}
    order = resume_promise(facts, facts, step=6, other_order=True)
    assert (order.bitwise, order.changed_at) == (False, 6)
    assert order.text.startswith("another order of samples from here")
    assert "the same samples" not in order.text
    erased = resume_promise(facts, facts, step=6, erased=True)
    assert (erased.bitwise, erased.changed_at) == (False, 6)
    assert erased.text.startswith(
        "the same samples, views and masks; samples that were erased since are read as their substitutes; bitwise"
    )
    longer = resume_promise(facts, {**facts, "threads": 2}, step=6, longer=(64, 80))
    assert (longer.bitwise, longer.changed_at) == (False, 6)
    assert "another learning rate from here, for 80 samples in place of 64" in longer.text
    assert "loss of the next steps within 0.01, because of other threads" in longer.text


def test_the_setup_says_who_sits_an_epoch_out(whole: Path) -> None:
    (setup,) = (event for event in read_lines(whole / "log/events.jsonl") if event["event"] == "setup")
    assert "8 steps of 8 samples, 36 of 37 samples an epoch: 1 must sit out, another one the next;" in setup["text"]


def test_a_line_for_people_says_what_is_waited_for() -> None:
    record = {"loss": 0.5, "lr": 1e-3, "samples_per_s": 90.0, "data_wait": 0.312, "eta_s": 3723.0}
    assert metrics_line(record) == "loss 0.5000  lr 1.00e-03  90 samples/s  31 % waiting for data  ETA 1:02:03"
    assert metrics_line({**record, "eta_s": None}).endswith("31 % waiting for data")
    assert "  0.45 samples/s  " in metrics_line({**record, "samples_per_s": 0.45})


def test_status_says_when_a_run_ended(whole: Path, tiny: Tiny, tmp_path: Path) -> None:
    found = read_status(whole)
    assert found["state"] == "finished"
    text = describe({**found, "ended": 0.0})
    assert "finished on 19" in text.splitlines()[0]
    assert " ago" in text.splitlines()[0]
    assert "ETA" not in text
    run_until(tiny(), tmp_path / "run", 3)
    assert ": stopped on 20" in describe(read_status(tmp_path / "run"))
    # A service that did not take its last points says so after the end.
    append_line(tmp_path / "run/log/events.jsonl", {"time": 0.0, "event": "logger", "step": 4, "text": "failed"})
    later = read_status(tmp_path / "run")
    assert later["state"] == "stopped"
    assert later["ended"] > 0
    # Killed: nobody said when.
    events = tmp_path / "run/log/events.jsonl"
    events.write_text("".join(events.read_text().splitlines(keepends=True)[:-2]))
    assert read_status(tmp_path / "run")["ended"] is None


def test_replaced_samples_are_those_of_the_whole_run(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    items = noise_items(36)
    pack_samples(items, folder, shard_size=12)
    damage(folder, [item.key for item in items[::9]])
    recipe = tiny(f"data.streams.0.shards={folder}", "data.max_damage=1", "optim.total=96 samples")
    pretrain(recipe, tmp_path / "whole")
    run_until(recipe, tmp_path / "run", 5)
    pretrain(recipe, tmp_path / "run")
    ours, theirs = (
        [line["replaced"] for line in read_lines(tmp_path / name / "log/metrics.jsonl")] for name in ("run", "whole")
    )
    assert ours == theirs
    assert ours[-1] > ours[0] > 0
    assert ours[-1] == len(read_lines(tmp_path / "run/quarantine.jsonl"))


def test_several_streams_have_their_own_losses_and_epochs(tiny: Tiny, shards: Path, tmp_path: Path) -> None:
    pack_samples(noise_items(16, first=100), tmp_path / "other")
    streams = f"data.streams=[{{name: faces, shards: {shards}, share: 3}}, {{name: other, shards: {tmp_path}/other}}]"
    pretrain(tiny(streams), tmp_path / "run")
    for line in read_lines(tmp_path / "run/log/metrics.jsonl"):
        mean = (3 * line["loss/masked_image/faces"] + line["loss/masked_image/other"]) / 4
        assert mean == pytest.approx(line["loss/masked_image"], rel=1e-5)
        assert line["epochs/faces"] == pytest.approx(line["step"] * 6 / 36, abs=1e-4)
        assert line["epochs/other"] == pytest.approx(line["step"] * 2 / 16, abs=1e-4)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_terminal_of_any_width_shows_the_step(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=True)
    bar = make_bar(12_000, console)
    bar.add_task(
        "", total=12_000, completed=11_999, line="loss 2.8887  lr 1.00e-04  1.4 samples/s  54 % waiting for data"
    )
    console.print(bar.get_renderable())
    written = console.file
    assert isinstance(written, io.StringIO)
    assert "step 11999/12000" in written.getvalue()
    assert "loss 2.8887" in written.getvalue()
    assert len(written.getvalue().splitlines()) == 1
