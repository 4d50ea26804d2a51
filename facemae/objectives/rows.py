"""From the rows of a view that is made of some samples only to the samples of the batch, and back."""

import torch


def spread(values: torch.Tensor, rows: torch.Tensor | None, samples: int) -> torch.Tensor:
    """Rows [R, …] where their samples are among all, [samples, …]; zeros, or False, elsewhere.

    Args:
        values: One row for each sample that a view was made of.
        rows: int64 [R], which those are (`Batch.rows`); None where they are all.
        samples: Samples of the batch.
    """
    if rows is None:
        return values
    return values.new_zeros(samples, *values.shape[1:]).index_copy(0, rows, values)


def only(values: torch.Tensor, rows: torch.Tensor | None, masks: int = 1) -> torch.Tensor:
    """Of what was drawn for all samples what belongs to a view's: [samples * masks, …] to [R * masks, …].

    Args:
        values: For each sample `masks` rows that follow each other.
        rows: As in `spread`, on the device of the values.
        masks: Masked versions of a sample.
    """
    if rows is None:
        return values
    return values.view(-1, masks, *values.shape[1:]).index_select(0, rows).flatten(0, 1)
