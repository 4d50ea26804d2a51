"""Results on disk: result.json, predictions, pictures."""

import hashlib
import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from facemae.errors import ProbeError
from facemae.files import atomic_write, storage_errors
from facemae_probes.results.pictures import draw_predictions
from facemae_probes.results.result import ProbeResult
from facemae_probes.results.words import title
from facemae_probes.tasks.targets import Targets

RESULT = "result.json"
SCHEMA = 2


def write_result(folder: Path, result: ProbeResult) -> None:
    """Write a result; `result.json` comes last, so a folder that has one is complete.

    An older one is removed first, so that it never stands beside predictions that are not its own.

    Args:
        folder: Made if missing.
        result: The result; its data gains the names of the files, and the digests of the predictions.

    Raises:
        ProbeError: A number is not finite, which JSON cannot say.
        StorageError: Writing failed underneath.
    """
    _refuse_not_finite(result.data)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULT).unlink(missing_ok=True)
    for probe, scores in result.scores.items():
        entry = result.data["results"][probe]
        entry["predictions"] = f"predictions-{probe}.npz"
        entry["picture"] = f"{'scatter' if result.targets.kind == 'regression' else 'confusion'}-{probe}.png"
        packed = io.BytesIO()
        np.savez_compressed(packed, **_arrays(result, probe))
        entry["predictions_sha256"] = hashlib.sha256(packed.getvalue()).hexdigest()
        with atomic_write(folder / entry["predictions"]) as file:
            file.write(packed.getvalue())
        draw_predictions(folder / entry["picture"], result.targets, scores, entry["test"], title(result.data, probe))
    with atomic_write(folder / RESULT) as file:
        file.write((json.dumps(result.data, indent=1, allow_nan=False) + "\n").encode())


def _refuse_not_finite(data: dict[str, Any]) -> None:
    try:
        json.dumps(data, allow_nan=False)
    except ValueError:
        raise ProbeError(
            f"the result has a number that is not finite: {', '.join(_not_finite(data))}",
            expected="numbers, or none where a metric is undefined",
        ) from None


def _not_finite(value: Any, place: str = "") -> list[str]:
    """Where values are NaN or infinite."""
    if isinstance(value, dict):
        return [found for name, each in value.items() for found in _not_finite(each, f"{place}.{name}".strip("."))]
    if isinstance(value, list | tuple):
        return [found for number, each in enumerate(value) for found in _not_finite(each, f"{place}.{number}")]
    return [f"{place} is {value}"] if isinstance(value, float) and not np.isfinite(value) else []


def _arrays(result: ProbeResult, probe: str) -> dict[str, Any]:
    slices = {f"slice {name}": rows for name, rows in result.slices.items()}
    thresholds = {"thresholds": result.thresholds[probe]} if probe in result.thresholds else {}
    protocol = result.data["protocol"]
    return {
        "keys": np.array(result.keys),
        "truth": result.targets.values,
        "scores": result.scores[probe],
        "units": result.units,
        # Whoever has these numbers without result.json must see how they came about.
        "protocol": np.array(protocol["name"]),
        "on_test": np.array(protocol["on_test"]),
        **thresholds,
        **slices,
    }


def read_result(folder: Path, request: dict[str, Any] | None = None) -> ProbeResult | None:
    """Read a result back.

    Args:
        folder: Where it was written.
        request: What the result must be an answer to; None takes any.

    Returns:
        The result, or None where there is none, one to another request, one of an older release, or a damaged one.

    Raises:
        StorageError: Reading failed underneath.
    """
    try:
        data = _read_json(folder)
        return _with_predictions(folder, data) if request is None or data.get("request") == request else None
    except ProbeError:
        return None


def require_result(folder: Path) -> ProbeResult:
    """Read a result that has to be there.

    Raises:
        ProbeError: It is not, or it is damaged; the message says what of it.
        StorageError: Reading failed underneath.
    """
    return _with_predictions(folder, _read_json(folder))


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / RESULT
    if not path.exists():
        raise ProbeError(f"{folder} holds no complete probe result", expected=RESULT, fix="facemae probe run --out DIR")
    with storage_errors(path, "reading"):
        content = path.read_bytes()
    try:
        data = json.loads(content)
    except ValueError as error:
        raise _damaged(folder, f"{RESULT} is no JSON ({error})") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise _damaged(folder, f"{RESULT} is not of schema {SCHEMA}, but of another release")
    return data


def _with_predictions(folder: Path, data: dict[str, Any]) -> ProbeResult:
    scores, thresholds, shared = {}, {}, {}
    try:
        for probe, entry in data["results"].items():
            stored = _read_arrays(folder, entry["predictions"], entry["predictions_sha256"])
            scores[probe] = stored.pop("scores")
            if "thresholds" in stored:
                thresholds[probe] = stored.pop("thresholds")
            shared = stored
        task = data["task"]
        return ProbeResult(
            data,
            scores,
            Targets(task["kind"], tuple(task["classes"]), shared["truth"], _meant(task)),
            tuple(str(key) for key in shared["keys"]),
            shared["units"],
            {name.removeprefix("slice "): rows for name, rows in shared.items() if name.startswith("slice ")},
            thresholds,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"it lacks {error}") from error


def _meant(task: dict[str, Any]) -> tuple[int, ...] | None:
    """Numbers of the classes that means are over, where they are not over all."""
    tested = task.get("classes_tested")
    return None if tested is None else tuple(task["classes"].index(name) for name in tested)


def _read_arrays(folder: Path, name: str, digest: str) -> dict[str, Any]:
    path = folder / name
    if not path.exists():
        raise _damaged(folder, f"{name} is missing")
    with storage_errors(path, "reading"):
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise _damaged(folder, f"{name} is not what {RESULT} was written with (its sha256 differs)")
    try:
        with np.load(io.BytesIO(content)) as stored:
            return {each: stored[each] for each in stored.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError) as error:
        raise _damaged(folder, f"{name} cannot be read ({error})") from error


def _damaged(folder: Path, what: str) -> ProbeError:
    return ProbeError(
        f"the probe result in {folder} is damaged or of another release: {what}",
        expected="the files as one probe run wrote them",
        fix="run the probe again with the same --out",
    )
