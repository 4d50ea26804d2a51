"""How a study was run: time, machine and revision, read from what the run wrote about itself."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_BEGINS = ("start", "resume")
_BEFORE = ("setup", "note")
"""Events that may precede a start, and so tell nothing about how long the one before it lasted."""
NOT_TRAINING = ("bench", "features")
"""Rooms of the library that pretraining does not enter."""


def pretraining_facts(run: Path) -> dict[str, Any]:
    """Time, speed and machine of a pretraining run.

    Each start lasts until the last event it wrote: its stop, or, where it was killed, its last save; the steps after
    that save were lost with it and done again by the next start. So the sum is the time that went into the weights.

    Args:
        run: The run folder, with `log/events.jsonl` and `log/metrics.jsonl`.

    Returns:
        `seconds`, `starts`, `samples`, `epochs`, `samples_per_s` (over all these seconds, saves included),
        `median_samples_per_s` (of the log's lines), `code` (the revisions that trained, in order), and of the last
        start that trained: `processor`, `vector_units`, `device`, `threads`, `precision`.
    """
    from facemae.train.record.log import read_lines
    from facemae.train.saving.folder import RunFolder

    folder = RunFolder(run)
    starts = [start for start in _starts(read_lines(folder.events)) if start["to"] > start["from"]]
    lines = read_lines(folder.metrics)
    seconds = sum(start["seconds"] for start in starts)
    samples = starts[-1]["samples"] if starts else 0
    machine = starts[-1]["facts"] if starts else {}
    speeds = [line["samples_per_s"] for line in lines if line.get("samples_per_s")]
    return {
        "seconds": round(seconds, 1),
        "starts": len(starts),
        "samples": samples,
        "epochs": round(samples / starts[-1]["epoch"], 3) if starts and starts[-1]["epoch"] else None,
        "samples_per_s": round(samples / seconds, 1) if seconds else None,
        "median_samples_per_s": round(statistics.median(speeds), 1) if speeds else None,
        "code": list(dict.fromkeys(start["code"] for start in starts)),
        **{name: machine.get(name) for name in ("processor", "vector_units", "device", "threads", "precision")},
    }


def monitored(run: Path) -> list[dict[str, float]]:
    """What a run's monitor measured: `samples`, `rankme` and, with a label, `knn`, the accuracy on held-out faces."""
    from facemae.train.record.log import read_lines
    from facemae.train.saving.folder import RunFolder

    names = {"samples": "samples", "monitor/rankme": "rankme", "monitor/knn": "knn"}
    lines = read_lines(RunFolder(run).metrics)
    return [
        {short: line[name] for name, short in names.items() if name in line}
        for line in lines
        if "monitor/rankme" in line
    ]


def _starts(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for event in events:
        if event["event"] in _BEGINS:
            batch = event["total_samples"] // event["steps"]
            start = {"began": event["time"], "from": event["step"], "batch": batch, "facts": event["facts"]}
            found.append({**start, "epoch": event.get("epoch_samples"), "code": event.get("code", "unknown")})
        if found and event["event"] not in _BEFORE:
            start = found[-1]
            start |= {"to": event["step"], "seconds": event["time"] - start["began"]}
            start["samples"] = event["step"] * start["batch"]
    return found


def here() -> dict[str, Any]:
    """This machine and this code: `cores`, `processor`, `memory_gb`, `revision`."""
    from facemae.environment import environment
    from facemae.parallel import usable_cores
    from facemae.revision import revision

    system = environment()["system"]
    return {
        "cores": usable_cores(),
        "processor": system["processor"],
        "memory_gb": system["memory GB"],
        "revision": revision(),
    }


def training_code() -> str:
    """sha256 over the source and recipes that pretraining runs on: how fast a system is depends on them."""
    import hashlib

    import facemae

    folder = Path(facemae.__file__).parent
    hasher = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix in {".py", ".yaml"} and name.parts[0] not in NOT_TRAINING:
            content = path.read_bytes()
            hasher.update(f"{name.as_posix()}:{len(content)}:".encode() + content)
    return hasher.hexdigest()
