"""Writing a run's checkpoints in the canonical form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from facemae.checkpoint import InitialWeights, Manifest, Tensors, write_checkpoint
from facemae.checkpoint_folders import remove_old, step_folder
from facemae.config import Recipe
from facemae.data.schema import DatasetCard
from facemae.recipe import recipe_tree
from facemae.recipe_specs import model_input
from facemae.train.hardware.numerics import library_versions
from facemae.train.optim.adamw import Average
from facemae.train.optim.schedule import Lengths
from facemae.train.record.log import RunLog
from facemae.train.saving.folder import RunFolder
from facemae.train.saving.rewind import scheduled
from facemae.train.strategy import Strategy


@dataclass
class Saver:
    """Writes checkpoints of one run: gathered from all processes, written by the first.

    Attributes:
        folder: The run folder.
        recipe: The recipe.
        lengths: Its lengths.
        strategy: Has the optimiser.
        model: The bare model.
        average: Averaged weights, or None.
        streams: What pins the data, by stream.
        cards: The streams' dataset cards.
        init: The weights the run was started with; None for random ones.
        machine: Facts that decide whether a continuation is bitwise.
        log: The run's logs.
        saved: The step whose checkpoint is there already, if any.
        changed_at: The step since which the run has gone on on the same terms (`saving.promise.Promise`).
    """

    folder: RunFolder
    recipe: Recipe
    lengths: Lengths
    strategy: Strategy
    model: nn.Module
    average: Average | None
    streams: Mapping[str, Any]
    cards: Mapping[str, DatasetCard]
    init: InitialWeights | None
    machine: Mapping[str, Any]
    log: RunLog
    saved: int | None
    changed_at: int | None

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the checkpoint of a step, unless it is there already, and remove the oldest; called by all processes.

        Args:
            step: Optimiser steps done.
            state: What the trainer has to remember beside weights and moments.

        Raises:
            StorageError: The disk is full or writing failed; earlier checkpoints are untouched.
        """
        # Not a look at the folder: what one process sees there another may not see yet, and all must decide alike.
        if step == self.saved:
            return
        self.saved = step
        optimizer = self.strategy.optimizer_state()
        if self.strategy.processes.rank == 0:
            self._write(step, optimizer, state)

    def _write(self, step: int, optimizer: Tensors, state: Mapping[str, Any]) -> None:
        folder = step_folder(self.folder.root, step)
        # What the logs say about these steps must be on the disk before the steps count as done.
        self.log.sync()
        tensors: dict[str, Tensors] = {"model": self.model.state_dict(), "optimizer": optimizer}
        if self.average is not None:
            tensors["ema"] = self.average.tensors()
        trainer = {
            "step": step,
            "samples": step * self.lengths.batch,
            "epoch_samples": self.lengths.epoch,
            "total_samples": self.lengths.total,
            "warmup_samples": self.lengths.warmup,
            "stage_samples": {view: list(begins) for view, begins in self.lengths.stages.items()},
            "seed": self.recipe.seed,
            "changed_at": self.changed_at,
            **state,
        }
        manifest = Manifest(
            step=step,
            samples=step * self.lengths.batch,
            recipe=recipe_tree(self.recipe),
            input=model_input(self.recipe),
            cards={**self.cards, **self._initial_cards()},
            init=self.init,
            versions=library_versions(),
            machine=dict(self.machine),
        )
        documents: dict[str, Mapping[str, Any]] = {"trainer": trainer, "data": {"streams": dict(self.streams)}}
        write_checkpoint(folder, manifest, tensors=tensors, documents=documents)
        spike = self.recipe.optim.spike
        spare = scheduled(self.lengths, step) if spike is not None and spike.action == "rewind" else None
        remove_old(self.folder.root, self.recipe.checkpoint.keep, spare)
        self.log.event("save", f"saved {folder.name}")

    def _initial_cards(self) -> dict[str, DatasetCard]:
        """What the initial weights were trained on is what these weights were trained on."""
        cards = {} if self.init is None else self.init.cards
        return {f"init/{name}": card for name, card in cards.items()}
