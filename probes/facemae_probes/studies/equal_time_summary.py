"""The numbers of an equal-time table, from the units there are.

The mean over seeds has an interval of its own: the test images are drawn, and with an image come its predictions by the
encoders of all seeds. So the interval covers the sampling of test images; how far seeds lie apart is shown beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facemae_probes.metrics import Interval, interval, paired_difference
from facemae_probes.studies.calibration import STUDY, busy
from facemae_probes.studies.units import Unit
from facemae_probes.tasks.targets import Targets

COVER = "the sampling of test images; the values of the seeds are shown beside them"
Part = Literal["all", "clean"]


def summarise(units: Sequence[Unit], wanted: Sequence[tuple[str, int]], command: str | None) -> dict[str, Any]:
    """What is written to results.json.

    Args:
        units: The units there are; those of the first wanted system are what differences are to.
        wanted: Names and seeds that the table should have.
        command: The command line to name.
    """
    by_name: dict[str, list[Unit]] = {}
    for name in dict.fromkeys([name for name, _ in wanted] + [unit.name for unit in units]):
        found = [unit for unit in units if unit.name == name]
        if found:
            by_name[name] = sorted(found, key=lambda unit: unit.seed)
    first = by_name.get(wanted[0][0], [])
    present = {(unit.name, unit.seed) for unit in units}
    sample = units[0].data
    lines = {name: _line(found, first) for name, found in by_name.items()}
    trained = [name for name, line in lines.items() if line["kind"] == "system"]
    return {
        "schema": 1,
        "study": STUDY,
        "command": command,
        "minutes": next((unit.data["minutes"] for unit in units if unit.trained), None),
        "probe": sample["probe"],
        "chosen_on": sample["chosen_on"],
        "task": sample["task"],
        "data": sample["data"],
        "first": wanted[0][0],
        "lines": lines,
        "missing": [{"name": name, "seed": seed} for name, seed in wanted if (name, seed) not in present],
        "best_on_valid": {probe: _best(lines, trained, probe) for probe in _probes(units)},
        "intervals_cover": COVER,
        "notes": _notes(units),
        "versions": sample["versions"],
    }


def _line(units: Sequence[Unit], first: Sequence[Unit]) -> dict[str, Any]:
    sample = units[0].data
    line: dict[str, Any] = {
        "kind": sample["kind"],
        "about": sample["about"],
        "seeds": [unit.seed for unit in units],
        "probes": {probe: _probe(units, first, probe) for probe in _probes(units)},
        "chosen": [unit.data["chosen"] for unit in units],
    }
    if units[0].trained:
        line |= {name: sample[name] for name in ("from_recipe", "overrides", "recipe", "samples", "calibration")}
        line["pretraining"] = [unit.data["pretraining"] for unit in units]
        line["curves"] = [unit.data["curve"] for unit in units]
        line["revisions"] = [unit.data["machine"]["revision"] for unit in units]
    line["probing_seconds"] = [unit.data["probing_seconds"] for unit in units]
    return line


def _probe(units: Sequence[Unit], first: Sequence[Unit], probe: str) -> dict[str, Any]:
    entries = [unit.data["probes"][probe] for unit in units]
    return {
        "valid": float(np.mean([entry["setting"]["valid"] for entry in entries])),
        "test": _measured(units, probe, "all"),
        "without_duplicates": _measured(units, probe, "clean"),
        "by_seed": [
            {
                "seed": unit.seed,
                "setting": entry["setting"],
                "accuracy": entry["test"]["accuracy"],
                "macro_f1": entry["test"]["macro_f1"],
                "without_duplicates": entry["without_duplicates"]["accuracy"],
            }
            for unit, entry in zip(units, entries, strict=True)
        ],
        "against_first": _against(units, first, probe),
    }


def _measured(units: Sequence[Unit], probe: str, part: Part) -> dict[str, Any]:
    """Mean accuracy and macro-F1 over the seeds, the accuracy with its interval."""
    kept = "test" if part == "all" else "without_duplicates"
    found = mean_interval(units, probe, part)
    entries = [unit.data["probes"][probe][kept] for unit in units]
    return {
        "count": entries[0]["count"],
        "accuracy": found.value,
        "macro_f1": float(np.mean([entry["macro_f1"] for entry in entries])),
        "intervals": {"accuracy": found.to_json()},
    }


def mean_interval(units: Sequence[Unit], probe: str, part: Part = "all") -> Interval:
    """Mean accuracy over units with its interval: a drawn image counts with the predictions of all of them.

    Args:
        units: Units of one table.
        probe: Probe kind.
        part: All test images, or those without duplicates in other splits.
    """
    targets, numbers, rows = _tested(units[0], part)
    return interval(targets, _scores(units, probe, rows), numbers, "accuracy", unit=units[0].data["task"]["unit"])


def mean_difference(one: Sequence[Unit], other: Sequence[Unit], probe: str, part: Part = "all") -> Interval:
    """Mean paired difference in accuracy, `one` less `other`, over seeds that both have; drawn as in `mean_interval`.

    Args:
        one: Units of a system.
        other: As many of another, with the same seeds in the same order.
        probe: Probe kind.
        part: All test images, or those without duplicates in other splits.
    """
    targets, numbers, rows = _tested(one[0], part)
    first, second = (_scores(units, probe, rows) for units in (one, other))
    return paired_difference(targets, first, second, numbers, "accuracy", unit=one[0].data["task"]["unit"])


def _tested(unit: Unit, part: Part) -> tuple[Targets, NDArray[np.int64], NDArray[np.int64]]:
    """Labels and unit numbers of test images, and which rows they are."""
    rows = np.flatnonzero(unit.clean) if part == "clean" else np.arange(len(unit.truth))
    return Targets("classes", tuple(unit.data["task"]["classes"]), unit.truth[rows]), unit.units[rows], rows


def _scores(units: Sequence[Unit], probe: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Predictions of several units as scores [R, N, C]: one for the predicted class."""
    classes = len(units[0].data["task"]["classes"])
    return np.stack([np.eye(classes)[unit.predicted(probe)[rows]] for unit in units])


