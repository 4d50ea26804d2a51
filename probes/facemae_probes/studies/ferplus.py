"""FER+ from pixels to a table: does pretraining beat HOG and the same encoder with random weights?

Pretraining sees the train split only. Probe, layer, pooling and hyper-parameters are chosen on the valid split. Of each
probe kind, the random encoder gets the very layer and pooling that the pretrained one chose (strength, neighbours and
epoch are chosen anew), and, in a further line, the best on valid of all it was tried with. Identical images cross the
official splits: every number is given with and without them.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from facemae.config import Recipe
from facemae.errors import ProbeError
from facemae_probes.choosing.plan import ProbePlan, Say
from facemae_probes.features.sources import EncoderSource, FeatureSource, HogSource, PixelSource, Setting
from facemae_probes.heads.attentive import AttentiveSetting
from facemae_probes.results.result import ProbeResult, compare_results
from facemae_probes.runner import versions
from facemae_probes.studies.facts import here, pretraining_facts
from facemae_probes.studies.ferplus_set import (
    CLEAN,
    all_probes,
    chosen_setting,
    numbers,
    prepare_shards,
    published_tree,
    study_recipe,
)
from facemae_probes.studies.ferplus_set import probe as probe_ferplus
from facemae_probes.studies.write import write_report

HOG_FLOOR = 0.612
"""Test accuracy of hand-made HOG features and logistic regression, as published with the data."""
NEEDED_GAIN = 0.08
"""Gain over random weights, in accuracy, that counts as having learned."""
PLAN = ProbePlan(layers=(5, 8, 11), poolings=("mean", "grid2", "grid4"), strengths=(1.0, 0.1, 0.01, 0.001, 0.0001))
"""What is chosen from. It takes two cores some minutes, most of them for the two passes of the encoder."""
OWN_POOLINGS = ("mean", "grid2")
"""Poolings that the random encoder's own choice is made from, besides what the pretrained one chose."""
SIMPLE: tuple[Literal["linear"], Literal["knn"]] = ("linear", "knn")
"""Probes of features that are no tokens."""


