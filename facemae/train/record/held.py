"""Telling, once, that a view is longer than clips that it is made of."""

from facemae.data.schema import Batch


def held_notes(batch: Batch, told: set[str]) -> list[str]:
    """A line for each view of which this is the first batch with clips shorter than its window.

    Args:
        batch: This process's part of a batch.
        told: Views that a line was given for; receives those of this batch.
    """
    lines = []
    for view, count in batch.held.items():
        name = view.partition("/")[0]
        if name not in told:
            told.add(name)
            rows = batch.rows(view)
            clips = len(batch) if rows is None else len(rows)
            lines.append(
                f"view {name!r} is longer than {count} of the {clips} clips of this batch: their last frame is held "
                f"(views.{name}.clip.short)"
            )
    return lines
