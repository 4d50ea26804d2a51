"""Shards packed for a benchmark, read as the list that they hold."""

from facemae_probes.benchmarks.base import Benchmark
from facemae_probes.benchmarks.counts import Comparison, compare
from facemae_probes.benchmarks.listing import Listing
from facemae_probes.tasks.columns import Columns


def missing_columns(benchmark: Benchmark, columns: Columns, target: str | None = None) -> list[str]:
    """Columns of a target (None is the headline) that the shards lack."""
    return [name for name in benchmark.target(target).columns if name not in columns.values]


def packed_listing(benchmark: Benchmark, columns: Columns) -> Listing:
    """The list of the headline target; labels and splits that are none of the benchmark are its problems."""
    headline = benchmark.headline
    listing = Listing({name: name for name in headline.classes} or None, label=headline.columns[0])
    # Where an owner names sources, the file is in a column of its own.
    named = columns.text("path") if "path" in columns.values else [None] * len(columns)
    files = [path or source for path, source in zip(named, columns.text("source"), strict=True)]
    paths = zip(files, columns.text("key"), strict=True)
    rows = zip(paths, columns.text("split"), columns.text(headline.columns[0]), strict=True)
    for (path, key), split, name in rows:
        listing.add(path or key or "", split or "", name)
    return listing


def packed_version(benchmark: Benchmark, columns: Columns) -> Comparison:
    """Which known version the shards hold."""
    listing = packed_listing(benchmark, columns)
    return compare(listing.counts(), listing.digest(), benchmark.versions)
