"""Numbers in the words of a report."""

from typing import Any


def percent(found: dict[str, Any]) -> str:
    """Accuracy with its interval."""
    bounds = found["intervals"]["accuracy"]
    return f"{found['accuracy']:.1%} [{bounds['low']:.1%}, {bounds['high']:.1%}]"


def difference(entry: dict[str, Any]) -> str:
    """A difference with its interval."""
    return f"{entry['value']:+.3f} [{entry['low']:+.3f}, {entry['high']:+.3f}]"


def place(setting: dict[str, Any]) -> str:
    """Layer and pooling; a dash for features that have none."""
    plain = setting["pooling"] in ("pixels", "hog")
    return "-" if plain else f"{setting['layer']}, {setting['pooling']}"


def duration(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def machine_line(machine: dict[str, Any]) -> str:
    """A machine in one line."""
    return f"{machine['cores']} cores, {machine['processor']}, {machine['memory_gb']} GB"


def versions_line(versions: dict[str, str]) -> str:
    """Versions in one line."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def facts_table(rows: dict[str, str]) -> list[str]:
    """Lines of a table without a head."""
    return ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items()), ""]
