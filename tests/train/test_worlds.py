"""One run in several processes: the same samples, views and weights; one voice; all decide alike."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from facemae.checkpoint import find_checkpoint
from facemae.config import Recipe
from facemae.data.pack import pack_samples
from facemae.data.quarantine import Quarantine
from facemae.data.schema import Batch
from facemae.errors import DataError, FacemaeError, LeaseError
from facemae.objectives.pretraining import PretrainModel
from facemae.train.processes.process_group import Processes, is_peer_failure
from facemae.train.record.log import read_lines
from facemae.train.saving.lease import Lease
from facemae.train.saving.preempt import StopRequest
from facemae.train.trainer import Request, RunResult, pretrain, pretrain_among
from tests.data.test_loader import damage
from tests.spawn import run_in_processes
from tests.train.conftest import Tiny, noise_items, result_files

FOUR_LANES = ("data.lanes=4",)


def train(group: Processes, recipe: Recipe, out: Path) -> RunResult:
    with StopRequest() as stop:
        return pretrain_among(group, Request(recipe, out), stop)


def train_until(group: Processes, recipe: Recipe, out: Path, step: int, rank: int) -> RunResult:
    """Train until one process hears a signal in a step."""
    record = Quarantine.record

    def signalling(self: Quarantine, batch: Batch, *rest: Any, **more: Any) -> None:
        if batch.step == step and group.rank == rank:
            os.kill(os.getpid(), signal.SIGINT)
        record(self, batch, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Quarantine, "record", signalling)
        return train(group, recipe, out)


def weights(run: Path) -> dict[str, torch.Tensor]:
    # A key's bias has no gradient but rounding, since softmax cancels it, and Adam makes that a full step.
    found = find_checkpoint(run).tensors("model")
    return {name: value for name, value in found.items() if not name.endswith("qkv.bias")}


def check_close(ours: Path, theirs: Path, tolerance: float = 1e-6) -> None:
    given = weights(theirs)
    for name, value in weights(ours).items():
        torch.testing.assert_close(value, given[name], atol=tolerance, rtol=0, msg=lambda text: f"{name}: {text}")  # noqa: B023


def resumed(run: Path) -> dict[str, Any]:
    return next(event for event in reversed(read_lines(run / "log/events.jsonl")) if event["event"] == "resume")


@pytest.fixture(scope="module")
def four_lanes(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from facemae.recipe import load_recipe
    from tests.train.conftest import RECIPE

    folder = tmp_path_factory.mktemp("lanes")
    (folder / "tiny.yaml").write_text(RECIPE.replace("SHARDS", str(shards)))
    pretrain(load_recipe(folder / "tiny.yaml", FOUR_LANES), folder / "run")
    return folder / "run"


@pytest.mark.parametrize(("world", "override"), [(2, "exact"), (2, "ddp"), (4, "exact"), (4, "ddp")], ids=str)
def test_several_processes_train_as_one_does(
    tiny: Tiny, tmp_path: Path, four_lanes: Path, world: int, override: str
) -> None:
    out = tmp_path / "run"
    results = run_in_processes(train, world, tiny(*FOUR_LANES, f"efficiency.strategy={override}"), out)
    assert {(result.step, result.stopped) for result in results} == {(8, "finished")}
    assert (out / "log/keys.jsonl").read_bytes() == (four_lanes / "log/keys.jsonl").read_bytes()
    check_close(out, four_lanes)
    ours, theirs = (read_lines(run / "log/metrics.jsonl") for run in (out, four_lanes))
    for name in ("step", "loss", "loss/masked_image", "grad_norm", "lr"):
        assert [line[name] for line in ours] == pytest.approx([line[name] for line in theirs], rel=1e-4), name
    # Every process counts, and none that has loaded torch holds less than this.
    assert ours[-1]["rss_mb"] > 100 * world
    for name in ("views-step-0.png", "reconstruction-step-8.png"):
        assert (out / "log/pictures" / name).is_file()
    kinds = [event["event"] for event in read_lines(out / "log/events.jsonl")]
    assert kinds == [event["event"] for event in read_lines(four_lanes / "log/events.jsonl")]


def test_stopped_by_a_signal_to_one_and_continued_by_as_many_bitwise_and_by_others_nearly(
    tiny: Tiny, tmp_path: Path, four_lanes: Path
) -> None:
    recipe = tiny(*FOUR_LANES)
    whole, out = tmp_path / "whole", tmp_path / "run"
    run_in_processes(train, 2, recipe, whole)
    results = run_in_processes(train_until, 2, recipe, out, 3, 1)
    assert [(result.step, result.stopped) for result in results] == [(4, "SIGINT")] * 2
    others = {world: Path(shutil.copytree(out, tmp_path / f"run{world}")) for world in (1, 4)}
    run_in_processes(train, 2, recipe, out)
    assert resumed(out)["bitwise"]
    assert result_files(out, 8) == result_files(whole, 8)
    for world, folder in others.items():
        run_in_processes(train, world, recipe, folder)
        said = resumed(folder)
        assert not said["bitwise"]
        assert f"world 2 -> {world}" in said["text"]
        assert (folder / "log/keys.jsonl").read_bytes() == (four_lanes / "log/keys.jsonl").read_bytes()
        check_close(folder, whole)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of which every seventh image is no image any more."""
    folder = tmp_path_factory.mktemp("damaged") / "shards"
    items = noise_items(36)
    pack_samples(items, folder, shard_size=12)
    damage(folder, [item.key for item in items[3::7]])
    return folder


