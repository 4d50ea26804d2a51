"""`facemae bench step`: a training step against one written with timm's blocks, and a run against its parts."""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facemae.bench import step_hicmae
from facemae.bench.data import DataBenchSettings, make_sources
from facemae.bench.report import BenchResult, compare_rates, machine, spread
from facemae.bench.step_run import loader_rate, run_rate
from facemae.bench.step_sides import SIDES, Side, Timing
from facemae.config import Recipe
from facemae.data.workers import default_workers
from facemae.errors import DataError, UsageError
from facemae.objectives.masked_image import MaskedImageConfig
from facemae.objectives.masked_patches import MaskedPatchesConfig
from facemae.recipe import load_recipe
from facemae.recipe_specs import sound_specs, view_specs

LARGEST_DIFFERENCE = 1e-2
"""Of the losses of two sides at the same step."""
_IMAGES = 512
_Tell = Callable[[str], None]


@dataclass(frozen=True)
class StepBenchSettings:
    """What is measured.

    Attributes:
        recipe: Recipe whose decoder, views and optimiser are taken; one objective, `masked_image`, joint decoder; or
            the three of HiCMAE, whose batches are made instead of read.
        encoder: timm name of the encoder; None takes the recipe's.
        image_size: Side of the views; None takes the recipe's.
        batch: Samples in a step.
        steps: Steps of a round on each side.
        rounds: How often each side is measured, in turns.
        threads: Threads of the model on the CPU; None leaves torch's choice.
        overrides: Further changes of the recipe.
    """

    recipe: str = "fmae"
    encoder: str | None = None
    image_size: int | None = None
    batch: int = 16
    steps: int = 2
    rounds: int = 5
    threads: int | None = None
    overrides: tuple[str, ...] = ()


@dataclass
class _Side:
    """What was measured of one side."""

    process: Side
    timings: list[Timing] = field(default_factory=list)
    memory: float = 0.0

    def rates(self, samples: int) -> list[float]:
        return [samples / timing.seconds for timing in self.timings]


def bench_step(settings: StepBenchSettings, *, run: bool = True, tell: _Tell = lambda _: None) -> list[BenchResult]:
    """Measure samples a second of a step and of a run.

    Sides are processes of their own that take turns; a step is the whole of it: from bytes to updated weights.

    Args:
        settings: What is measured.
        run: Also measure a real run and its parts; of pictures only.
        tell: Called with a line of progress now and then.

    Returns:
        Ours against the baseline in fp32 and under bf16 autocast, the peak memory of both, and the run.

    Raises:
        UsageError: The recipe is none that the baseline can follow.
        DataError: Losses of the same step differ by more than 1e-2.
    """
    with tempfile.TemporaryDirectory(prefix="facemae-bench-") as name:
        folder = Path(name)
        recipe = bench_recipe(settings, folder / "shards")
        if recipe.sounds:
            tell("clips and sounds are made, not read: no run is measured")
        else:
            tell("making images")
            make_sources(folder, DataBenchSettings(images=max(_IMAGES, 2 * settings.batch)))
        sides = _measure_sides(recipe, settings, tell)
        results = _compare(recipe, settings, sides)
        if run and not recipe.sounds:
            results.append(_bench_run(recipe, settings, folder, tell))
    return results


def bench_recipe(settings: StepBenchSettings, shards: Path) -> Recipe:
    """The recipe that both sides follow.

    Raises:
        UsageError: The baseline cannot follow it.
    """
    lanes = next(lanes for lanes in (8, 4, 2, 1) if settings.batch % lanes == 0)
    changes = [
        f"data.lanes={lanes}",
        f"data.streams.0.shards={shards}",
        f"optim.batch_size={settings.batch}",
        "log.loggers=[]",
    ]
    named = {"encoder.name": settings.encoder, "encoder.image_size": settings.image_size}
    changes += [f"{key}={value}" for key, value in named.items() if value is not None]
    if settings.threads is not None:
        changes.append(f"efficiency.threads={settings.threads}")
    if settings.recipe == "hicmae":
        changes += step_hicmae.SMALL
    recipe = load_recipe(settings.recipe, [*changes, *settings.overrides])
    if step_hicmae.fits(recipe):
        return recipe
    objective = recipe.objectives[0]
    fits = (
        len(recipe.objectives) == 1
        and isinstance(objective, MaskedImageConfig)
        and (objective.decoder.kind, objective.target) == ("joint", "norm_pix")
        and recipe.encoder.registers == 0
    )
    if not fits:
        raise UsageError(
            f"the baseline cannot follow recipe {recipe.name}",
            expected="one objective, masked_image with a joint decoder and the norm_pix target, and no registers; or "
            "those of HiCMAE, compared over the whole batch",
            fix="facemae bench step --recipe fmae, or --recipe hicmae",
        )
    return recipe


def _measure_sides(recipe: Recipe, settings: StepBenchSettings, tell: _Tell) -> dict[str, _Side]:
    with ExitStack() as stack:
        sides = {name: _Side(stack.enter_context(Side(name, recipe))) for name in SIDES}
        first = {name: side.process.run(settings.steps) for name, side in sides.items()}
        check_losses({name: timing.losses for name, timing in first.items()})
        for number in range(settings.rounds):
            tell(f"steps, round {number + 1} of {settings.rounds}")
            # There and back: a machine that gets slower favours none of them.
            turns = list(sides.values())[:: -1 if number % 2 else 1]
            for side in turns:
                side.timings.append(side.process.run(settings.steps))
        for side in sides.values():
            side.memory = side.process.peak_memory() / 1e6
    check_losses({name: [loss for t in side.timings for loss in t.losses] for name, side in sides.items()})
    return sides


