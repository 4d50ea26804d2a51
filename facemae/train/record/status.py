"""Where a run is, read from its folder without disturbing it. Needs neither torch nor the data."""

import time
from pathlib import Path
from typing import Any

from facemae.checkpoint_folders import step_folders
from facemae.errors import UsageError
from facemae.train.hardware.resident import growth
from facemae.train.record.log import read_lines
from facemae.train.record.progress import duration, metrics_line
from facemae.train.saving.folder import RunFolder
from facemae.train.saving.lease import read_holder

SHOWN = 5
"""Events shown."""
_AFTERWARDS = {"logger"}
"""What may be said of a run that has ended: a service that did not take its last points."""


def read_status(run: Path) -> dict[str, Any]:
    """Gather a run's state.

    Args:
        run: The run folder.

    Returns:
        `state` (starting, running, finished, stopped; or `not begun` or `dead` with what that means), `ended` (when,
        as `time.time` counts; or None), `step`, `steps`, `metrics` (the last line), `memory` (of the last start, see
        `facemae.train.hardware.resident.growth`),
        `holder`, `checkpoints` and `events` (the last ones).

    Raises:
        UsageError: It is not a run folder.
        StorageError: It cannot be read.
    """
    folder = RunFolder(run)
    if not folder.exists() and not folder.is_bare():
        what = f"is not a run folder: it has no {folder.recipe.name}" if run.exists() else "does not exist"
        raise UsageError(f"{run} {what}", expected="the --out of a `facemae pretrain`")
    events = read_lines(folder.events)
    metrics = read_lines(folder.metrics)
    holder = read_holder(folder.lease)
    last = next((event for event in reversed(events) if event["event"] not in _AFTERWARDS), None)
    begun: dict[str, Any] = next((event for event in reversed(events) if event["event"] in {"start", "resume"}), {})
    step = max([int(line["step"]) for line in metrics[-1:]] + [int(event["step"]) for event in events[-1:]], default=0)
    alive = holder is not None and holder.alive()
    state = _state(folder, alive, last)
    return {
        "run": str(run),
        "state": state,
        "ended": last["time"] if last is not None and state in {"finished", "stopped"} else None,
        "step": step,
        "steps": begun.get("steps"),
        "metrics": metrics[-1] if metrics else None,
        "memory": growth([line for line in metrics if int(line["step"]) > int(begun.get("step", 0))]),
        "holder": None
        if holder is None
        else {"host": holder.host, "pid": holder.pid, "age_s": round(holder.age, 1), "alive": alive},
        "checkpoints": [path.name for path in step_folders(run)],
        "events": [event for event in events if event["event"] != "groups"][-SHOWN:],
    }


def describe(status: dict[str, Any]) -> str:
    """The state in a few lines for people."""
    holder = status["holder"]
    where = "" if holder is None else f" (process {holder['pid']} on {holder['host']}, {holder['age_s']:.0f} s ago)"
    lines = [
        f"{status['run']}: {status['state']}{_moment(status['ended'])}{where}",
        f"step {status['step']} of {status['steps'] or '?'}"
        + (f", checkpoints {', '.join(status['checkpoints'])}" if status["checkpoints"] else ", no checkpoint yet"),
    ]
    if status["metrics"]:
        record = dict(status["metrics"])
        if status["state"] != "running":
            record["eta_s"] = None
        lines.append(metrics_line(record))
        if record.get("skipped") or record.get("replaced"):
            lines.append(f"{record['skipped']} updates skipped, {record['replaced']} samples replaced")
    if status["memory"]:
        used, grown = status["memory"]["mb"], status["memory"]["growth_mb"]
        lines.append(f"memory {used:.0f} MB in all processes, {grown:+.0f} MB over half of this start")
    lines += [f"  {_when(event['time'])}  {event['text']}" for event in status["events"]]
    return "\n".join(lines)


def _state(folder: RunFolder, alive: bool, last: dict[str, Any] | None) -> str:
    if not folder.exists():
        ended = "not begun: a start ended before its data were read; the same command tries again"
        return "starting" if alive else ended
    if alive:
        return "running"
    if last is not None and last["event"] == "stop":
        return "finished" if last.get("reason") == "finished" else "stopped"
    return "dead: it ended without saying so; the same command continues it"


def _moment(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f" on {time.strftime('%Y-%m-%d at %H:%M', time.localtime(seconds))}, {_when(seconds)}"


def _when(seconds: float) -> str:
    return f"{duration(time.time() - seconds)} ago"