def _against(units: Sequence[Unit], first: Sequence[Unit], probe: str) -> dict[str, Any] | None:
    """Difference to the first system over the seeds that both have; a baseline is compared with each of them."""
    if not first or units[0].name == first[0].name:
        return None
    if units[0].trained:
        shared = sorted({unit.seed for unit in units} & {unit.seed for unit in first})
        one = [unit for unit in units if unit.seed in shared]
        other = [unit for unit in first if unit.seed in shared]
    else:
        shared, one, other = [unit.seed for unit in first], [units[0]] * len(first), list(first)
    if not shared or probe not in first[0].data["probes"]:
        return None
    return {
        "seeds": shared,
        "test": mean_difference(one, other, probe).to_json(),
        "without_duplicates": mean_difference(one, other, probe, "clean").to_json(),
    }


def _probes(units: Sequence[Unit]) -> list[str]:
    return list(dict.fromkeys(probe for unit in units for probe in unit.data["probes"]))


def _best(lines: Mapping[str, Any], trained: Sequence[str], probe: str) -> str | None:
    able = [name for name in trained if probe in lines[name]["probes"]]
    return max(able, key=lambda name: float(lines[name]["probes"][probe]["valid"]), default=None)


def _notes(units: Sequence[Unit]) -> list[str]:
    """What a reader has to know before believing the table."""
    notes = []
    trained = [unit for unit in units if unit.trained]
    origins = {
        (unit.data["calibration"]["machine"]["processor"], unit.data["calibration"]["machine"]["revision"])
        for unit in trained
    }
    if len(origins) > 1:
        notes.append(
            f"the units were calibrated {len(origins)} times, on other machines or code: times are equal only among "
            "units of one calibration"
        )
    loads = {
        (unit.data["calibration"]["load_before"], unit.data["calibration"]["machine"]["cores"]) for unit in trained
    }
    notes += [f"when rates were measured, {text}" for load in sorted(loads) if (text := busy(*load))]
    for unit in trained:
        lengths = {other.data["samples"] for other in trained if other.name == unit.name}
        if len(lengths) > 1 and unit.seed == min(other.seed for other in trained if other.name == unit.name):
            notes.append(f"seeds of {unit.name} were trained for different lengths: {sorted(lengths)} samples")
        accepted = unit.data["calibration"]["accepted"]
        if accepted:
            notes.append(f"{unit.name}, seed {unit.seed}, was trained for accepted rates: {'; '.join(accepted)}")
    warned: dict[str, list[str]] = {}
    for unit in units:
        for text in unit.data["warnings"]:
            warned.setdefault(text, []).append(unit.file.removesuffix(".json"))
    everyone = {unit.file.removesuffix(".json") for unit in units}
    notes += [f"{'all' if set(names) == everyone else ', '.join(names)}: {text}" for text, names in warned.items()]
    return notes
