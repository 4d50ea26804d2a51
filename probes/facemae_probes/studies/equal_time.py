"""Which way of pretraining learns most in a given time? Several systems on FER+, each trained for equally long.

Equal time is given out as samples: each system's rate is measured first, in turns with the others (`calibration`), and
its run is as long as its rate times the minutes. So a run may be interrupted, continued, or share the machine, and its
result stays the same. Each system with each seed is a unit that is finished on its own (`units`); the table is written
from the units there are.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from facemae.config import Recipe
from facemae.errors import ProbeError, UsageError
from facemae_probes.choosing.plan import ProbePlan, Say
from facemae_probes.features.sources import EncoderSource, FeatureSource, HogSource
from facemae_probes.heads.attentive import AttentiveSetting
from facemae_probes.results.result import ProbeResult
from facemae_probes.studies import calibration as rates
from facemae_probes.studies import ferplus
from facemae_probes.studies.equal_time_report import write_table
from facemae_probes.studies.facts import here, monitored, pretraining_facts
from facemae_probes.studies.ferplus_set import LABEL, WHERE, prepare_shards, probe, study_recipe
from facemae_probes.studies.systems import BASELINES, System, find_systems
from facemae_probes.studies.units import FOLDER, Unit, check_unit, probe_part, read_unit, unit_file, write_unit

QUICK = ProbePlan(
    layers=(-3, -1),
    poolings=("mean", "grid4"),
    strengths=(0.1, 0.01, 0.001, 0.0001),
    attentive=(AttentiveSetting(lr=3e-3), AttentiveSetting(lr=1e-2)),
    attentive_layers=1,
)
"""The two ends of the encoder's last quarter, one pass over the images. About five minutes on two cores: half of it
features, a third the linear probe on `grid4`; the attentive probe is tried on the layer whose other probes did best."""
MONITOR = {
    "label": LABEL,
    "reference": {"split": "train", **WHERE},
    "query": {"split": "valid", **WHERE},
    "every": "10 percent",
    "samples": 1000,
}
"""kNN accuracy during the runs, on valid: how a system gets to where it ends. Its time is not the system's."""
PLANS = {"quick": QUICK, "full": ferplus.PLAN}
"""How thoroughly is chosen."""


@dataclass(frozen=True)
class Table:
    """What is compared.

    Attributes:
        systems: The systems; differences are to the first.
        minutes: Time each of them gets.
        seeds: Seeds of pretraining.
        probe: Key of `PLANS`.
        baselines: Whether there are lines of the random encoder and of HOG.
    """

    systems: tuple[System, ...] = find_systems(())
    minutes: float = 60.0
    seeds: tuple[int, ...] = (0, 1)
    probe: str = "quick"
    baselines: bool = True

    def __post_init__(self) -> None:
        if self.probe not in PLANS:
            raise UsageError(f"--probe {self.probe}", expected=" or ".join(PLANS))
        if not self.minutes > 0:
            raise UsageError(f"--minutes {self.minutes:g}", expected="more than 0")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"--seeds {self.seeds}", expected="one seed or more, each once")

    def wanted(self) -> list[tuple[str, int]]:
        """All units, so that a table of one seed is whole first: the systems seed by seed, then the baselines."""
        systems = [(system.name, seed) for seed in self.seeds for system in self.systems]
        return systems + [(name, 0) for name in BASELINES if self.baselines]

    def chosen(self, only: str | None, seed: int | None) -> list[tuple[str, int]]:
        """The units of `--only` and `--seed`; all without them.

        Raises:
            UsageError: The table has no such unit.
        """
        units = [
            (name, number)
            for name, number in self.wanted()
            if only in (None, name) and (seed in (None, number) or name in BASELINES)
        ]
        if not units:
            names = ", ".join(dict.fromkeys(name for name, _ in self.wanted()))
            raise UsageError(
                f"the table has no unit {only or 'of any system'}{'' if seed is None else f' with seed {seed}'}",
                expected=f"a name among {names}, and a seed among {', '.join(map(str, self.seeds))}",
            )
        return units


@dataclass(frozen=True)
class Calibrating:
    """How rates are come by.

    Attributes:
        rounds: How long they are measured.
        again: Measure though there are rates.
        accept: Take rates of another machine or other code.
        only: Measure, and train nothing.
    """

    rounds: rates.Rounds = field(default_factory=rates.Rounds)
    again: bool = False
    accept: bool = False
    only: bool = False