def test_replaced_samples_of_all_processes_are_recorded_once(tiny: Tiny, tmp_path: Path, damaged: Path) -> None:
    recipe = tiny(f"data.streams.0.shards={damaged}", "data.max_damage=0.5")
    pretrain(recipe, tmp_path / "one")
    run_in_processes(train, 2, recipe, tmp_path / "two")
    one, two = (read_lines(tmp_path / name / "quarantine.jsonl") for name in ("one", "two"))
    assert len(one) > 5
    assert [(entry["step"], entry["position"]) for entry in two] == sorted(
        (entry["step"], entry["position"]) for entry in one
    )
    assert sorted(map(str, one)) == sorted(map(str, two))
    metrics = [read_lines(tmp_path / name / "log/metrics.jsonl")[-1]["replaced"] for name in ("one", "two")]
    assert metrics == [len(one)] * 2


def error_of(group: Processes, recipe: Recipe, out: Path) -> tuple[str, str]:
    try:
        train(group, recipe, out)
    except FacemaeError as error:
        return type(error).__name__, error.found
    raise AssertionError("no error")


def test_too_much_damage_stops_all_with_the_same_count(tiny: Tiny, tmp_path: Path, damaged: Path) -> None:
    recipe = tiny(f"data.streams.0.shards={damaged}", "data.max_damage=0")
    first, second = run_in_processes(error_of, 2, recipe, tmp_path / "run")
    assert first == second
    assert first[0] == "DamageLimitError"
    assert first[1].startswith("1 of 16 samples did not decode")
    assert read_lines(tmp_path / "run/log/events.jsonl")[-1]["reason"] == "DamageLimitError"


def poisoned(group: Processes, recipe: Recipe, out: Path) -> tuple[str, str]:
    forward = PretrainModel.forward

    def poison(self: PretrainModel, batch: Batch, step: int, counts: Any) -> Any:
        loss, metrics = forward(self, batch, step, counts)
        return (loss * torch.nan if group.rank == 1 and step in {3, 4} else loss), metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainModel, "forward", poison)
        return error_of(group, recipe, out)


