"""The on-disk form of checkpoints and exported encoders.

A checkpoint is a folder. It appears under its name only when every file in it is on the disk::

    RUN/checkpoints/
        step-00000100/
            model.safetensors       weights by state-dict name, fp32
            ema.safetensors         averaged weights, same names; only where the run keeps them
            optimizer.safetensors   moments, named ``<moment>/<parameter>``
            trainer.json            where training stands, readable
            data.json               which data the run is pinned to
            manifest.json           written last: sizes and sha256 of the files, recipe, input, cards, versions, machine

Parts lie apart, so that whoever needs weights reads weights only. An exported encoder has the same form with
``encoder.safetensors`` as its only part.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from facemae.checkpoint_folders import FOLDER, step_folders
from facemae.data.schema import DatasetCard, ModelInput
from facemae.errors import CheckpointError, StorageError
from facemae.files import fsync_file, fsync_folder, storage_errors

MANIFEST = "manifest.json"
_OS_ERROR = re.compile(r"os error (\d+)")

Tensors = Mapping[str, torch.Tensor]


class FileRecord(BaseModel):
    """Size and checksum of one file of a checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    bytes: int
    """Length of the file."""
    sha256: str
    """Hexadecimal SHA-256 of its content."""


class InitialWeights(BaseModel):
    """Where the weights come from that a run was started with."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    digest: str
    """Hexadecimal SHA-256 of the file they were read from."""
    recipe: str = "unknown"
    """Name of the recipe they were trained with."""
    cards: dict[str, DatasetCard] = {}
    """Cards of the data they were trained on, as their own manifest gives them; one that says `unknown` for a file
    without a manifest."""


class Manifest(BaseModel):
    """What a checkpoint is, and the proof that it is whole."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    schema_version: Literal[1] = 1
    """Version of this form."""
    kind: Literal["checkpoint", "encoder"] = "checkpoint"
    """A run's checkpoint, or an exported encoder."""
    step: int
    """Optimiser steps done."""
    samples: int
    """Samples consumed."""
    recipe: dict[str, Any]
    """The resolved recipe."""
    input: ModelInput
    """What the encoder expects of its pixels."""
    cards: dict[str, DatasetCard] = {}
    """By stream, the card of its shard set with the crop recipe; as `init/…` those of the initial weights' data."""
    init: InitialWeights | None = None
    """The weights the run was started with; None for random ones."""
    versions: dict[str, str] = {}
    """Versions of the libraries that computed the weights."""
    machine: dict[str, Any] = {}
    """Facts that decide whether a continuation is bitwise: processor, threads, precision, processes."""
    files: dict[str, FileRecord] = {}
    """Every other file in the folder."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint or exported encoder on disk.

    Attributes:
        folder: Where it lies.
        manifest: Its manifest.
    """

    folder: Path
    manifest: Manifest

    def has(self, part: str) -> bool:
        """Whether there is a tensor part of this name, such as `ema`."""
        return f"{part}.safetensors" in self.manifest.files

    def tensors(self, part: str, *, prefix: str = "") -> dict[str, torch.Tensor]:
        """Read one part.

        Args:
            part: `model`, `ema`, `optimizer` or `encoder`.
            prefix: Only names that start with it; it is cut off.

        Raises:
            CheckpointError: There is no such part, or its file is not readable as safetensors.
            StorageError: Its file cannot be read.
        """
        if not self.has(part):
            present = sorted(name for name in self.manifest.files if name.endswith(".safetensors"))
            raise CheckpointError(f"{self.folder} has no part {part!r}", expected=f"one of {', '.join(present)}")
        return read_tensors(self.folder / f"{part}.safetensors", prefix=prefix)

    def document(self, name: str) -> dict[str, Any]:
        """Read `trainer.json` or `data.json` by its bare name.

        Raises:
            StorageError: It cannot be read.
        """
        with storage_errors(self.folder / f"{name}.json", "reading"):
            content: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        return content

    def verify(self) -> None:
        """Compare every file with the manifest.

        Raises:
            CheckpointError: A file is missing, has another length or another checksum, or cannot be read.
        """
        with _read_errors(self.folder):
            for name, record in self.manifest.files.items():
                self._verify_file(name, record)

    def _verify_file(self, name: str, record: FileRecord) -> None:
        path = self.folder / name
        if not path.is_file():
            raise CheckpointError(f"{self.folder} is damaged: {name} is missing")
        size = path.stat().st_size
        if size != record.bytes:
            raise CheckpointError(f"{self.folder} is damaged: {name} has {size} bytes, not {record.bytes}")
        if file_digest(path) != record.sha256:
            raise CheckpointError(f"{self.folder} is damaged: the checksum of {name} does not match its manifest")


