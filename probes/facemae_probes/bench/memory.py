"""A million samples probed: peak memory of a process that does it, against scikit-learn's."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from facemae.bench.report import BenchResult, machine
from facemae_probes.bench.made import SAID, made_features

STRENGTHS = (0.1, 0.01, 0.001)
CLASSES, NEIGHBOURS = 8, 20
_BLOCK = 20_000
_SAMPLED_SECONDS = 0.02


def bench_memory(
    samples: int,
    dimensions: int,
    queries: int,
    *,
    half: bool,
    folder: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[BenchResult]:
    """Probe features from a memory map by a linear path and by neighbours; each side is a process of its own.

    The baseline loads the array and fits two iterations of one strength, and searches the neighbours of one query: its
    memory does not depend on how many. Times are therefore given for ours only.

    Args:
        samples: N.
        dimensions: D.
        queries: Samples whose neighbours ours searches.
        half: Store half precision, else single.
        folder: Where the map is written meanwhile; None takes the system's folder for temporary files.
        tell: Called with a line of progress now and then.
    """
    with tempfile.TemporaryDirectory(prefix="facemae-bench-", dir=folder) as name:
        tell(f"writing {samples} x {dimensions}")
        write_features(Path(name), samples, dimensions, np.dtype(np.float16 if half else np.float32))
        sides: dict[str, dict[str, float]] = {}
        for side in ("ours", "theirs"):
            tell(f"memory of {side}")
            sides[side] = _in_process(name, side, queries)
    facts = {
        "baseline": "scikit-learn LogisticRegression and NearestNeighbors on the loaded array",
        "samples": samples,
        "dimensions": dimensions,
        "stored": "float16" if half else "float32",
        "features": SAID,
        "strengths": list(STRENGTHS),
        "queries": queries,
        "linear_s": sides["ours"]["linear_s"],
        "knn_s": sides["ours"]["knn_s"],
        "solved": bool(sides["ours"]["solved"]),
    }
    rows = (("peak resident memory", "resident"), ("peak anonymous memory", "anonymous"))
    return [
        BenchResult(
            f"probe, {samples} x {dimensions}, {name}",
            sides["ours"][key],
            sides["theirs"][key],
            "GB",
            sides["theirs"][key] / sides["ours"][key],
            facts,
            machine(),
        )
        for name, key in rows
    ]


def write_features(folder: Path, samples: int, dimensions: int, dtype: "np.dtype[Any]") -> None:
    """Write `x.npy` and `y.npy`, block by block."""
    x = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=dtype, shape=(samples, dimensions))
    labels = np.empty(samples, dtype=np.int64)
    for start in range(0, samples, _BLOCK):
        count = min(_BLOCK, samples - start)
        x[start : start + count], labels[start : start + count] = made_features(count, dimensions, CLASSES, first=start)
    x.flush()
    np.save(folder / "y.npy", labels)


class Peak:
    """Watches this process: peak resident memory as the kernel counts it, and anonymous memory as often as it looks."""

    def __init__(self) -> None:
        self.anonymous = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLED_SECONDS):
            self.anonymous = max(self.anonymous, memory_of("RssAnon"))

    def gigabytes(self) -> dict[str, float]:
        """`resident`, which counts pages of mapped files as well, and `anonymous`; in units of 10⁹ bytes."""
        return {
            "resident": memory_of("VmHWM") / 1e9,
            "anonymous": max(self.anonymous, memory_of("RssAnon")) / 1e9,
        }


def memory_of(name: str) -> int:
    """A line of `/proc/self/status`, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {name}")


def measure(folder: str, side: str, queries: int) -> dict[str, float]:
    """Run one side in this process."""
    with Peak() as peak:
        found = _ours(Path(folder), queries) if side == "ours" else _theirs(Path(folder))
    return {**found, **peak.gigabytes()}


def _ours(folder: Path, queries: int) -> dict[str, float]:
    from facemae_probes.heads.knn import fit_neighbours
    from facemae_probes.heads.linear import fit_path
    from facemae_probes.heads.standardise import Standardiser
    from facemae_probes.tasks.targets import Targets

    x = np.load(folder / "x.npy", mmap_mode="r")
    targets = Targets("classes", tuple(map(str, range(CLASSES))), np.load(folder / "y.npy"))
    start = time.perf_counter()
    scale = Standardiser.fit(x)
    models = list(fit_path(scale.view(x), targets, strengths=STRENGTHS))
    middle = time.perf_counter()
    asked = scale.view(x, np.linspace(0, len(x) - 1, queries).astype(np.int64))
    for _, votes in fit_neighbours(scale.view(x), targets, asked, counts=(NEIGHBOURS,)):
        assert np.isfinite(votes).all()
    return {
        "linear_s": middle - start,
        "knn_s": time.perf_counter() - middle,
        "solved": float(all(model.solved for model in models)),
    }


def _theirs(folder: Path) -> dict[str, float]:
    import warnings

    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    x = np.load(folder / "x.npy").astype(np.float32, copy=False)
    labels = np.load(folder / "y.npy")
    x = StandardScaler(copy=False).fit_transform(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LogisticRegression(max_iter=2).fit(x, labels)
    NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine", algorithm="brute").fit(x).kneighbors(x[:1])
    return {}


def _in_process(folder: str, side: str, queries: int) -> dict[str, float]:
    call = f"measure({folder!r}, {side!r}, {queries})"
    code = f"import json; from facemae_probes.bench.memory import measure; print(json.dumps({call}))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    result: dict[str, float] = json.loads(done.stdout)
    return result
