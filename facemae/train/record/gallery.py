"""The pictures a run keeps in its folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

from facemae.data.schema import Batch, ViewSpec
from facemae.objectives.pretraining import PretrainModel
from facemae.train.hardware.device import to_device
from facemae.train.record.curve import save_curve
from facemae.train.record.log import RunLog
from facemae.train.record.pictures import (
    RECONSTRUCTION,
    VIEWS,
    head,
    reconstruction_picture,
    save_picture,
    views_picture,
)
from facemae.train.saving.folder import RunFolder


class Gallery:
    """Draws pictures of one run, always of the same samples: the first of its first batch.

    Args:
        folder: The run folder.
        specs: The views.
        first_batch: Reads the first batch with given views; called when a picture is due, once for each stage of them.
        batch_size: Samples in a step.
        log: The run's logs.
    """

    def __init__(
        self,
        folder: RunFolder,
        specs: Sequence[ViewSpec],
        first_batch: Callable[[Sequence[ViewSpec]], Batch],
        *,
        batch_size: int,
        log: RunLog,
    ) -> None:
        self._folder, self._specs, self._first_batch = folder, tuple(specs), first_batch
        self._batch_size, self._log = batch_size, log
        self._shown: tuple[Batch, tuple[ViewSpec, ...]] | None = None

    @property
    def folder(self) -> Path:
        """Where the pictures are."""
        return self._folder.pictures

    def _examples(self, place: int) -> tuple[Batch, tuple[ViewSpec, ...]]:
        """The samples with the views that are made at a place of the order, in steps, and these views."""
        specs = tuple(spec.at(place * self._batch_size) for spec in self._specs)
        if self._shown is None or self._shown[1] != specs:
            self._shown = head(self._first_batch(specs)), specs
        return self._shown

    def views(self) -> None:
        """What the model is shown: a broken crop or mask is seen at a glance."""
        image = views_picture(*self._examples(0))
        path = self._folder.pictures / "views-step-0.png"
        save_picture(image, path, VIEWS)
        self._log.picture("views", path, 0)

    def reconstruction(self, model: PretrainModel, step: int, position: int) -> None:
        """What the model predicts, for objectives that predict pixels.

        Args:
            model: The model.
            step: Steps done.
            position: How far the order was read, which is further than that where the run went back.
        """
        device = next(model.parameters()).device
        batch, specs = self._examples(max(0, position - 1))
        image = reconstruction_picture(model, to_device(batch, device), specs)
        if image is not None:
            path = self._folder.pictures / f"reconstruction-step-{step}.png"
            save_picture(image, path, RECONSTRUCTION)
            self._log.picture("reconstruction", path, step * self._batch_size)

    def curve(self) -> None:
        """The loss over samples seen, and what the monitor found."""
        save_curve(self._folder.metrics, self._folder.pictures / "curve.png")