def run_equal_time(
    data: Path,
    out: Path,
    table: Table,
    *,
    only: str | None = None,
    seed: int | None = None,
    calibrating: Calibrating | None = None,
    command: str | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Run or continue the study.

    Args:
        data: Folder of FER+ with labels.csv, or an indexed shard set packed from it.
        out: Folder of the study: `calibration.json`, `units/`, `runs/`, `probes/`, and `report/` to publish.
        table: What is compared.
        only: Only the units of this system or baseline.
        seed: Only the units with this seed.
        calibrating: How rates are come by.
        command: The command line to name in the report.
        say: Told how it goes.

    Returns:
        What is written to `report/results.json`; the calibration where only that was asked for.

    Raises:
        ConfigError: A recipe does not exist or fit.
        ProbeError: Rates or units do not belong to what is asked for, or pretraining was stopped before its end.
        UsageError: The table has no unit that was asked for.
    """
    chosen = table.chosen(only, seed)
    calibrating = calibrating or Calibrating()
    study = _Study(prepare_shards(data, out, say), out, table, say)
    calibration, accepted = study.calibration(calibrating)
    if calibrating.only:
        return calibration
    summary = None
    for name, number in chosen:
        if study.finished(name, number):
            say(f"{name}, seed {number}: done, its unit is read")
            continue
        if name in BASELINES:
            study.baseline(name)
        else:
            study.train(name, number, calibration, accepted)
        summary = write_table(out, table.wanted(), command)
    return summary or write_table(out, table.wanted(), command)


class _Study:
    """The units of one table in one folder."""

    def __init__(self, shards: Path, out: Path, table: Table, say: Say) -> None:
        self.shards, self.out, self.table, self.say = shards, out, table, say
        # First of all: the code is that which runs, not what lies there when it ends.
        self.machine = here()
        self.systems = {system.name: system for system in table.systems}
        self.recipes = {system.name: study_recipe(system.recipe, system.overrides, shards) for system in table.systems}
        self.data = _data_facts(shards)

    def calibration(self, how: Calibrating) -> tuple[dict[str, Any], list[str]]:
        """The rates, measured where there are none, and in what they are those of another machine or code."""
        found = rates.read_calibration(self.out)
        if found is not None and how.again:
            self._refuse_new_rates()
        if found is None or how.again:
            found = rates.calibrate(self.recipes, self.data, how.rounds, self.say)
            rates.write_calibration(self.out, found)
        device = rates.this_device(self.recipes)
        accepted = rates.check_calibration(found, self.recipes, self.data, device=device, accept=how.accept)
        for text in accepted:
            self.say(f"rates were measured elsewhere and are accepted: {text}")
        return found, accepted

    def _refuse_new_rates(self) -> None:
        begun = [path.name for path in sorted((self.out / "runs").glob("*")) if (path / "recipe.yaml").exists()]
        begun += [path.stem for path in sorted((self.out / FOLDER).glob("*.json")) if path.stem not in begun]
        begun = [name for name in begun if name.rpartition("-")[0] not in BASELINES]
        if begun:
            raise ProbeError(
                f"new rates would give other lengths than those of {', '.join(begun)}",
                expected="rates measured before the first unit is begun",
                fix="choose another --out, or go on with the rates there are (--accept-calibration)",
            )

    def finished(self, name: str, seed: int) -> bool:
        """Whether the unit is there; refused where it was made otherwise than asked for now."""
        path = self.out / FOLDER / unit_file(name, seed)
        if not path.exists():
            return False
        wanted: dict[str, Any] = {"probe": self.table.probe, "data": self.data["digest"]}
        if name in BASELINES:
            wanted["source"] = self._baseline_source(name).identity()
        else:
            wanted |= {"minutes": self.table.minutes, "recipe": rates.comparable(self.recipes[name])}
        check_unit(read_unit(path), wanted)
        return True

    def train(self, name: str, seed: int, calibration: dict[str, Any], accepted: list[str]) -> None:
        """Pretrain, probe and record one unit."""
        from facemae.features.extractor import load
        from facemae.train.trainer import pretrain

        recipe, entry = self.recipes[name], calibration["systems"][name]
        samples = rates.samples_for(entry, self.table.minutes, recipe.optim.batch_size)
        run = self.out / "runs" / f"{name}-{seed}"
        self.say(f"{name}, seed {seed}: {samples} samples, {self.table.minutes:g} minutes at its rate")
        ended = pretrain(_for_unit(recipe, seed, samples), run)
        if ended.stopped != "finished":
            raise ProbeError(
                f"pretraining of {name}, seed {seed}, stopped at step {ended.step} ({ended.stopped})",
                fix="run the same command again",
            )
        result = self._probe(f"{name}-{seed}", EncoderSource(load(run), name=name), PLANS[self.table.probe])
        system = self.systems[name]
        self._record(
            result,
            kind="system",
            name=name,
            seed=seed,
            about=system.about,
            from_recipe=system.recipe,
            overrides=list(system.overrides),
            recipe=rates.comparable(recipe),
            minutes=self.table.minutes,
            samples=ended.samples,
            calibration={
                "samples_per_s": entry["samples_per_s"],
                "spread": entry["spread"],
                "machine": calibration["machine"],
                "load_before": calibration["load_before"],
                "accepted": accepted,
            },
            pretraining=pretraining_facts(run),
            curve=monitored(run),
        )

    def baseline(self, name: str) -> None:
        """Probe and record a line that is not trained."""
        source = self._baseline_source(name)
        plan = PLANS[self.table.probe]
        if name == "hog":
            plan = replace(plan, probes=ferplus.SIMPLE)
        result = self._probe(f"{name}-0", source, plan)
        self._record(result, kind="baseline", name=name, seed=0, about=_BASELINE[name], source=source.identity())

    def _baseline_source(self, name: str) -> FeatureSource:
        """The random encoder is that of the first system, with the weights of its step 0 with seed 0."""
        from facemae.data.card import read_card
        from facemae.features.extractor import FeatureExtractor
        from facemae.models.encoder import build_encoder
        from facemae.models.init import initialise
        from facemae.recipe_specs import model_input

        recipe = self.recipes[self.table.systems[0].name]
        if name == "hog":
            return HogSource(model_input(recipe))
        encoder = build_encoder(recipe.encoder)
        initialise(encoder, 0, prefix="encoder.")
        crop = read_card(self.shards).crop
        extractor = FeatureExtractor.from_encoder(encoder, recipe.encoder, model_input(recipe), crop=crop)
        return EncoderSource(extractor, name="random weights")

    def _probe(self, unit: str, source: FeatureSource, plan: ProbePlan) -> ProbeResult:
        features = self.out / "features" / unit
        result = probe(self.shards, source, plan, out=self.out / "probes" / unit, cache=features, say=self.say)
        # Tokens of all images are gigabytes, and nothing else reads them.
        shutil.rmtree(features, ignore_errors=True)
        return result

    def _record(self, result: ProbeResult, **facts: Any) -> None:
        about = {"schema": 1, "study": rates.STUDY, **facts, "probe": self.table.probe, "machine": self.machine}
        write_unit(self.out, Unit({**about, **probe_part(result)}))


_BASELINE = {"random": "the first system's encoder with random weights", "hog": "histograms of oriented gradients"}


def _for_unit(recipe: Recipe, seed: int, samples: int) -> Recipe:
    tree = rates.all_cores(recipe).model_dump(by_alias=True)
    tree["optim"]["total"] = samples
    return Recipe.model_validate({**tree, "seed": seed, "monitor": MONITOR})


def _data_facts(shards: Path) -> dict[str, Any]:
    from facemae.data.card import read_card
    from facemae.data.index import ShardIndex

    index = ShardIndex.open(shards)
    return {"name": read_card(shards).name, "digest": index.digest, "samples": len(index)}


def seeds_of(text: str) -> tuple[int, ...]:
    """Seeds from a comma-separated list.

    Raises:
        UsageError: They are no whole numbers from 0 on.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise UsageError(f"--seeds {text}", expected="whole numbers from 0 on, such as 0,1")
    return tuple(int(part) for part in parts)


def systems_of(words: Sequence[str]) -> tuple[System, ...]:
    """Systems from names, or from one YAML file."""
    from facemae_probes.studies.systems import read_systems

    if len(words) == 1 and Path(words[0]).suffix in {".yaml", ".yml"}:
        return read_systems(Path(words[0]))
    return find_systems(words)