def test_values_of_one_process_that_are_not_finite_stop_all_with_everybodys_keys(
    tiny: Tiny, tmp_path: Path, whole: Path
) -> None:
    out = tmp_path / "run"
    first, second = run_in_processes(poisoned, 2, tiny("optim.max_bad_steps=1"), out)
    assert first == second
    assert first[0] == "NonFiniteError"
    assert "2 updates in a row, the last at step 5" in first[1]
    bundle = json.loads((out / "debug/nonfinite-step-00000004.json").read_text())
    known = read_lines(whole / "log/keys.jsonl")
    assert [(entry["step"], entry["keys"]) for entry in bundle["recent"]] == [
        (line["step"] - 1, line["keys"]) for line in known[:5]
    ]


def lost_lease(group: Processes, recipe: Recipe, out: Path) -> str:
    def lose(self: Lease) -> None:
        if (out / "checkpoints/step-00000002").exists():
            raise LeaseError("taken over by another job")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lease, "check", lose)
        try:
            train(group, recipe, out)
        except LeaseError:
            return "LeaseError"
        except RuntimeError as error:
            return "peer failure" if is_peer_failure(error) else str(error)
    return "none"


def test_a_lost_lease_stops_all(tiny: Tiny, tmp_path: Path) -> None:
    assert run_in_processes(lost_lease, 2, tiny(), tmp_path / "run") == ["LeaseError", "peer failure"]
    assert read_lines(tmp_path / "run/log/events.jsonl")[-1]["reason"] == "LeaseError"
    assert find_checkpoint(tmp_path / "run").manifest.step == 2


def test_a_refused_continuation_is_said_by_the_first_process(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretrain(tiny(), out)
    with pytest.raises(AssertionError, match=r"rank 0 of 2 failed") as caught:
        run_in_processes(train, 2, tiny("optim.base_lr=0.1"), out)
    assert str(caught.value).index("ResumeError") < str(caught.value).index("rank 1 of 2")
    assert not (out / "lease.json").exists()


def test_memory_does_not_grow(tiny: Tiny, tmp_path: Path) -> None:
    settings = ("optim.total=1600 samples", "checkpoint.every=800 samples", "log.every_steps=40", "log.keys=false")
    run_in_processes(train, 2, tiny(*settings, "log.pictures=1600 samples"), tmp_path / "run")
    used = [line["rss_mb"] for line in read_lines(tmp_path / "run/log/metrics.jsonl")]
    assert len(used) == 5
    # Keeping the activations of the steps between would be some hundred megabytes.
    assert used[-1] < used[1] + 40, used


def test_processes_with_other_shards_are_refused_alike(tiny: Tiny, tmp_path: Path) -> None:
    recipes = []
    for name, first in (("here", 0), ("there", 50)):
        pack_samples(noise_items(20, first=first), tmp_path / name, shard_size=10)
        recipes.append(tiny(*FOUR_LANES, f"data.streams.0.shards={tmp_path / name}"))
    said = run_in_processes(refused, 2, recipes, tmp_path / "run")
    assert said[0] == said[1]
    assert said[0].startswith("process 1 reads other shards for stream 'faces' than the first process")


def test_processes_with_another_choice_of_samples_are_refused_alike(tiny: Tiny, tmp_path: Path, growing: Path) -> None:
    recipes = []
    for name, numbers in (("here", range(16)), ("there", range(4, 20))):
        (tmp_path / name).write_text("".join(f"face_{number:03d}\n" for number in numbers))
        recipes.append(tiny(*FOUR_LANES, f"data.streams.0.shards={growing}", f"data.streams.0.keys={tmp_path / name}"))
    said = run_in_processes(refused, 2, recipes, tmp_path / "run")
    assert said[0] == said[1]
    assert said[0].startswith("process 1 reads other samples for stream 'faces' than the first process")


def refused(group: Processes, recipes: list[Recipe], out: Path) -> str:
    with pytest.raises(DataError) as caught:
        train(group, recipes[group.rank], out)
    return caught.value.found