def run_study(
    data: Path,
    out: Path,
    *,
    recipe: str = "fmae_tiny_rising",
    overrides: Sequence[str] = (),
    plan: ProbePlan = PLAN,
    command: str | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Run or continue the study.

    Args:
        data: Folder with labels.csv, or an indexed shard set packed from it.
        out: Folder of the study: `shards/`, `run/`, `probes/`, `features/`, and `report/` to publish.
        recipe: Recipe that is pretrained.
        overrides: Changes to it, each `a.b=c`.
        plan: Probes, layers and poolings to choose from.
        command: The command line to name in the report.
        say: Told how it goes.

    Returns:
        What is written to `report/results.json`.

    Raises:
        ProbeError: Pretraining was stopped before its end.
    """
    from facemae.features.extractor import load
    from facemae.train.trainer import pretrain

    # First of all: the revision is that of the code which runs, not of what lies there when it ends.
    machine = here()
    shards = prepare_shards(data, out, say)
    resolved = study_recipe(recipe, overrides, shards)
    run = pretrain(resolved, out / "run")
    if run.stopped != "finished":
        raise ProbeError(f"pretraining stopped at step {run.step} ({run.stopped})", fix="run the same command again")

    def probe(name: str, source: FeatureSource, plan: ProbePlan, also: Sequence[Setting] = ()) -> ProbeResult:
        return probe_ferplus(
            shards, source, plan, out=out / "probes" / name, cache=out / "features", also=also, say=say
        )  # fmt: skip

    trained = EncoderSource(load(out / "run"), name="pretrained")
    first = probe("pretrained", trained, plan)
    untrained = EncoderSource(load(out / "run", random_init=resolved.seed), name="random weights")
    chosen = {kind: chosen_setting(first, kind) for kind in first.data["results"]}
    own_plan = replace(plan, probes=SIMPLE, poolings=_own_poolings(plan))
    own = probe(
        "random-own", untrained, own_plan, also=[Setting(row["layer"], row["pooling"]) for row in chosen.values()]
    )
    same = {kind: probe(f"random-same-{kind}", untrained, same_plan(plan, row)) for kind, row in chosen.items()}
    simple = replace(plan, probes=SIMPLE)
    results = {
        "pretrained": first,
        "random, same probe": same[first.chosen],
        "random, own choice": max([own, *same.values()], key=lambda result: float(result.data["chosen"]["valid"])),
        "raw pixels": probe("pixels", PixelSource(trained.input), simple),
        "HOG": probe("hog", HogSource(trained.input), simple),
    }
    how = {"command": command, "seed": resolved.seed, "pretraining": pretraining_facts(out / "run"), "machine": machine}
    summary = summarise(results, same, own, resolved, {**run.to_json(), "folder": "run"}, how)
    write_report(out, results, summary)
    return summary


def same_plan(plan: ProbePlan, row: dict[str, Any]) -> ProbePlan:
    """The plan that tries one probe at the place another result chose for it.

    Args:
        plan: The plan of that result.
        row: The setting it chose: probe, layer, pooling, and for the attentive probe its hyper-parameters.
    """
    same = replace(plan, probes=(row["probe"],), layers=(row["layer"],))
    if row["probe"] != "attentive":
        return replace(same, poolings=(row["pooling"],))
    setting = AttentiveSetting(**{field.name: row[field.name] for field in fields(AttentiveSetting)})
    return replace(same, attentive=(setting,))


def _own_poolings(plan: ProbePlan) -> tuple[str, ...]:
    if plan.poolings is None:
        return OWN_POOLINGS
    return tuple(name for name in plan.poolings if name in OWN_POOLINGS) or plan.poolings


def summarise(
    results: dict[str, ProbeResult],
    same: dict[str, ProbeResult],
    own: ProbeResult,
    recipe: Recipe,
    run: dict[str, Any],
    how: dict[str, Any],
) -> dict[str, Any]:
    """Lines of the table, paired differences and the verdict.

    Args:
        results: Probe results by line of the table.
        same: Results of the random encoder with the pretrained one's settings, by probe kind.
        own: Result of the random encoder with settings of its own.
        recipe: The recipe that was pretrained.
        run: How pretraining ended.
        how: Command, seed, pretraining facts and machine.
    """
    trained = results["pretrained"]
    gain = {
        f"{metric}{suffix}": _gain(trained, results["random, same probe"], trained.chosen, metric, part)
        for metric in ("accuracy", "macro_f1")
        for suffix, part in (("", None), (" without duplicates", CLEAN))
    }
    listed = {
        "pretrained": all_probes(trained),
        "random, same settings": {kind: all_probes(result)[kind] for kind, result in same.items()},
        "random, own settings": all_probes(own),
        **{name: all_probes(results[name]) for name in ("raw pixels", "HOG")},
    }
    accuracy = trained.data["results"][trained.chosen]["test"]["accuracy"]
    return {
        "schema": 2,
        "study": "ferplus",
        "how": {**how, "probing_seconds": _seconds([*results.values(), *same.values(), own])},
        "recipe": published_tree(recipe),
        "run": run,
        "model": trained.data["model"],
        "data": trained.data["data"],
        "task": trained.data["task"],
        "chosen": chosen_setting(trained, trained.chosen),
        "chosen_on": trained.data["selection"]["on"],
        "lines": {name: _line(result) for name, result in results.items()},
        "all_probes": listed,
        "gain_over_random": gain,
        "gain_by_probe": {kind: _gain(trained, result, kind) for kind, result in same.items()},
        "against_hog": {kind: _against(trained, results["HOG"], kind) for kind in SIMPLE},
        "verdict": {
            "hog_floor": HOG_FLOOR,
            "beats_hog_floor": accuracy > HOG_FLOOR,
            "needed_gain": NEEDED_GAIN,
            "gains_enough": gain["accuracy"]["value"] >= NEEDED_GAIN and gain["accuracy"]["low"] > 0,
        },
        "intervals_cover": (
            "sampling of the test images only: one pretraining, with one seed, and one random encoder were compared"
        ),
        "warnings": {name: result.data["warnings"] for name, result in results.items() if result.data["warnings"]},
        "versions": versions(),
    }


def _gain(
    trained: ProbeResult, random: ProbeResult, kind: str, metric: str = "accuracy", part: str | None = None
) -> dict[str, Any]:
    return compare_results(trained, random, probes=(kind, kind), metric=metric, part=part).to_json()


def _against(trained: ProbeResult, hog: ProbeResult, kind: str) -> dict[str, Any]:
    """The chosen probe of the pretrained encoder against a probe of HOG: difference in accuracy, and what it means."""
    found = compare_results(trained, hog, probes=(trained.chosen, kind))
    if found.low is None or found.high is None:
        outcome = "undecided"
    else:
        outcome = "beats" if found.low > 0 else "loses" if found.high < 0 else "undecided"
    return {
        "hog": hog.data["results"][kind]["test"]["accuracy"],
        **found.to_json(),
        "outcome": outcome,
        "without_duplicates": compare_results(trained, hog, probes=(trained.chosen, kind), part=CLEAN).to_json(),
    }


def _seconds(results: Sequence[ProbeResult]) -> float:
    distinct = {id(result): float(result.data["duration_s"]) for result in results}
    return round(sum(distinct.values()), 1)


def _line(result: ProbeResult) -> dict[str, Any]:
    entry = result.data["results"][result.chosen]
    clean = entry["slices"][CLEAN]
    return {
        "setting": chosen_setting(result, result.chosen),
        "test": numbers(entry["test"]),
        "without_duplicates": numbers(clean),
        "recall": entry["test"]["recall"],
        "confusion": entry["test"]["confusion"],
        "seconds": result.data["duration_s"],
    }
