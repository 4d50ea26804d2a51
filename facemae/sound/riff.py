"""The header of a wav file, held against the file: decoders follow it in silence."""

import struct
from pathlib import Path
from typing import BinaryIO

from facemae.files import storage_errors

_UNKNOWN = 0x7FFF0000
"""Lengths from here on, and zero, are what programs write that did not know the length when they began."""


def wav_damage(path: Path) -> str | None:
    """What a wav's header says that the file does not keep.

    A header without a length (zero or all ones, as recorders that were switched off leave it) is no damage: such a
    file is read to its end.

    Args:
        path: Any file.

    Returns:
        A sentence, or None: the header is right, has no length, or the file is no wav (RF64 is not looked into).

    Raises:
        StorageError: The file cannot be read.
    """
    with storage_errors(path, "reading"), path.open("rb") as file:
        if file.read(4) != b"RIFF" or file.seek(4, 1) != 8 or file.read(4) != b"WAVE":
            return None
        return _held_against(file, path.stat().st_size)


def _held_against(file: BinaryIO, size: int) -> str | None:
    bytes_a_second = 0
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        if name == b"data":
            return _data_damage(file, length, size, bytes_a_second)
        if name == b"fmt ":
            bytes_a_second = struct.unpack("<8xI", file.read(12).ljust(12, b"\0"))[0]
            length -= 12
        file.seek(max(0, length + length % 2), 1)
    return "the header ends before the sound begins"


def _data_damage(file: BinaryIO, length: int, size: int, bytes_a_second: int) -> str | None:
    held = size - file.tell()
    if length == 0 or length >= _UNKNOWN or not bytes_a_second:
        return None
    claim = f"the header claims {length / bytes_a_second:.2f} s of sound, the file holds {held / bytes_a_second:.2f} s"
    if length > held:
        return claim
    file.seek(length + length % 2, 1)
    rest = file.read(8)
    if len(rest) < 8:
        return None
    name, following = struct.unpack("<4sI", rest)
    is_chunk = all(32 <= byte < 127 for byte in name) and file.tell() + following <= size + 1
    return None if is_chunk else f"{claim}; what follows the claim is not read"
