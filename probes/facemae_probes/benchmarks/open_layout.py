"""Recognising the form in which a benchmark's data lie in a folder, and reading it."""

import os
from dataclasses import dataclass
from pathlib import Path

from facemae.data.ingest.folder import CONVERTED, EXTENSIONS
from facemae.errors import DataError, FacemaeError
from facemae_probes.benchmarks.base import Benchmark, Layout
from facemae_probes.benchmarks.listing import Listing, Row


@dataclass(frozen=True)
class Found:
    """A layout in a folder.

    Attributes:
        layout: The layout.
        root: Where it begins.
        missing: Files and folders that it needs and that are not there.
    """

    layout: Layout
    root: Path
    missing: tuple[str, ...]


def find_layout(benchmark: Benchmark, folder: Path) -> Found | None:
    """The first complete layout of a folder, else the one of which most is there; None where nothing is.

    Raises:
        DataError: There is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", expected=f"the data of {benchmark.title}", fix=benchmark.access)
    partial: list[Found] = []
    for layout in benchmark.layouts:
        for root in (folder / name for name in layout.roots):
            missing = tuple(name for name in layout.needs if not (root / name).exists())
            if not missing:
                return Found(layout, root, ())
            if len(missing) < len(layout.needs):
                partial.append(Found(layout, root, missing))
    # Of equal shares the one with fewer is nearer: it needs less, and what it needs tells more.
    return min(
        partial, key=lambda found: (len(found.missing) / len(found.layout.needs), len(found.missing)), default=None
    )


def read_layout(found: Found) -> Listing:
    """Read the lists; one that cannot be read is a problem of the listing."""
    try:
        return found.layout.read(found.root)
    except FacemaeError as error:
        listing = Listing()
        expected = f" (expected: {error.expected})" if error.expected else ""
        listing.problem("unreadable list", f"{error.found}{expected}")
        return listing


def expected_layouts(benchmark: Benchmark) -> str:
    """The layouts in one line, for messages."""
    return "; or ".join(f"{layout.name} [{', '.join(layout.needs)}]" for layout in benchmark.layouts)


def match_files(listing: Listing, root: Path) -> tuple[list[Row], list[str], list[str]]:
    """Compare a listing with the images in its folders.

    Returns:
        Rows whose image is there, paths that are listed and missing, and paths that are there and not listed.
    """
    present = {path for folder in listing.folders for path in _images(root, root / folder)}
    there, absent = [], []
    for row in listing.rows:
        if row.image is not None or row.path in present or (root / row.path).is_file():
            there.append(row)
        else:
            absent.append(row.path)
    listed = {row.path for row in listing.rows} | listing.ignored
    return there, absent, sorted(present - listed)


def _images(root: Path, folder: Path) -> set[str]:
    found = set()
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            ending = name.rpartition(".")[2].lower()
            if not name.startswith(".") and (ending in EXTENSIONS or ending in CONVERTED):
                found.add(Path(where, name).relative_to(root).as_posix())
    return found
