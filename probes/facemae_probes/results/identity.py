"""What decides a number besides data, weights and settings: code and library versions.

Modules are named, not imported, and their source is hashed: a change in how pixels are prepared or a probe is fitted
makes old features and results answers to another question.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path

FEATURE_MODULES = (
    "facemae.data.decode",
    "facemae.data.index",
    "facemae.data.made",
    "facemae.data.preprocess",
    "facemae.data.reader",
    "facemae.data.schema",
    "facemae.features.extractor",
    "facemae.features.pixels",
    "facemae.features.pooling",
    "facemae.features.sources",
    "facemae.features.stream",
    "facemae.features.weights",
    "facemae.models.attention",
    "facemae.models.clip_encoder",
    "facemae.models.clip_positions",
    "facemae.models.drop_path",
    "facemae.models.encoder",
    "facemae.models.encoding",
    "facemae.models.patches",
    "facemae.models.plain_attention",
    "facemae.models.positions",
    "facemae.models.recompute",
    "facemae.models.tubelets",
    "facemae_probes.features.cache",
    "facemae_probes.features.images",
    "facemae_probes.features.sources",
)
"""Modules between the bytes of an image and a row of features."""
FEATURE_LIBRARIES = ("torch", "timm", "einops", "opencv-python-headless", "pillow", "simplejpeg", "numpy")
"""Distributions that decode, resize and compute on the way."""
PROBE_MODULES = (
    "facemae.data.card",
    "facemae.data.index",
    "facemae.data.schema",
    "facemae.data.select",
    "facemae.data.selection",
    "facemae.features.crops",
    "facemae.rng",
    "facemae_probes.features.overlap",
    "facemae_probes.features.pool",
    "facemae_probes.features.rows",
    "facemae_probes.features.table",
    "facemae_probes.results.caveats",
    "facemae_probes.results.pretraining",
    "facemae_probes.results.scoring",
    "facemae_probes.runner",
)
"""Modules between features and a result."""
PROBE_PACKAGES = (
    "facemae_probes.choosing",
    "facemae_probes.heads",
    "facemae_probes.metrics",
    "facemae_probes.protocols",
    "facemae_probes.tasks",
)
"""Packages of such modules."""
PROBE_LIBRARIES = ("torch", "numpy", "scikit-learn", "scipy", "faiss-gpu", "faiss-cpu")
"""Distributions that fit and measure."""


def feature_code() -> dict[str, str]:
    """Digest of the code that makes features, and the versions of its libraries."""
    return {"source": code_digest(FEATURE_MODULES), **versions(FEATURE_LIBRARIES)}


def probe_code() -> dict[str, str]:
    """Digest of the code that makes results of features, and the versions of its libraries."""
    return {"source": code_digest(probe_modules()), **versions(PROBE_LIBRARIES)}


def probe_modules() -> list[str]:
    """`PROBE_MODULES`, and the modules of `PROBE_PACKAGES`."""
    return [*PROBE_MODULES, *(name for package in PROBE_PACKAGES for name in modules_of(package))]


def modules_of(package: str) -> list[str]:
    """Names of the modules of a package, which need not be imported for it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package {package}", name=package)
    return sorted(f"{package}.{path.stem}" for path in Path(spec.submodule_search_locations[0]).glob("*.py"))


def code_digest(modules: Sequence[str]) -> str:
    """sha256 over names and source of some modules."""
    hasher = hashlib.sha256()
    for name in modules:
        text = source_bytes(name)
        hasher.update(f"{name}:{len(text)}:".encode() + text)
    return hasher.hexdigest()


@functools.cache
def source_bytes(module: str) -> bytes:
    """Source of a module, which need not be imported for it.

    Read once: files that change while a study runs are not what this process runs.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no source of {module}", name=module)
    return Path(spec.origin).read_bytes()


def versions(distributions: Sequence[str]) -> dict[str, str]:
    """Installed versions by distribution; those that are not installed are left out."""
    found = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
