"""How fast each system trains here, so that equal time can be given out as samples.

A rate is measured on the real run: loader, augmentation, step and log, of miniature runs that go through the whole
schedule, so that a run with cheap and dear stages is weighed as it will be. Systems take turns in short rounds, because
other load on the machine comes and goes: within a round it meets all systems alike.
"""

import contextlib
import io
import json
import math
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facemae.config import Recipe
from facemae.errors import ProbeError
from facemae.files import storage_errors, write_text
from facemae.parallel import usable_cores
from facemae_probes.choosing.plan import Say
from facemae_probes.studies.facts import here, training_code
from facemae_probes.studies.ferplus_set import published_tree

STUDY = "equal-time"
FILE = "calibration.json"
SETTLE = 10
"""Steps of the first, short run of a system, which tells how long the others have to be."""
WARM = 5
"""First steps of a run that are not timed: workers start and caches fill."""
PARTS = 10
"""Parts of a run that are averaged on their own, so that leaving out the first steps does not change the weights of
the stages."""
NOT_COMPARED = ("seed", "log", "monitor", "checkpoint", "about")
"""Blocks of a recipe that a study sets, or that change nothing it measures."""
BUSY = 0.5
"""Load for each core from which on a machine is called busy."""
MACHINE = ("processor", "cores", "device", "gpu")
"""Facts that have to be the same for a rate to hold."""


@dataclass(frozen=True)
class Rounds:
    """How long is measured.

    Attributes:
        count: Rounds.
        seconds: Seconds a system gets in a round.
    """

    count: int = 3
    seconds: float = 20.0


def calibrate(recipes: Mapping[str, Recipe], data: Mapping[str, Any], rounds: Rounds, say: Say) -> dict[str, Any]:
    """Measure the rates of systems in turns.

    Args:
        recipes: Resolved recipes with their data, by name of the system.
        data: Name, digest and samples of the shard set.
        rounds: How long.
        say: Told how it goes.

    Returns:
        What is written to calibration.json.

    Raises:
        ProbeError: It was stopped by a signal.
    """
    load = round(os.getloadavg()[0], 2)
    if busy(load, usable_cores()):
        say(f"calibration: {busy(load, usable_cores())}; on an idle machine the rates would be higher and surer")
    steps, facts = {}, {}
    for name, recipe in recipes.items():
        rate, facts[name] = measure(recipe, SETTLE)
        steps[name] = max(SETTLE, round(rate * rounds.seconds / recipe.optim.batch_size))
        say(f"calibration: {name}: about {rate:.1f} samples/s")
    rates: dict[str, list[float]] = {name: [] for name in recipes}
    for number in range(rounds.count):
        # Every other round goes backwards, so that no system is always the first or the last.
        for name in list(recipes)[:: -1 if number % 2 else 1]:
            rate, facts[name] = measure(recipes[name], steps[name])
            rates[name].append(rate)
            say(f"calibration, round {number + 1} of {rounds.count}: {name}: {rate:.1f} samples/s")
    return {
        "schema": 1,
        "study": STUDY,
        "rounds": rounds.count,
        "round_seconds": rounds.seconds,
        "load_before": load,
        "machine": {**here(), **_device(facts)},
        "code": training_code(),
        "data": dict(data),
        "systems": {
            name: {**found, "steps": steps[name], **facts[name], "recipe": comparable(recipes[name])}
            for name, found in combine(rates).items()
        },
    }


def busy(load: float, cores: int) -> str | None:
    """That the machine had other work when it was calibrated; None where it had little.

    Args:
        load: Processes that wanted to run, on average over the minute before.
        cores: Cores of the machine.
    """
    return f"the machine was busy, with a load of {load:g} on {cores} cores" if load > BUSY * cores else None


