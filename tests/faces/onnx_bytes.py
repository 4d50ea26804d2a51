"""ONNX models written by hand: as much of the format as a mean colour and some linear maps of it need.

Field numbers are those of onnx.proto; the tests need no writer of models installed.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FLOAT, _INT64 = 1, 7


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, values: NDArray[np.generic]) -> bytes:
    kind = _FLOAT if values.dtype == np.float32 else _INT64
    dims = b"".join(_field(1, size) for size in values.shape)
    return dims + _field(2, kind) + _field(8, name) + _field(9, values.tobytes())


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, dims)))


def _node(kind: str, inputs: list[str], output: str, attributes: bytes = b"") -> bytes:
    return b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, kind) + attributes


def linear_of_mean(size: int, outputs: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]) -> bytes:
    """A model from an image to linear functions of its mean colour.

    Args:
        size: Side of its input, float32 [1, 3, size, size].
        outputs: For each output its weights float32 [3, *shape] and bias float32 [*shape].
    """
    nodes = [
        _node("GlobalAveragePool", ["image"], "mean"),
        _node("Flatten", ["mean"], "flat", _field(5, _field(1, "axis") + _field(3, 1) + _field(20, 2))),
    ]
    constants, values = [], []
    for name, (weight, bias) in outputs.items():
        constants += [
            _tensor(f"{name}.weight", np.ascontiguousarray(weight.reshape(3, -1))),
            _tensor(f"{name}.bias", np.ascontiguousarray(bias.reshape(-1))),
            _tensor(f"{name}.shape", np.array(bias.shape, np.int64)),
        ]
        nodes += [
            _node("Gemm", ["flat", f"{name}.weight", f"{name}.bias"], f"{name}.row"),
            _node("Reshape", [f"{name}.row", f"{name}.shape"], name),
        ]
        values.append(_value(name, bias.shape))
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "made")
    graph += b"".join(_field(5, constant) for constant in constants)
    graph += _field(11, _value("image", (1, 3, size, size))) + b"".join(_field(12, value) for value in values)
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))


def constant(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights and bias of an output that does not look at the image."""
    return np.zeros((3, *values.shape), np.float32), values


def write(path: Path, data: bytes) -> Path:
    """Write a model; gives its path."""
    path.write_bytes(data)
    return path
