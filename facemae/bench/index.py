"""`facemae bench index`: an index of millions of samples against memory maps of the same columns."""

from pathlib import Path

from facemae.bench.index_measure import bench_index
from facemae.bench.report import BenchResult, machine


def compare_index(samples: int, lookups: int, folder: Path | None = None) -> list[BenchResult]:
    """Measure opening, private memory and look-ups.

    Args:
        samples: Samples in the index; ten million take 1.2 GB of disk while it runs.
        lookups: Random look-ups of each side.
        folder: Where to put the index; None takes the system's folder for temporary files.

    Returns:
        One result each.
    """
    found = bench_index(samples, lookups, folder)
    facts = {"baseline": "the same columns through numpy.memmap", "samples": samples, "lookups": lookups}
    here = machine()
    results = []
    for name, field, unit in (
        ("index, opening", "open_s", "s"),
        ("index, private memory after look-ups", "uss", "MB"),
        ("index, one look-up by position and by key", "lookup_us", "µs"),
    ):
        ours, other = found["ours"][field], found["memmap"][field]
        results.append(BenchResult(name, ours, other, unit, other / ours, facts, here))
    return results