def measure(recipe: Recipe, steps: int) -> tuple[float, dict[str, Any]]:
    """Samples a second of a miniature run, without its first steps, and facts about it.

    Args:
        recipe: The recipe with its data.
        steps: Length of the run; percentages in the recipe are of it.

    Raises:
        ProbeError: The run was stopped by a signal.
    """
    from facemae.train.record.log import read_lines
    from facemae.train.saving.folder import RunFolder
    from facemae.train.trainer import pretrain

    with tempfile.TemporaryDirectory(prefix="facemae-calibration-") as folder:
        with contextlib.redirect_stderr(io.StringIO()):
            run = pretrain(_miniature(recipe, steps), Path(folder) / "run")
        if run.stopped != "finished":
            raise ProbeError(f"calibration was stopped by {run.stopped}", fix="run the same command again")
        written = RunFolder(Path(folder) / "run")
        lines = read_lines(written.metrics)
        start = next(event for event in read_lines(written.events) if event["event"] == "start")
    batch = recipe.optim.batch_size
    known = {name: start["facts"].get(name) for name in ("device", "gpu", "threads", "precision", "vector_units")}
    facts = {"batch": batch, "epoch_samples": start["epoch_samples"], **known}
    return rate_of_steps([batch / line["samples_per_s"] for line in lines], batch), facts


def _miniature(recipe: Recipe, steps: int) -> Recipe:
    """The whole run in few steps, saving and drawing only when it ends, and without a monitor."""
    once = {"amount": 100, "unit": "percent"}
    tree = all_cores(recipe).model_dump(by_alias=True)
    tree["optim"]["total"] = steps * recipe.optim.batch_size
    tree["checkpoint"]["every"] = once
    tree["log"] |= {"every_steps": 1, "pictures": once, "loggers": (), "keys": False}
    return Recipe.model_validate({**tree, "monitor": None})


