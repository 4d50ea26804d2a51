"""The step bench: both sides compute the same loss, and what does not is not timed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from facemae.bench import step as bench
from facemae.bench.commands import app
from facemae.bench.data import DataBenchSettings, make_sources
from facemae.bench.step_batches import made_batches
from facemae.bench.step_sides import build_baseline, build_ours
from facemae.config import Recipe
from facemae.data.loader import build_loader
from facemae.data.schema import Batch
from facemae.errors import DataError, UsageError
from facemae.recipe_specs import view_specs
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


SIZES = "name: test_vit, width: 32, depth: 3, heads: 2, patch_size: 8, class_token: false, position: sequence"
CLIPS = bench.StepBenchSettings(
    "hicmae",
    batch=4,
    overrides=(
        "efficiency.device=cpu",
        f"encoder={{{SIZES}, image_size: 32, tubelet: 2, frames: 4}}",
        f"sound_encoder={{{SIZES}, frames: 32, mels: 16}}",
        "views.main.clip.frames=4",
        "sounds.voice.frames=32",
        "sounds.voice.mel.mels=16",
        "fusion.heads=2",
        *(f"objectives.{number}.decoder.{change}" for number in (0, 1) for change in ("width=32", "heads=2")),
        *(f"objectives.{number}.decoder.{change}" for number in (0, 1) for change in ("depth=3", "skips=[2,1]")),
        "objectives.2.weight=0.1",
        "objectives.2.levels=[{blocks: [0, 0]}, {blocks: [1, 2]}]",
    ),
)


def clip_recipe(*overrides: str) -> Recipe:
    return bench.bench_recipe(replace(CLIPS, overrides=(*CLIPS.overrides, *overrides)), Path("none"))


def test_both_sides_have_the_same_loss_on_clips_with_sound() -> None:
    recipe = clip_recipe("efficiency.precision=fp32")
    numerics = Numerics.choose(recipe.efficiency)
    ours, baseline = build_ours(recipe, numerics), build_baseline(recipe, numerics.device, "fp32")
    half = build_baseline(recipe, numerics.device, "bf16")
    batches = made_batches(recipe, 3)
    losses = {name: [float(step(batch)) for batch in batches] for name, step in (("ours", ours), ("fp32", baseline))}
    assert losses["fp32"] == pytest.approx(losses["ours"], abs=1e-4)
    assert losses["ours"][2] != losses["ours"][0]
    assert 0 < abs(float(half(batches[0])) - losses["ours"][0]) < bench.LARGEST_DIFFERENCE


def test_made_batches_are_those_of_the_recipe() -> None:
    recipe = clip_recipe()
    first, second = made_batches(recipe, 2)
    assert (first.step, second.step, len(first)) == (0, 1, 4)
    view, sound = first.views["main"], first.sounds["voice"]
    assert view.visible is not None
    assert sound.visible is not None
    # Two steps of sixteen places, of which int(0.9 * 16) are hidden; of eight patches MAE's one stays visible.
    assert (view.image.shape, view.visible.shape) == ((4, 4, 3, 32, 32), (4, 4))
    assert (sound.mel.shape, sound.visible.shape, bool(sound.present.all())) == ((4, 32, 16), (4, 1), True)
    assert not torch.equal(view.image, second.views["main"].image)
    again = made_batches(recipe, 1)[0]
    assert torch.equal(again.sounds["voice"].mel, sound.mel)


@pytest.mark.parametrize(
    "change",
    ["objectives.2.group=2", "fusion.drop_path=0.1", "objectives.1.target=values", "objectives.0.critic={weight: 0.1}"],
)
def test_a_recipe_for_clips_that_the_baseline_cannot_follow_is_refused(change: str) -> None:
    with pytest.raises(UsageError, match="the baseline cannot follow recipe hicmae"):
        clip_recipe(change)


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
