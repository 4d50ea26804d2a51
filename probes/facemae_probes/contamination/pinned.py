"""What a run has trained on, held against what its checkpoint recorded: a path tells where data lay, not which."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facemae.checkpoint import Checkpoint
from facemae.config import StreamConfig
from facemae.data.index import ShardIndex
from facemae.data.selection import check_selection, choose_samples
from facemae.errors import IndexMismatchError
from facemae.features.weights import training_streams
from facemae_probes.contamination.parts import Part


def streams_of(checkpoint: Checkpoint) -> tuple[Part, ...]:
    """What a run has trained on: of each stream of its recipe the shards, and the samples, that it is pinned to.

    Args:
        checkpoint: Of the run.

    Raises:
        DataError: A folder of shards has no index.
        IndexMismatchError: There are other shards now, or another selection of them.
        UsageError: The samples that a stream reads cannot be chosen any more.
    """
    streams = checkpoint.manifest.recipe["data"]["streams"]
    pins = training_streams(checkpoint)
    return tuple(_part(stream, pins[stream["name"]], checkpoint.folder) for stream in streams)


def initial_warnings(checkpoint: Checkpoint) -> list[str]:
    """What cannot be compared since it was seen by the weights that a run started from."""
    manifest = checkpoint.manifest
    initial = {name: card for name, card in manifest.cards.items() if name.startswith("init/")}
    if manifest.init is None and not initial:
        return []
    recipe = "" if manifest.init is None else f" (recipe {manifest.init.recipe})"
    names = ", ".join(sorted({card.name for card in initial.values()})) or "unknown"
    text = (
        f"the run started from weights of an earlier one{recipe}, whose data ({names}) are not compared: "
        "ask with --run of that run too, or --pretraining DIR for each of its sets"
    )
    return [text]


def _part(stream: Mapping[str, Any], pinned: Mapping[str, Any], source: Path) -> Part:
    config = StreamConfig(
        name=stream["name"], shards=stream["shards"], where=stream.get("where") or {}, keys=stream.get("keys")
    )
    folder = Path(config.shards)
    index, count, digest = ShardIndex.open(folder), pinned.get("shards"), pinned.get("digest")
    if count is not None and digest is not None:
        held = len(index.shards) >= int(count)
        index = index.prefix(int(count)) if held else index
        if not held or not index.accepts(str(digest)):
            raise IndexMismatchError(
                f"{folder} is not what stream {config.name!r} of {source} was trained on: "
                f"digest {index.digest[:12]} of {len(index.shards)} shards",
                expected=f"the first {count} shards with digest {str(digest)[:12]}",
                fix="put that set back there, or give it where it lies now: --pretraining DIR, with --where as the "
                "recipe has it",
            )
    _, selection = choose_samples(index, config)
    check_selection(config, selection, pinned.get("selection"))
    keys = None if config.keys is None else Path(config.keys)
    return Part(folder, dict(config.where), keys, None if count is None else int(count))