def check_losses(losses: Mapping[str, Sequence[float]]) -> float:
    """The largest difference of a baseline's losses from ours at the same step.

    Raises:
        DataError: It is larger than 1e-2, or not a number.
    """
    ours = losses["ours"]
    found = 0.0
    for name, theirs in losses.items():
        for step, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            difference = abs(mine - other)
            if not difference <= LARGEST_DIFFERENCE:
                raise DataError(
                    f"at step {step} our loss is {mine:.4f} and that of the {name} baseline {other:.4f}",
                    expected=f"a difference of at most {LARGEST_DIFFERENCE}",
                    fix="the sides do not train the same, so there is nothing to compare",
                )
            found = max(found, difference)
    return found


def _compare(recipe: Recipe, settings: StepBenchSettings, sides: dict[str, _Side]) -> list[BenchResult]:
    ours = sides["ours"]
    samples = settings.steps * settings.batch
    shared = {
        **_facts(recipe, settings),
        "ours": ours.process.facts.reason,
        "threads": ours.process.facts.threads,
        "peak_memory_mb": {name: round(side.memory) for name, side in sides.items()},
    }
    results = []
    for name, words in (("fp32", "fp32"), ("bf16", "bf16 autocast")):
        side = sides[name]
        losses = {"ours": _losses(ours), name: _losses(side)}
        facts = {
            "baseline": f"a step written with timm blocks, {words}",
            **shared,
            "baseline_threads": side.process.facts.threads,
            "loss": round(losses["ours"][-1], 4),
            "largest_loss_difference": round(check_losses(losses), 5),
        }
        results.append(_paired(f"step, against {words}", ours.rates(samples), side.rates(samples), "samples/s", facts))
        cpu = [b.cpu_seconds / a.cpu_seconds for a, b in zip(ours.timings, side.timings, strict=True)]
        results[-1].settings["ratio_of_processor_time"] = round(statistics.median(cpu), 3)
    other = sides["bf16"].memory
    facts = {"baseline": "a step written with timm blocks, bf16 autocast", **shared}
    results.append(BenchResult("step, peak memory", ours.memory, other, "MB", other / ours.memory, facts, machine()))
    return results


def _losses(side: _Side) -> list[float]:
    return [loss for timing in side.timings for loss in timing.losses]


def _facts(recipe: Recipe, settings: StepBenchSettings) -> dict[str, Any]:
    (spec,) = view_specs(recipe)
    objective, encoder = recipe.objectives[0], recipe.encoder
    assert spec.mask is not None
    assert isinstance(objective, MaskedPatchesConfig)
    decoder = objective.decoder
    clip = "" if spec.clip is None else f"{spec.clip.frames} frames of "
    own = "" if encoder.width is None else f" of {encoder.depth} blocks, {encoder.width} wide"
    prefix, patches = 0 if encoder.class_token is False else 1, spec.mask.steps * encoder.grid**2
    facts = {
        "recipe": recipe.name,
        "encoder": f"{encoder.name}{own}, {clip}{encoder.image_size} px, patches of {encoder.patch_size}",
        "decoder": f"{decoder.kind}, {decoder.depth} blocks, {decoder.width} wide",
        "tokens": {
            "encoder": spec.mask.keep + prefix,
            "decoder": patches + prefix,
            "decoded": patches - spec.mask.keep,
        },
        **{name: getattr(settings, name) for name in ("batch", "steps", "rounds")},
    }
    for sound in sound_specs(recipe):
        assert sound.mask is not None
        facts["sound"] = f"{sound.frames} frames of {sound.mel.mels} bands, {sound.mask.keep} patches heard"
    return facts


def _paired(name: str, ours: Sequence[float], theirs: Sequence[float], unit: str, facts: dict[str, Any]) -> BenchResult:
    """Medians of two series taken in turns, and their ratio round by round."""
    mine, other, ratio = compare_rates(ours, theirs)
    return BenchResult(name, mine, other, unit, ratio, {**facts, **spread(ours, theirs)}, machine())


def _bench_run(recipe: Recipe, settings: StepBenchSettings, folder: Path, tell: _Tell) -> BenchResult:
    """Samples a second of a run, against those of its loader and its step one after the other."""
    workers = recipe.efficiency.workers
    workers = default_workers() if workers is None else workers
    loader, step, combined = [], [], []
    samples = settings.steps * settings.batch
    with Side("ours", recipe) as side:
        side.run(settings.steps)
        for number in range(settings.rounds):
            tell(f"run, round {number + 1} of {settings.rounds}")
            loader.append(loader_rate(recipe, workers))
            step.append(samples / side.run(settings.steps).seconds)
            combined.append(run_rate(recipe, settings.steps, folder / f"run-{number}", workers))
        facts = side.facts
    serial = [1 / (1 / a + 1 / b) for a, b in zip(loader, step, strict=True)]
    return _paired(
        "run, combined", combined, serial, "samples/s",
        {
            "baseline": "1 / (1 / loader + 1 / step)",
            "loader_alone": round(statistics.median(loader), 2),
            "step_alone": round(statistics.median(step), 2),
            "combined": round(statistics.median(combined), 2),
            "workers": workers,
            "threads": facts.threads,
            **_facts(recipe, settings),
        },
    )  # fmt: skip
