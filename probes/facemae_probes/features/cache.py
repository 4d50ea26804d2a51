"""Features on disk, keyed by everything that determines them.

A key is the sha256 of encoder weights and shape, model input, layer, pooling, shard set, chosen samples, the code and
library versions that turn bytes into features, precision and kind of device. So a stale file can never be read, and
probes of one encoder share features.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae.files import atomic_write, write_text
from facemae_probes.features.sources import FeatureSource, Setting

Blocks = Callable[[], Iterable[NDArray[np.uint8]]]


def feature_key(
    source: FeatureSource, setting: Setting, *, data_digest: str, samples: NDArray[np.int64], code: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    """The key of one feature matrix, and the facts it is made of.

    Args:
        source: Where features come from; its `identity` names weights, input and arithmetic.
        setting: Layer and pooling.
        data_digest: Digest of the shard set.
        samples: Indices of the samples, in order.
        code: Digest of the code that makes features, and versions: `identity.feature_code()`.
    """
    facts = {
        "source": source.identity(),
        "input": source.input.model_dump(mode="json"),
        "layer": setting.layer,
        "pooling": setting.pooling,
        "data": data_digest,
        "samples": hashlib.sha256(np.ascontiguousarray(samples, dtype="<i8").tobytes()).hexdigest(),
        "code": dict(code),
        "stored": "float16" if setting.pooling == "tokens" else "float32",
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest(), facts


class FeatureCache:
    """A folder of feature matrices.

    Args:
        folder: Where they lie; made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def features(
        self,
        source: FeatureSource,
        settings: Sequence[Setting],
        images: Blocks,
        *,
        data_digest: str,
        samples: NDArray[np.int64],
        code: Mapping[str, str],
    ) -> dict[Setting, NDArray[np.floating[Any]]]:
        """Memory-mapped features; whatever is missing is computed in one pass over the images.

        Args:
            source: Where features come from.
            settings: Layers and poolings.
            images: Gives blocks of uint8 images [B, C, S, S], together `samples` in order.
            data_digest: Digest of the shard set.
            samples: Indices of the samples.
            code: Digest of the code that makes features, and versions: `identity.feature_code()`.

        Returns:
            By setting: [N, F] float32, or [N, T, D] float16 for pooling `tokens`.
        """
        keys = {
            setting: feature_key(source, setting, data_digest=data_digest, samples=samples, code=code)
            for setting in settings
        }
        missing = {setting: entry for setting, entry in keys.items() if not self._path(entry[0]).exists()}
        if missing:
            self._compute(source, missing, images, len(samples))
        return {setting: np.load(self._path(key), mmap_mode="r") for setting, (key, _) in keys.items()}

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def _compute(
        self, source: FeatureSource, missing: dict[Setting, tuple[str, dict[str, Any]]], images: Blocks, count: int
    ) -> None:
        with ExitStack() as stack:
            files = {
                setting: _RowFile(stack.enter_context(atomic_write(self._path(key))), count)
                for setting, (key, _) in missing.items()
            }
            for block in images():
                for setting, values in source.compute(block, list(missing)).items():
                    files[setting].append(values)
            for file in files.values():
                file.check()
        for key, facts in missing.values():
            write_text(self.folder / f"{key}.json", json.dumps(facts, indent=1, sort_keys=True))


class _RowFile:
    """Rows streamed into a .npy file.

    Plain writes rather than a memory map: on a full disk a write fails with an error, a map with a fatal signal.
    """

    def __init__(self, file: BinaryIO, count: int) -> None:
        self.file = file
        self.count = count
        self.rows = 0

    def append(self, values: NDArray[np.floating[Any]]) -> None:
        if not np.isfinite(values).all():
            raise ProbeError(
                "features contain values that are not finite",
                expected="finite features; pooling `tokens` is stored in half precision, at most 65504",
                fix="look at the encoder's training log, or choose another layer",
            )
        if self.rows == 0:
            header = {
                "descr": np.lib.format.dtype_to_descr(values.dtype),
                "fortran_order": False,
                "shape": (self.count, *values.shape[1:]),
            }
            np.lib.format.write_array_header_1_0(self.file, header)
        self.file.write(np.ascontiguousarray(values).data)
        self.rows += len(values)

    def check(self) -> None:
        """Raise where rows are missing, so that the file never gets its name."""
        if self.rows != self.count:
            raise ProbeError(f"features of {self.rows} images arrived where {self.count} were asked for")
