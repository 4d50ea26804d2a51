"""The step bench: both sides compute the same loss, and what does not is not timed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from facemae.bench import step as bench
from facemae.bench.commands import app
from facemae.bench.data import DataBenchSettings, make_sources
from facemae.bench.step_sides import build_baseline, build_ours
from facemae.config import Recipe
from facemae.data.loader import build_loader
from facemae.data.schema import Batch
from facemae.errors import DataError, UsageError
from facemae.recipe import view_specs
from facemae.train.hardware.numerics import Numerics

SETTINGS = bench.StepBenchSettings(
    "fmae_tiny", "test_vit", batch=8, overrides=("efficiency.device=cpu", "objectives.0.decoder.width=32")
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("step")
    make_sources(folder, DataBenchSettings(images=16))
    return bench.bench_recipe(SETTINGS, folder / "shards")


@pytest.fixture
def batches(recipe: Recipe) -> Iterator[Batch]:
    return iter(build_loader(recipe.data, view_specs(recipe), seed=0, batch_size=8, stop_step=3))


def test_both_sides_have_the_same_loss_step_after_step(recipe: Recipe, batches: Iterator[Batch]) -> None:
    efficiency = recipe.efficiency.model_copy(update={"precision": "fp32"})
    numerics = Numerics.choose(efficiency)
    sides = {
        "ours": build_ours(recipe, numerics),
        "fp32": build_baseline(recipe, numerics.device, "fp32"),
        "bf16": build_baseline(recipe, numerics.device, "bf16"),
    }
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for batch in batches:
        for name, step in sides.items():
            losses[name].append(float(step(batch)))
    assert losses["fp32"] == pytest.approx(losses["ours"], abs=1e-4)
    assert losses["bf16"] != losses["fp32"]
    assert 0 < bench.check_losses(losses) < bench.LARGEST_DIFFERENCE
    assert losses["ours"][2] < losses["ours"][0]


@pytest.mark.parametrize("other", [1.02, float("nan")])
def test_sides_that_train_differently_are_not_compared(other: float) -> None:
    with pytest.raises(DataError, match=r"at step 1 our loss is 1\.0000 and that of the bf16 baseline"):
        bench.check_losses({"ours": [1.0, 1.0], "bf16": [1.0, other]})


def test_a_recipe_that_the_baseline_cannot_follow_is_refused(tmp_path: Path) -> None:
    settings = bench.StepBenchSettings("fmae_tiny", overrides=("objectives.0.decoder.kind=cross",))
    with pytest.raises(UsageError, match="the baseline cannot follow recipe fmae_tiny"):
        bench.bench_recipe(settings, tmp_path)


def test_the_command_hands_changes_of_the_recipe_on() -> None:
    result = CliRunner().invoke(app, ["step", "objectives.0.decoder.kind=cross", "--recipe", "fmae_tiny"])
    assert result.exit_code != 0
    assert "the baseline cannot follow recipe fmae_tiny" in str(result.exception)


@pytest.mark.slow
def test_the_command_prints_steps_memory_and_the_run() -> None:
    command = ["step", "--recipe", "fmae_tiny", "--encoder", "test_vit", "--batch", "8", "--quick", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [entry["bench"] for entry in found] == [
        "step, against fp32",
        "step, against bf16 autocast",
        "step, peak memory",
        "run, combined",
    ]
    assert all(entry["ratio"] > 0 for entry in found)
    assert {"loader_alone", "step_alone", "combined"} <= found[3]["settings"].keys()
