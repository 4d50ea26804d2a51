"""Which samples of its shards a stream reads, and how a run is pinned to that choice."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facemae.config import StreamConfig
from facemae.data.index import ShardIndex
from facemae.data.regions import MEMBER
from facemae.data.schema import ViewSpec
from facemae.data.select import choose, column_names, metadata
from facemae.errors import ConfigError, IndexMismatchError
from facemae.files import storage_errors


def open_shards(config: StreamConfig, number: int) -> ShardIndex:
    """The shards of a recipe's stream.

    Args:
        config: The stream.
        number: Its place among the streams, for the message.

    Raises:
        ConfigError: It names no shards.
        DataError: No index.
    """
    if not config.shards:
        raise ConfigError(
            f"data.streams.{number}.shards is empty",
            expected="the folder of an indexed shard set",
            fix="add --data DIR",
        )
    return ShardIndex.open(Path(config.shards))


def choose_samples(
    index: ShardIndex, config: StreamConfig
) -> tuple["np.ndarray[Any, Any] | None", dict[str, Any] | None]:
    """The positions that a stream's `where` and `keys` choose, and what pins them; None and None where it has neither.

    Raises:
        UsageError: As `facemae.data.select.choose`.
    """
    keys = None if config.keys is None else Path(config.keys)
    subset = choose(index, config.where, keys)
    if subset is None:
        return None, None
    pins: dict[str, Any] = {"samples": len(subset), "digest": _selection_digest(subset)}
    if keys is not None:
        with storage_errors(keys, "reading"):
            pins["keys"] = hashlib.sha256(keys.read_bytes()).hexdigest()
    return subset, pins


def remark_test_samples(index: ShardIndex, config: StreamConfig, number: int) -> str | None:
    """What to say of a stream that reads samples of its data set's test split; None where it reads none.

    Pretraining on them is no error, but who probes the encoder on that test split should know.

    Args:
        index: The stream's shards.
        config: The stream.
        number: Its place among the streams.

    Raises:
        UsageError: As `choose_samples`.
    """
    if "split" not in column_names(index):
        return None
    table = metadata(index, ["split", "dropped"])
    tested = (table["split"].to_numpy() == "test") & ~table["dropped"].to_numpy()
    if not tested.any():
        return None
    subset, _ = choose_samples(index, config)
    count = int(tested.sum() if subset is None else tested[subset].sum())
    if count == 0:
        return None
    return (
        f"stream {config.name!r} reads {count:,} samples of the split `test` of {index.folder}; "
        f"data.streams.{number}.where.split=train reads the train split alone"
    )


def _selection_digest(positions: np.ndarray[Any, Any]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(positions, dtype="<i8").tobytes(), digest_size=32).hexdigest()


def check_selection(config: StreamConfig, found: Mapping[str, Any] | None, pinned: Mapping[str, Any] | None) -> None:
    """Refuse another selection from accepted shards: the same step would read other samples without a word.

    Args:
        config: The stream.
        found: What `choose_samples` says of it now.
        pinned: What it said when the run was started.

    Raises:
        IndexMismatchError: They differ.
    """
    # A recipe selects or does not, for the whole of a run.
    if found is None or pinned is None or found == pinned:
        return
    if found.get("keys") != pinned.get("keys"):
        raise IndexMismatchError(
            f"{config.keys}, the list of keys of stream {config.name!r}, is not the one the run started with: "
            f"sha256 {str(found.get('keys'))[:12]}",
            expected=f"sha256 {str(pinned.get('keys'))[:12]}, {pinned['samples']} samples",
            fix="restore the file, or start a new run in another folder",
        )
    where = ", ".join(f"{column}={value}" for column, value in config.where.items())
    raise IndexMismatchError(
        f"`where` of stream {config.name!r} ({where}) selects {found['samples']} samples of {config.shards} and not "
        "those the run started with",
        expected=f"its {pinned['samples']} samples, digest {str(pinned['digest'])[:12]}",
        fix="where samples were erased, they keep their split and lose every label: start a new run in another folder, "
        "or go on in another order with --adopt-data",
    )


def check_regions(stream: str, index: ShardIndex, specs: Sequence[ViewSpec]) -> None:
    """Refuse shards without region maps for views whose masks need them; a single sample without counts as damaged.

    Raises:
        ConfigError: No sample of the stream has one.
    """
    for spec in specs:
        masks = (spec.mask, *(stage.mask for stage in spec.stages))
        if MEMBER not in index.extensions and any(mask is not None and mask.kind == "region" for mask in masks):
            raise ConfigError(
                f"view {spec.name!r} hides patches by region, and the shards of stream {stream!r} ({index.folder}) "
                "have no region maps",
                expected=f"samples with a {MEMBER} member",
                fix="pack them anew with `facemae data pack … --regions template`, or with maps of your own, "
                "`--regions FOLDER`; or choose another mask.kind",
            )
