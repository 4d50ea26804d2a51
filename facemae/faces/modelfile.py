"""A detector's weights in a file that the user has: read once, hashed, and checked before anything runs them."""

import difflib
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from facemae.errors import DataError, UsageError
from facemae.files import storage_errors

_log = logging.getLogger(__name__)

OPTIONS = ("sha256", "size")

USUAL_SIZE = 640
"""Longer side of a model's input in pixels where none is given."""


@dataclass(frozen=True, eq=False)
class ModelFile:
    """What `KIND:PATH#sha256=HEX&size=N` names.

    Attributes:
        kind: What kind of model it is, such as `yunet`.
        data: uint8, the bytes of the file.
        sha256: Their hash in hexadecimal.
        size: Longer side of the model's input in pixels.
        name: For the crop recipe: kind, the first 12 digits of the hash, and the size where it is not the usual one.
    """

    kind: str
    data: NDArray[np.uint8]
    sha256: str
    size: int
    name: str


def read_model(kind: str, place: str) -> ModelFile:
    """Read and check a model.

    Without `sha256` the hash of the file is logged as a warning, so that it can be pinned.

    Args:
        kind: What kind of model it is.
        place: `PATH`, `PATH#sha256=HEX`, `PATH#size=N` or both, joined by `&`.

    Raises:
        UsageError: The options after # are not understood.
        DataError: There is no such file, it is empty, or its hash is another.
        StorageError: Reading failed underneath.
    """
    text, mark, fragment = place.rpartition("#")
    text, fragment = (text, fragment) if mark else (place, "")
    options = _options(kind, place, fragment)
    path = Path(text).expanduser()
    if not text or not path.is_file():
        raise DataError(f"{kind}: no file {text!r}", expected=f"an ONNX model: {kind}:PATH[#sha256=HEX]")
    with storage_errors(path, "reading"):
        data = np.fromfile(path, np.uint8)
    if not len(data):
        raise DataError(f"{kind}: {text} is empty", expected="an ONNX model")
    found = hashlib.sha256(data.tobytes()).hexdigest()
    asked = options.get("sha256", "").lower()
    if asked and asked != found:
        raise DataError(
            f"{kind}: {text} has sha256 {found}",
            expected=f"sha256 {asked}",
            fix="get the file that the hash was taken of; if this one is meant, ask for its hash",
        )
    if not asked:
        _log.warning("%s: not pinned; to pin this file, write %s:%s#sha256=%s", text, kind, text, found)
    size = int(options.get("size", USUAL_SIZE))
    return ModelFile(kind, data, found, size, f"{kind}@{found[:12]}" + (f"/{size}" if size != USUAL_SIZE else ""))


def _options(kind: str, place: str, fragment: str) -> dict[str, str]:
    options = dict(parse_qsl(fragment, keep_blank_values=True))
    for name, value in options.items():
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, n=1)
            raise UsageError(
                f"{kind}:{place}: unknown option {name!r}",
                expected=f"one of {', '.join(OPTIONS)}",
                fix=f"did you mean {near[0]!r}?" if near else None,
            )
        if name == "sha256" and (len(value) != 64 or set(value.lower()) - set("0123456789abcdef")):
            raise UsageError(f"{kind}:{place}: {value!r} is no sha256", expected="64 hexadecimal digits")
        if name == "size" and not (value.isdecimal() and int(value) > 0 and int(value) % 32 == 0):
            raise UsageError(f"{kind}:{place}: size {value!r}", expected="pixels, a multiple of 32 such as 320 or 640")
    return options
