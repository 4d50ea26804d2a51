"""The journal of an erasure, by which one that was interrupted is finished.

Until the journal is written an erasure has changed nothing. From then on it only goes forward: whoever finds a journal,
`facemae data index` or the next `facemae data drop`, does what is left of it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facemae.data.index import FOLDER, LINEAGE, SHEET, read_lineage
from facemae.files import fsync_folder, storage_errors, write_text

JOURNAL = "erasing.json"


def journal_path(folder: Path) -> Path:
    """Where the journal of a shard set lies while an erasure is going on."""
    return folder / FOLDER / JOURNAL


def begin(folder: Path, event: Mapping[str, Any], staged: Mapping[str, str]) -> None:
    """Write the journal.

    Args:
        folder: The shard set.
        event: What `lineage.jsonl` will say.
        staged: For each shard, by its path in the set, the file that takes its place; it lies beside it.
    """
    write_text(journal_path(folder), json.dumps({"event": event, "staged": staged}))


def carry_out(folder: Path) -> None:
    """Put the staged shards into place as far as that has not happened; nothing where there is no journal.

    What follows is an index of the shards as they are then, and `conclude`.
    """
    path = journal_path(folder)
    if not path.exists():
        return
    with storage_errors(path, "reading"):
        journal = json.loads(path.read_text(encoding="utf-8"))
    with storage_errors(folder):
        events = read_lineage(folder)
        if journal["event"] not in events:
            events.append(journal["event"])
            write_text(folder / LINEAGE, "".join(json.dumps(event) + "\n" for event in events))
        for name, temporary in journal["staged"].items():
            replace_shard(folder / temporary, folder / name)
        # A picture of some of the samples may show an erased face.
        (folder / SHEET).unlink(missing_ok=True)


def replace_shard(staged: Path, shard: Path) -> None:
    """Let a staged file take a shard's place; it is gone where that happened already."""
    if staged.exists():
        staged.replace(shard)
        fsync_folder(shard.parent)


def conclude(folder: Path) -> None:
    """Remove the journal: no byte of the erased samples is left in the set."""
    with storage_errors(journal_path(folder)):
        journal_path(folder).unlink(missing_ok=True)
