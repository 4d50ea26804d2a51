"""Anybody's images with a manifest: `manifest.csv` or `labels.csv` with the columns path, split and label."""

from functools import partial
from pathlib import Path

from facemae.data.ingest.labels import normal_path, read_labels
from facemae_probes.benchmarks.base import UNVERIFIED, Benchmark, Layout, Target
from facemae_probes.benchmarks.listing import Listing


def _read(name: str, root: Path) -> Listing:
    """Columns path, split, label, perhaps subject and source; every further column is kept, for `--slice`."""
    listing = Listing(label="label", folders=(".",))
    for row in read_labels(root / name).rows:
        labels = dict(row.labels)
        code = labels.pop("label", None)
        if row.split is None:
            listing.problem("no split", f"rows of {name} without a split", row.path)
        elif code is None:
            listing.problem("no label", f"rows of {name} without a value in the column label", row.path)
        else:
            listing.add(
                normal_path(row.path), row.split, str(code), labels=labels, subject=row.subject, source=row.source
            )
    return listing


BENCHMARK = Benchmark(
    name="custom",
    title="a folder with a manifest",
    family="fer",
    targets=(
        Target(
            name="label",
            kind="classes",
            columns=("label",),
            metric="accuracy",
        ),
    ),
    protocol="official",
    protocol_about="the splits of the manifest",
    unit="subject",
    versions=(),
    licence="the user's own matter",
    consent="the user's own matter",
    access="yours",
    citation="yours",
    layouts=tuple(
        Layout(
            name=f"{name}: path, split, label, perhaps subject and source",
            needs=(name,),
            read=partial(_read, name),
            sources=UNVERIFIED,
        )
        for name in ("manifest.csv", "labels.csv")
    ),
)
