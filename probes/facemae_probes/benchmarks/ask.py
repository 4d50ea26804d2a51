"""What a probe is asked: by a benchmark's name, or by columns that a user names. Both end in the same `Question`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from facemae.errors import ProbeError
from facemae_probes.benchmarks.base import CLUSTER, Benchmark
from facemae_probes.benchmarks.packed import missing_columns, packed_version
from facemae_probes.tasks.columns import read_columns
from facemae_probes.tasks.targets import Kind


@dataclass(frozen=True)
class Question:
    """Arguments of `facemae_probes.runner.run_probe`.

    Attributes:
        label: Column, or columns separated by commas.
        kind: What they are.
        metric: What settings are chosen by; None takes the primary metric of the kind.
        protocol: How training and test samples are told apart, as it is written on the command line.
        classes: Names in the order to show; empty takes them from the data.
        unit: Column of independent units; None looks for subject and source.
        slices: Test parts to report too.
        about: What the result says of the benchmark; None where columns were named.
    """

    label: str
    kind: Literal["auto"] | Kind = "auto"
    metric: str | None = None
    protocol: str = "official"
    classes: tuple[str, ...] = ()
    unit: str | None = None
    slices: tuple[str, ...] = ()
    about: dict[str, Any] | None = field(default=None)


def ask_benchmark(
    benchmark: Benchmark,
    shards: Path,
    *,
    target: str | None = None,
    unit: str | None = None,
    slices: Sequence[str] = (),
    tested: Path | None = None,
) -> Question:
    """What a benchmark asks of shards packed for it.

    Args:
        benchmark: The benchmark.
        shards: Made by `facemae probe pack`.
        target: Name of a target; None is the headline.
        unit: Another column of independent units.
        slices: Further test parts.
        tested: Another shard set that is tested in place of this one's test part; own slices that it has no sample of
            are left out, and that is said.

    Raises:
        UsageError: No such target.
        ProbeError: The shards were not packed for it.
    """
    chosen = benchmark.target(target)
    columns = read_columns(shards)
    if missing := missing_columns(benchmark, columns, chosen.name):
        raise ProbeError(
            f"{shards} has no column {', '.join(missing)}",
            expected=f"shards packed for {benchmark.name}",
            fix=f"facemae probe pack {benchmark.name} --data FOLDER --out {shards}",
        )
    found = packed_version(benchmark, columns)
    caveats = [*benchmark.warnings]
    if found.version is not None and found.version.about and found.exact:
        caveats.append(f"version {found.version.name}: {found.version.about}")
    if found.version is not None and not found.exact:
        caveats.append(
            f"the counts are those of no known version of {benchmark.title}; {'; '.join(found.differences[:3])}"
        )
    own, parts = unit or benchmark.unit, benchmark.slices
    if own == CLUSTER and CLUSTER not in columns.values:
        own, parts = "sample", tuple(text for text in parts if text.partition("=")[0] in columns.values)
        caveats.append("packed without near-duplicate clusters: every image counts as independent")
    if tested is not None:
        parts, lacking = _held(parts, tested)
        caveats += [f"{tested.name} has no sample of {text}: this slice is not reported" for text in lacking]
    return Question(
        label=",".join(chosen.columns),
        kind=chosen.kind,
        metric=chosen.metric,
        protocol=benchmark.protocol,
        classes=chosen.classes,
        unit=None if unit is None and benchmark.unit in ("subject", "source") else own,
        slices=(*parts, *(text for text in slices if text not in parts)),
        about={
            "name": benchmark.name,
            "title": benchmark.title,
            "target": chosen.name,
            "version": found.version.name if found.exact and found.version is not None else None,
            "protocol": benchmark.protocol,
            "protocol_about": benchmark.protocol_about,
            "metric": chosen.metric,
            "licence": benchmark.licence,
            "citation": benchmark.citation,
            "warnings": caveats,
        },
    )


def _held(slices: Sequence[str], shards: Path) -> tuple[tuple[str, ...], list[str]]:
    """Slices of which a shard set has samples, and those of which it has none."""
    columns = read_columns(shards)
    held = []
    for text in slices:
        name, _, wanted = text.partition("=")
        if name in columns.values and wanted in columns.text(name):
            held.append(text)
    return tuple(held), [text for text in slices if text not in held]
