"""The held-out faces of a monitor: which they are, and their pixels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facemae.config import MonitorConfig
from facemae.data.decode import decode_image
from facemae.data.index import ShardIndex
from facemae.data.loader import Stream
from facemae.data.preprocess import to_model_input
from facemae.data.reader import ShardReader, image_extension
from facemae.data.schema import ModelInput
from facemae.data.select import check_columns, metadata, select
from facemae.errors import ConfigError, DecodeError
from facemae.parallel import in_threads
from facemae.rng import generator

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Some samples of a shard set.

    Attributes:
        rows: Their positions in the index, ascending; int64 [N].
        labels: Their labels as text, [N]; empty without a label column.
    """

    rows: Rows
    labels: tuple[str, ...]


class HeldOut:
    """The samples a monitor looks at: the same ones as long as the set is the same.

    Args:
        config: The recipe's block.
        index: The shard set.
        seed: The run's seed, which chooses among more samples than are wanted.

    Attributes:
        config: The recipe's block.
        query: The samples that are measured.
        reference: Those a label is looked up among; None without a label.

    Raises:
        ConfigError: Fewer than two samples have the label, the column has no second class, or a face is in both parts.
        UsageError: No such column or no such samples; the message names what there is.
    """

    def __init__(self, config: MonitorConfig, index: ShardIndex, *, seed: int) -> None:
        self.index = index
        self._reader = ShardReader(self.index)
        self.config, self._seed = config, seed
        self.query = self._part("query", config.query)
        self.reference = None if config.label is None else self._part("reference", config.reference)
        if self.reference is not None:
            self._check(self.reference)
            self._check_apart(self.reference)

    def images(self, part: Part, model_input: ModelInput, size: int) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """Pixels of a part, batch by batch, with the deterministic preprocessing of evaluation.

        Args:
            part: The samples.
            model_input: What the encoder expects.
            size: Samples in a batch.

        Yields:
            uint8 [B, C, S, S] and the B samples' places in the part; samples that do not decode are left out.
        """

        def prepare(row: int) -> NDArray[np.uint8] | None:
            try:
                return to_model_input(self._decode(row, model_input.channels), model_input)
            except DecodeError:
                return None

        prepared = in_threads(prepare, part.rows.tolist(), ahead=size)
        for first in range(0, len(part.rows), size):
            found = {first + place: image for place, image in enumerate(islice(prepared, size)) if image is not None}
            if found:
                yield torch.from_numpy(np.stack(list(found.values()))), list(found)

    def trained_on(self, stream: Stream) -> int:
        """How many query samples a stream of the run reads too.

        Where one shard set begins with the other, as when shards were added since, equal places are equal samples.
        """
        index, read = stream.index, stream.order.subset
        common = min(len(index.shards), len(self.index.shards))
        if index.prefix(common).digest != self.index.prefix(common).digest:
            return 0
        return int(np.isin(self.query.rows, np.arange(len(index)) if read is None else read).sum())

    def _part(self, name: str, where: Mapping[str, str]) -> Part:
        label = self.config.label
        rows = select(self.index, where, dropped=False)
        values: NDArray[Any] | None = None
        if label is not None:
            values = self._column(label)
            rows = rows[[values[row] is not None for row in rows]]
        if len(rows) < 2:
            raise ConfigError(
                f"monitor.{name} {dict(where)} selects {len(rows)} samples"
                + ("" if label is None else f" with a value of {label!r}"),
                expected="two or more",
                fix=f"facemae data stats {self.index.folder} shows splits and labels",
            )
        if len(rows) > self.config.samples:
            rng = generator(self._seed, "monitor", name)
            rows = np.sort(rng.choice(rows, self.config.samples, replace=False))
        return Part(rows, () if values is None else tuple(str(values[row]) for row in rows))

    def _column(self, label: str) -> NDArray[Any]:
        check_columns(self.index, [label])
        values: NDArray[Any] = np.array(metadata(self.index, [label])[label].to_pylist(), dtype=object)
        return values

    def _check(self, reference: Part) -> None:
        config = self.config
        if len(set(reference.labels)) < 2:
            raise ConfigError(
                f"all {len(reference.rows)} samples of monitor.reference have {config.label}={reference.labels[0]}",
                expected="two classes or more",
            )
        if config.k > len(reference.rows):
            raise ConfigError(
                f"monitor.k {config.k} neighbours of {len(reference.rows)} reference samples",
                expected=f"at most {len(reference.rows)}",
            )

    def _check_apart(self, reference: Part) -> None:
        both = int(np.isin(self.query.rows, reference.rows).sum())
        if both:
            raise ConfigError(
                f"{both} of {len(self.query.rows)} faces of monitor.query are among monitor.reference",
                expected="none: each would find itself",
                fix="choose them by different values of one column, such as split",
            )

    def _decode(self, row: int, channels: int) -> NDArray[np.uint8]:
        extension = image_extension(self.index.members(row))
        if extension is None:
            raise DecodeError(f"sample {self.index.key(row)} has no still image")
        sample = self._reader.read(row, [extension])
        return decode_image(sample.members[extension], channels=channels, name=sample.key)