def read_tensors(path: Path, *, prefix: str = "") -> dict[str, torch.Tensor]:
    """Read a safetensors file onto the CPU.

    Args:
        path: The file.
        prefix: Only names that start with it; it is cut off.

    Raises:
        CheckpointError: It is not a safetensors file.
        StorageError: It cannot be read.
    """
    with storage_errors(path, "reading"):
        try:
            with safe_open(path, framework="pt", device="cpu") as handle:
                names = [name for name in handle.keys() if name.startswith(prefix)]  # noqa: SIM118 (not a mapping)
                return {name[len(prefix) :]: handle.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def write_checkpoint(
    folder: Path, manifest: Manifest, *, tensors: Mapping[str, Tensors], documents: Mapping[str, Mapping[str, Any]]
) -> Checkpoint:
    """Write a checkpoint so that it is there whole or not at all.

    Args:
        folder: Final name; must not exist. It is written as `<folder>.tmp` and renamed at the end.
        manifest: What to record; `files` is filled in here.
        tensors: Parts by bare name; each becomes `<name>.safetensors`.
        documents: JSON files by bare name.

    Raises:
        StorageError: The disk is full or writing failed; nothing is left behind.
    """
    temporary = folder.with_name(f"{folder.name}.tmp")
    with storage_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            for name, part in tensors.items():
                _write_tensors(temporary / f"{name}.safetensors", part)
            for name, document in documents.items():
                _write_json(temporary / f"{name}.json", document)
            manifest = manifest.model_copy(update={"files": _record_files(temporary)})
            _write_json(temporary / MANIFEST, manifest.model_dump(mode="json"))
            fsync_folder(temporary)
            temporary.rename(folder)
            fsync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return Checkpoint(folder, manifest)


def open_checkpoint(folder: Path, *, verify: bool = True) -> Checkpoint:
    """Open a checkpoint folder or an exported encoder.

    Args:
        folder: The folder that holds `manifest.json`.
        verify: Also compare all checksums, which reads every file.

    Raises:
        CheckpointError: There is no manifest, it is not one of ours, a file does not match it or cannot be read.
    """
    path = folder / MANIFEST
    with _read_errors(folder):
        content = path.read_bytes() if path.is_file() else None
    if content is None:
        raise CheckpointError(
            f"{folder} is not a checkpoint: it has no {MANIFEST}",
            expected=f"a run folder, a folder {FOLDER}/step-…, or an exported encoder",
        )
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise CheckpointError(f"{path} is not a facemae manifest: {where}: {problem['msg']}") from error
    checkpoint = Checkpoint(folder, manifest)
    if verify:
        checkpoint.verify()
    return checkpoint


def newest_valid(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest intact checkpoint of a run.

    Args:
        run: The run folder.

    Returns:
        The checkpoint, None where the run has not saved yet; and one sentence for each newer one that is damaged.

    Raises:
        CheckpointError: There are checkpoints, but none is intact.
    """
    damaged: list[str] = []
    for folder in reversed(step_folders(run)):
        try:
            return open_checkpoint(folder), damaged
        except CheckpointError as error:
            damaged.append(error.found)
    if damaged:
        raise CheckpointError(
            f"none of the checkpoints in {run / FOLDER} is intact: " + "; ".join(damaged),
            fix=f"restore one from a copy, or start over in another folder (or delete {run / FOLDER})",
        )
    return None, damaged


def find_checkpoint(path: Path) -> Checkpoint:
    """Open what a path names: a run folder's newest valid checkpoint, a checkpoint folder, or an exported encoder.

    Raises:
        CheckpointError: The path holds none of these, or it is damaged.
    """
    if (path / FOLDER).is_dir():
        checkpoint, _ = newest_valid(path)
        if checkpoint is None:
            raise CheckpointError(f"the run {path} has no checkpoint yet", fix="wait for its first save")
        return checkpoint
    return open_checkpoint(path)


def check_names(found: Tensors, wanted: Tensors, source: str) -> None:
    """Check that weights fit a model: same names, same shapes.

    Raises:
        CheckpointError: Naming the first differences of each sort.
    """
    problems = []
    missing = sorted(set(wanted) - set(found))
    extra = sorted(set(found) - set(wanted))
    shapes = [
        f"{name} is {_shape(found[name])}, the model has {_shape(wanted[name])}"
        for name in sorted(set(wanted) & set(found))
        if found[name].shape != wanted[name].shape
    ]
    problems += [f"missing {_few(missing)}"] * bool(missing)
    problems += [f"not in the model {_few(extra)}"] * bool(extra)
    problems += [f"other shapes: {_few(shapes)}"] * bool(shapes)
    if problems:
        raise CheckpointError(
            f"the weights in {source} do not fit the recipe's model: " + "; ".join(problems),
            expected=f"{len(wanted)} tensors with the model's names and shapes",
            fix="use the recipe the weights were trained with, or other weights",
        )


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "a scalar"


def _few(items: Sequence[str], limit: int = 3) -> str:
    rest = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {rest} more" if rest > 0 else "")


def file_digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def _read_errors(folder: Path) -> Iterator[None]:
    """A checkpoint that the system cannot read is a damaged one: there may be an older one that it can."""
    try:
        yield
    except OSError as error:
        what = Path(error.filename).name if isinstance(error.filename, str) else "a file"
        raise CheckpointError(
            f"{folder} is damaged: reading {what} failed: {error.strerror or error}", fix="check the device"
        ) from error


def _record_files(folder: Path) -> dict[str, FileRecord]:
    return {
        path.name: FileRecord(bytes=path.stat().st_size, sha256=file_digest(path)) for path in sorted(folder.iterdir())
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    fsync_file(path)


def _write_tensors(path: Path, tensors: Tensors) -> None:
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}, path)
    except SafetensorError as error:
        # The library reports the operating system's errors as text.
        code = _OS_ERROR.search(str(error))
        if code is None:
            raise StorageError(f"writing {path} failed: {error}") from error
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
    fsync_file(path)
