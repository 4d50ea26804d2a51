"""One system with one seed, trained and probed: the part of an equal-time table that is finished on its own.

A unit is a small JSON file without images, keys or paths. It carries its predictions on test, so that a table can be
completed from units made in several calls and on several machines, with paired differences between any two of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae.files import storage_errors, write_text
from facemae_probes.results.result import ProbeResult
from facemae_probes.studies.calibration import FILE, changes, read_document
from facemae_probes.studies.ferplus_set import CLEAN, all_probes, chosen_setting

FOLDER = "units"
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
"""Classes are written as one character each."""


@dataclass(frozen=True)
class Unit:
    """A finished unit.

    Attributes:
        data: The JSON document.
        origin: Where it was read, for messages.
    """

    data: dict[str, Any]
    origin: str = "this call"

    @property
    def name(self) -> str:
        """The system, or the baseline."""
        return str(self.data["name"])

    @property
    def seed(self) -> int:
        """The seed of pretraining; of the random weights for the random encoder."""
        return int(self.data["seed"])

    @property
    def trained(self) -> bool:
        """Whether it is a system; baselines are not trained."""
        return bool(self.data["kind"] == "system")

    @property
    def file(self) -> str:
        """Its file name."""
        return unit_file(self.name, self.seed)

    @property
    def truth(self) -> NDArray[np.int64]:
        """True classes of the test images."""
        return from_text(self.data["test"]["truth"])

    @property
    def clean(self) -> NDArray[np.bool_]:
        """Which test images have no duplicate in another split."""
        return from_text(self.data["test"]["clean"]).astype(bool)

    @property
    def units(self) -> NDArray[np.int64]:
        """Numbers of the independent units; identical images share one."""
        numbers = np.arange(len(self.data["test"]["truth"]))
        for group in self.data["test"]["groups"]:
            numbers[group] = group[0]
        return numbers

    def predicted(self, probe: str) -> NDArray[np.int64]:
        """Predicted classes of the test images by a probe kind."""
        return from_text(self.data["probes"][probe]["predicted"])


def unit_file(name: str, seed: int) -> str:
    """File name of a unit."""
    return f"{name}-{seed}.json"


def probe_part(result: ProbeResult) -> dict[str, Any]:
    """What a unit keeps of a probe result: choices, numbers, predictions, and what pairs them."""
    probes = all_probes(result)
    for kind in result.scores:
        probes[kind]["predicted"] = to_text(result.predicted(kind))
    _, codes = np.unique(result.units, return_inverse=True)
    rows = np.argsort(codes, kind="stable")
    members = np.split(rows, np.cumsum(np.bincount(codes))[:-1])
    groups = sorted(group.tolist() for group in members if len(group) > 1)
    data = result.data
    return {
        "task": {name: data["task"][name] for name in ("label", "kind", "classes", "unit", "counts", "labels_digest")},
        "data": {"name": data["data"]["card"]["name"], "digest": data["data"]["digest"]},
        "chosen": chosen_setting(result, result.chosen),
        "chosen_on": data["selection"]["on"],
        "probes": probes,
        "test": {
            "truth": to_text(result.targets.values),
            "clean": to_text(result.slices[CLEAN].astype(np.int64)),
            "groups": groups,
        },
        "weights": data["model"]["digest"],
        "probing_seconds": data["duration_s"],
        "warnings": data["warnings"],
        "versions": data["versions"],
    }


def to_text(classes: NDArray[np.int64]) -> str:
    """Class numbers below 36 as one character each."""
    return "".join(DIGITS[number] for number in classes.tolist())


def from_text(text: str) -> NDArray[np.int64]:
    """What `to_text` wrote."""
    return np.array([DIGITS.index(character) for character in text], dtype=np.int64)


def write_unit(out: Path, unit: Unit) -> None:
    """Write a unit to `out/units`."""
    write_text(out / FOLDER / unit.file, json.dumps(unit.data) + "\n")


def read_unit(path: Path) -> Unit:
    """Read a unit.

    Raises:
        ProbeError: The file is none.
    """
    data = read_document(path)
    if data is None or "probes" not in data:
        raise ProbeError(f"{path} is no unit of an equal-time table", fix="remove it from the folder")
    unit = Unit(data, path.name)
    if path.name != unit.file:
        raise ProbeError(f"{path} holds the unit {unit.name} with seed {unit.seed}", expected=f"the name {unit.file}")
    return unit


def read_units(out: Path) -> list[Unit]:
    """All units of `out/units`, by name and seed.

    Raises:
        ProbeError: A file is no unit.
    """
    units = [read_unit(path) for path in sorted((out / FOLDER).glob("*.json"))]
    return sorted(units, key=lambda unit: (unit.name, unit.seed))


def import_units(folder: Path, out: Path) -> list[str]:
    """Copy units, and the calibration where there is none yet, from a folder or its `units` subfolder.

    Returns:
        Names of the files that came.

    Raises:
        ProbeError: The folder has no units, or another unit has the name already.
    """
    found = sorted([*folder.glob("*-*.json"), *folder.glob(f"{FOLDER}/*.json")])
    if not found:
        raise ProbeError(f"{folder} holds no units", expected=f"NAME-SEED.json there or in its folder {FOLDER}/")
    came = []
    for path in found:
        unit, target = read_unit(path), out / FOLDER / path.name
        if not target.exists():
            write_unit(out, unit)
            came.append(path.name)
        elif read_unit(target).data != unit.data:
            raise ProbeError(f"{target} is another unit than {path}", fix="remove one of them")
    rates = folder / FILE
    if rates.exists() and not (out / FILE).exists():
        with storage_errors(rates, "reading"):
            write_text(out / FILE, rates.read_text(encoding="utf-8"))
        came.append(FILE)
    return came


def check_unit(unit: Unit, wanted: Mapping[str, Any]) -> None:
    """Refuse a finished unit that is an answer to another question than the one asked now.

    Args:
        unit: The unit.
        wanted: `minutes`, `probe`, `data` (the digest), and `recipe`, a comparable tree; or `source` of a baseline.

    Raises:
        ProbeError: It differs.
    """
    differs = [
        f"{name} {_of(unit, name)} -> {wanted[name]}"
        for name in ("minutes", "probe", "data", "source")
        if name in wanted and _of(unit, name) != wanted[name]
    ]
    if "recipe" in wanted:
        differs += changes(unit.data["recipe"], wanted["recipe"])
    if differs:
        raise ProbeError(
            f"unit {unit.file} was made otherwise than asked for now: {differs[0]}",
            fix="undo the change, remove the unit, or choose another --out",
        )


def check_together(units: Sequence[Unit]) -> None:
    """Refuse units that cannot stand in one table.

    Raises:
        ProbeError: They differ in data, test images, probing or minutes, or one system was trained by two recipes.
    """
    for unit in units[1:]:
        first = units[0]
        differs = [name for name in ("probe", "data") if _of(unit, name) != _of(first, name)]
        differs += [
            name for name in ("truth", "clean", "groups") if unit.data["test"][name] != first.data["test"][name]
        ]
        differs += ["classes"] if unit.data["task"]["classes"] != first.data["task"]["classes"] else []
        if differs:
            raise ProbeError(
                f"units {first.file} and {unit.file} differ in {', '.join(differs)}",
                expected="units of one data set, probed in one way",
                fix=f"remove one of them from {FOLDER}/",
            )
    trained = [unit for unit in units if unit.trained]
    firsts: dict[str, Unit] = {}
    for unit in trained:
        first = firsts.setdefault(unit.name, unit)
        changed = changes(first.data["recipe"], unit.data["recipe"])
        if unit.data["minutes"] != trained[0].data["minutes"]:
            changed.append(f"minutes {trained[0].data['minutes']:g} -> {unit.data['minutes']:g}")
        if changed:
            raise ProbeError(
                f"unit {unit.file} does not fit the others: {changed[0]}", fix=f"remove one of them from {FOLDER}/"
            )


def _of(unit: Unit, name: str) -> Any:
    return unit.data["data"]["digest"] if name == "data" else unit.data.get(name)
