"""Benchmarks by name, imported when asked for."""

import difflib
import importlib

from facemae.errors import UsageError
from facemae_probes.benchmarks.base import Benchmark

BENCHMARKS: dict[str, str] = {
    "affectnet7": "facemae_probes.benchmarks.affectnet7:BENCHMARK",
    "affectnet8": "facemae_probes.benchmarks.affectnet8:BENCHMARK",
    "custom": "facemae_probes.benchmarks.custom:BENCHMARK",
    "fer2013": "facemae_probes.benchmarks.fer2013:BENCHMARK",
    "ferplus": "facemae_probes.benchmarks.ferplus:BENCHMARK",
    "raf-db": "facemae_probes.benchmarks.raf_db:BENCHMARK",
}
"""Place of each benchmark, as `module:NAME`. Another benchmark is one more file and one more line here."""


def benchmark(name: str) -> Benchmark:
    """A benchmark by name.

    Raises:
        UsageError: None has this name; the nearest names are given.
    """
    place = BENCHMARKS.get(name)
    if place is None:
        near = difflib.get_close_matches(name.lower().replace("_", "-"), BENCHMARKS, n=3, cutoff=0.4)
        raise UsageError(
            f"there is no benchmark {name!r}",
            expected=f"one of {', '.join(sorted(BENCHMARKS))}",
            fix=f"did you mean {' or '.join(near)}?" if near else "facemae probe list",
        )
    module, _, attribute = place.partition(":")
    found: Benchmark = getattr(importlib.import_module(module), attribute)
    return found


def all_benchmarks() -> list[Benchmark]:
    """All benchmarks, by name."""
    return [benchmark(name) for name in sorted(BENCHMARKS)]