def all_cores(recipe: Recipe) -> Recipe:
    """The model on all cores, whatever the environment says, where the recipe leaves it open."""
    if recipe.efficiency.threads is not None:
        return recipe
    threads = max(1, usable_cores() // (recipe.efficiency.processes or 1))
    return recipe.model_copy(update={"efficiency": recipe.efficiency.model_copy(update={"threads": threads})})


def rate_of_steps(seconds: Sequence[float], batch: int) -> float:
    """Samples a second of a run, from the time of each of its steps.

    The first steps are not timed. Each tenth of the run counts with the mean of its timed steps, or, where it has none,
    of those of the next tenth: a stage of the schedule has its weight also where it lies at the start.

    Args:
        seconds: Time of each step.
        batch: Samples a step.
    """
    count = len(seconds)
    warm = min(WARM, count // 2)
    total, means = 0.0, 0.0
    for part in reversed(range(PARTS)):
        steps = range(math.ceil(part * count / PARTS), math.ceil((part + 1) * count / PARTS))
        timed = [seconds[step] for step in steps if step >= warm]
        means = statistics.fmean(timed) if timed else means
        total += means * len(steps)
    return count * batch / total


def combine(rates: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """One rate a system from its rounds.

    Each round has a level, the geometric mean of its rates; a system's rate is the median of its shares of the levels,
    times the median level. So a round in which the machine was busy changes no system's share.

    Args:
        rates: Samples a second by system and round.

    Returns:
        By system: `samples_per_s`; `rounds`, the rates as measured; `spread`, of the shares: largest less smallest,
        over their median.
    """
    levels = [statistics.geometric_mean(found) for found in zip(*rates.values(), strict=True)]
    usual = statistics.median(levels)
    combined = {}
    for name, found in rates.items():
        shares = [one / level for one, level in zip(found, levels, strict=True)]
        middle = statistics.median(shares)
        combined[name] = {
            "samples_per_s": round(middle * usual, 3),
            "rounds": [round(one, 2) for one in found],
            "spread": round((max(shares) - min(shares)) / middle, 4),
        }
    return combined


def samples_for(entry: Mapping[str, Any], minutes: float, batch: int) -> int:
    """Samples a system trains for: its rate times the minutes, in whole batches, at least one."""
    return max(1, int(float(entry["samples_per_s"]) * minutes * 60 / batch)) * batch


def comparable(recipe: Recipe) -> dict[str, Any]:
    """The recipe without what a study sets: seed, length, and where the data lies."""
    tree = published_tree(recipe)
    optim = {name: value for name, value in tree["optim"].items() if name != "total"}
    streams = [
        {name: value for name, value in stream.items() if name != "shards"} for stream in tree["data"]["streams"]
    ]
    kept = {name: value for name, value in tree.items() if name not in NOT_COMPARED}
    return {**kept, "optim": optim, "data": {**tree["data"], "streams": streams}}


def read_calibration(out: Path) -> dict[str, Any] | None:
    """calibration.json of a folder; None where there is none.

    Raises:
        ProbeError: It is something else.
    """
    path = out / FILE
    if not path.exists():
        return None
    found = read_document(path)
    if found is None:
        raise ProbeError(f"{path} is no calibration of this study", fix="remove it, or choose another --out")
    return found


def read_document(path: Path) -> dict[str, Any] | None:
    """A JSON file that this study wrote; None where it is something else.

    Raises:
        StorageError: It cannot be read.
    """
    with storage_errors(path, "reading"):
        text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except ValueError:
        return None
    own = isinstance(found, dict) and (found.get("schema"), found.get("study")) == (1, STUDY)
    return found if own else None


def write_calibration(out: Path, calibration: dict[str, Any]) -> None:
    """Write calibration.json."""
    write_text(out / FILE, json.dumps(calibration, indent=1) + "\n")


def foreign(calibration: Mapping[str, Any], device: Mapping[str, Any]) -> list[str]:
    """In what this machine and code differ from those that were calibrated.

    Args:
        calibration: The calibration.
        device: `device` and, where there is one, `gpu` of this machine.
    """
    then, now = calibration["machine"], {**here(), **device}
    found = [f"{name} {then.get(name)} -> {now.get(name)}" for name in MACHINE if then.get(name) != now.get(name)]
    if calibration["code"] != training_code():
        found.append(f"code {then['revision']} -> {now['revision']}")
    return found


def check_calibration(
    calibration: Mapping[str, Any],
    recipes: Mapping[str, Recipe],
    data: Mapping[str, Any],
    *,
    device: Mapping[str, Any],
    accept: bool,
) -> list[str]:
    """Refuse rates that do not hold for what is to be trained.

    Args:
        calibration: The calibration.
        recipes: Resolved recipes by system.
        data: Name, digest and samples of the shard set.
        device: `device` and, where there is one, `gpu` of this machine.
        accept: Take the rates of another machine or other code.

    Returns:
        What was accepted.

    Raises:
        ProbeError: The rates are those of other data, systems or recipes, or, unless accepted, of another machine or
            other code.
    """
    again = f"--recalibrate, or remove {FILE}"
    if calibration["data"]["digest"] != data["digest"]:
        raise ProbeError(f"{FILE} was measured on other data ({calibration['data']['name']})", fix=again)
    for name, recipe in recipes.items():
        entry = calibration["systems"].get(name)
        if entry is None:
            raise ProbeError(f"{FILE} has no rate of {name}", expected="all systems measured in turns", fix=again)
        changed = changes(entry["recipe"], comparable(recipe))
        if changed:
            raise ProbeError(f"the recipe of {name} changed since its rate was measured: {changed[0]}", fix=again)
    found = foreign(calibration, device)
    if found and not accept:
        raise ProbeError(
            f"{FILE} was measured on another machine or with other code: {'; '.join(found)}",
            expected="rates of this machine and this code",
            fix="--recalibrate to measure here, or --accept-calibration to train for the samples that it gives",
        )
    return found


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two comparable trees, the arithmetic and the processes included."""
    from facemae.recipe import difference

    def rest(tree: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in tree.items() if name != "efficiency"}

    lines = difference(rest(old), rest(new))
    before, after = old["efficiency"], new["efficiency"]
    # A key that one of them lacks is of another release; the digest of the code tells that.
    shared = sorted(before.keys() & after.keys())
    return lines + [
        f"efficiency.{name}: {before[name]} -> {after[name]}" for name in shared if before[name] != after[name]
    ]


def this_device(recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    """What the systems run on here: `device`, and `gpu` where it is one."""
    import torch

    from facemae.train.hardware.numerics import Numerics

    kinds = {Numerics.choose(recipe.efficiency).device.type for recipe in recipes.values()}
    device = "+".join(sorted(kinds))
    return {"device": device, **({"gpu": torch.cuda.get_device_name()} if "cuda" in kinds else {})}


def _device(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    kinds = sorted({str(found["device"]) for found in facts.values()})
    gpus = sorted({str(found["gpu"]) for found in facts.values() if found.get("gpu")})
    return {"device": "+".join(kinds), **({"gpu": gpus[0]} if gpus else {})}
