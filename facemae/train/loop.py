"""The training loop: any recipe, on one processor or many, through a strategy."""

import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch

from facemae.config import Recipe
from facemae.data.loader import Loader
from facemae.data.quarantine import Quarantine
from facemae.data.schema import Batch
from facemae.errors import ConfigError
from facemae.objectives.pretraining import PretrainModel
from facemae.train.hardware.blocks import uncompiled
from facemae.train.hardware.device import Mover
from facemae.train.hardware.numerics import Numerics
from facemae.train.hardware.resident import resident_bytes
from facemae.train.hardware.work import Work
from facemae.train.monitor.monitor import Monitor
from facemae.train.optim.adamw import Average
from facemae.train.optim.guard import Guard, Skip
from facemae.train.optim.schedule import Lengths, averaging_rate, due, learning_rate
from facemae.train.optim.spike import SpikeWatch
from facemae.train.record.audit import consumed
from facemae.train.record.clock import Clock
from facemae.train.record.gallery import Gallery
from facemae.train.record.held import held_notes
from facemae.train.record.log import RunLog, read_lines
from facemae.train.record.metrics import MetricBag
from facemae.train.saving.folder import RunFolder
from facemae.train.saving.lease import Lease
from facemae.train.saving.preempt import StopRequest
from facemae.train.saving.rewind import GoBack, scheduled
from facemae.train.saving.saver import Saver
from facemae.train.stages import stages_begun
from facemae.train.strategy import Strategy, Update


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        folder: The run folder, as given.
        step: Optimiser steps done.
        samples: Samples consumed.
        loss: Mean loss of the last log interval; None where nothing was logged.
        stopped: `finished`, or the name of the signal that asked for the stop.
    """

    folder: str
    step: int
    samples: int
    loss: float | None
    stopped: str

    def to_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return asdict(self)


class Trainer:
    """Runs the steps of a prepared run.

    Args:
        recipe: The recipe.
        folder: Where the run writes.
        lengths: Its lengths in samples.
        numerics: Device, precision, threads.
        strategy: Spreads a step over processes, which all make the same calls; has prepared the model.
        model: The bare model, for counts and pictures.
        forward: What the strategy made of it, to be called.
        average: The running average of the weights, or None.
        loader: Batches of this process.
        log: The run's logs; the first process's are the ones that are written.
        saver: Writes checkpoints.
        gallery: Draws pictures; None but in the first process.
        monitor: Measures held-out faces; None but in the first process, and where the recipe asks for none.
        lease: The right to write in the folder; None but in the first process.
        stop: Watches for signals.
        state: `trainer.json` of the checkpoint the run continues from; empty for a fresh run.
        rewinds: How often the run has gone back.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        *,
        lengths: Lengths,
        numerics: Numerics,
        strategy: Strategy,
        model: PretrainModel,
        forward: torch.nn.Module,
        average: Average | None,
        loader: Loader,
        log: RunLog,
        saver: Saver,
        gallery: Gallery | None,
        monitor: Monitor | None,
        lease: Lease | None,
        stop: StopRequest,
        state: dict[str, Any],
        rewinds: int = 0,
    ) -> None:
        self._recipe, self._folder, self._lengths, self._numerics = recipe, folder, lengths, numerics
        self._strategy, self._processes = strategy, strategy.processes
        self._model, self._forward, self._average = model, forward, average
        self._loader, self._log, self._saver, self._gallery = loader, log, saver, gallery
        self._monitor, self._lease, self._stop = monitor, lease, stop
        self._move = Mover(numerics.device)
        self._bag = MetricBag(numerics.device)
        is_first = strategy.processes.rank == 0
        self._bag.load(state.get("metrics", {}), first=is_first)
        self._guard = Guard(recipe.optim, state, rewinds)
        spike = recipe.optim.spike
        self._spikes = (
            None if spike is None else SpikeWatch.open(spike, lengths, numerics.device, state.get("norms", ()))
        )
        self._step = int(state.get("step", 0))
        self._position = int(state.get("position", self._step))
        self._quarantine = Quarantine(
            folder.quarantine, recipe.data.max_damage, writes=is_first,
            seen=self._samples, replaced=int(state.get("replaced", 0)),
        )  # fmt: skip
        self._held: set[str] = set()
        self._loss = _last_loss(folder)

    def train(self) -> RunResult:
        """Run until the end, or until a signal asks for a stop.

        Raises:
            NonFiniteError: Too many updates in a row had to be skipped; a debug bundle was written.
            SpikeError: Gradients stood out too often; likewise.
            GoBack: The run is to be started again from its newest checkpoint, in all processes.
            DamageLimitError: Too many samples do not decode.
            LeaseError: Another job has taken the folder.
            StorageError: Reading or writing failed underneath.
        """
        if self._step == 0:
            # From the first moment the folder knows its recipe, its data and its initial weights.
            self._save()
        numerics = self._numerics
        work = Work(numerics.peak(), recomputed=numerics.checkpointing, compiled=numerics.compiled)
        clock = Clock(self._step, work)
        reason = "finished"
        for batch in clock.waiting(self._loader):
            self._check_lease()
            for text in stages_begun(self._recipe, self._lengths, self._step, range(self._position, batch.step + 1)):
                self._log.event("stage", text)
            for text in held_notes(batch, self._held):
                self._log.event("clips", text)
            parts = batch.split(micro_steps(self._recipe, len(batch)))
            counts = self._global_counts(batch, parts)
            with clock.work.step(batch):
                update = self._take_step(self._step, parts, counts)
            self._step, self._position = self._step + 1, batch.step + 1
            self._heed(self._guard.push(self._step - 1, batch, update))
            self._log.consumed(self._step, consumed(batch, self._processes) if self._recipe.log.keys else None)
            self._report(clock, self._step - 1)
            signalled = self._processes.agree(self._stop.reason is not None)
            if signalled or self._due(self._lengths.save):
                self._save()
            # A signal in the last step stops nothing.
            if signalled and self._step < self._lengths.steps:
                reason = self._common_reason()
                break
        self._save()
        if self._gallery is not None:
            self._gallery.curve()
        self._log.event("stop", self._farewell(reason), reason=reason)
        # The run has not ended well before its last checkpoint is written, which is the first process's work.
        self._processes.barrier()
        return RunResult(str(self._folder.root), self._step, self._samples, self._loss, reason)

    @property
    def _samples(self) -> int:
        return self._step * self._lengths.batch

    def _take_step(self, step: int, parts: Sequence[Batch], counts: Sequence[int]) -> Update:
        """One optimiser step on this process's part of the global batch."""
        optim, lengths = self._recipe.optim, self._lengths
        before = step * lengths.batch
        self._strategy.clear()
        totals: dict[str, torch.Tensor] = {}
        for number, part in enumerate(parts, start=1):
            part = self._move(part)
            with self._strategy.accumulate(last=number == len(parts)):
                with self._numerics.autocast():
                    loss, metrics = self._forward(part, step, counts)
                self._strategy.backward(loss)
            for name, value in {"loss": loss.detach(), **metrics}.items():
                totals[name] = totals[name] + value if name in totals else value
        ceiling = None if self._spikes is None else self._spikes.ceiling()
        update = self._strategy.update(totals["loss"], learning_rate(optim, lengths, before), optim.clip, ceiling)
        if self._spikes is not None:
            self._spikes.push(update)
        if self._average is not None and lengths.ema is not None:
            self._average.update(averaging_rate(lengths.ema, before + lengths.batch, lengths.batch))
        # All processes know the norm; the bag adds up over processes.
        norms = {"grad_norm": update.norm, "grad_norm_adversary": update.adversary}
        known = {name: norm / self._processes.world for name, norm in norms.items() if norm is not None}
        self._bag.add({**totals, **known}, update.bad, self._model.counted(counts))
        return update

    def _global_counts(self, batch: Batch, parts: Sequence[Batch]) -> list[int]:
        """Each objective's count over the global batch, known before the first backward pass.

        Samples that were replaced are counted on the same way, and recorded where there are any.
        """
        local = torch.tensor([self._model.counts(part) for part in parts]).sum(dim=0)
        *counts, damaged = self._processes.all_reduce_sum(torch.cat([local, torch.tensor([len(batch.replaced)])]))
        replaced = list(chain(*self._processes.gather_objects(batch.replaced))) if damaged else []
        self._quarantine.record(batch, replaced, world=self._processes.world)
        return [int(count) for count in counts]

    def _heed(self, skip: Skip | None) -> None:
        """Record a skipped update, go back where the recipe wants it, and stop after too many."""
        if skip is None:
            return
        self._log.event("skip", skip.text, skipped_step=skip.step, streak=skip.streak)
        if self._guard.exhausted(skip):
            facts = {
                "precision": self._numerics.precision,
                "lr": learning_rate(self._recipe.optim, self._lengths, skip.step * self._lengths.batch),
            }
            raise self._guard.stop(self._folder, skip, facts, self._processes)
        if self._guard.goes_back(skip):
            target = scheduled(self._lengths, skip.step)
            text = (
                f"going back to the checkpoint of step {target}, and on with the samples after step {skip.step + 1}'s"
            )
            self._log.event("rewind", text, spike=skip.step, position=skip.position)
            raise GoBack(skip.step, skip.position, target)

    def _report(self, clock: Clock, step: int) -> None:
        """Write a line of metrics and draw pictures, where they are due."""
        if self._step % self._recipe.log.every_steps == 0 or self._step == self._lengths.steps:
            means = self._bag.read(self._processes)
            resident = self._processes.all_reduce_sum(torch.tensor(resident_bytes()))
            self._loss = means.get("loss", self._loss)
            held_out = self._watch(clock)
            self._log.metrics(
                {
                    "step": self._step,
                    "samples": self._samples,
                    "epoch": round(self._samples / self._lengths.epoch, 4),
                    **self._stream_epochs(),
                    **means,
                    **held_out,
                    "lr": learning_rate(self._recipe.optim, self._lengths, step * self._lengths.batch),
                    **clock.read(self._step, self._lengths),
                    "rss_mb": round(int(resident) / 2**20, 1),
                    **self._guard.counts(),
                    "replaced": self._quarantine.replaced,
                }
            )
        if self._gallery is not None and self._due(self._lengths.pictures):
            with clock.aside(), uncompiled():
                self._gallery.reconstruction(self._model, self._step, self._position)

    def _watch(self, clock: Clock) -> dict[str, float]:
        """Measure held-out faces, where that was due since the last line of metrics."""
        interval = self._recipe.log.every_steps * self._lengths.batch
        if self._monitor is None or not self._due(self._monitor.every, interval):
            return {}
        with clock.aside(), uncompiled():
            return self._monitor.measure()

    def _stream_epochs(self) -> dict[str, float]:
        """How often each stream was seen, where there are several: their epochs are not equally long."""
        epochs = self._loader.plan.epochs(self._position)
        return {f"epochs/{name}": round(seen, 4) for name, seen in epochs.items()} if len(epochs) > 1 else {}

    def _save(self) -> None:
        # A step may have taken long enough for another job to take over; its checkpoints are not ours to replace.
        self._check_lease()
        self._heed(self._guard.read())
        state = {
            "position": self._position,
            **self._guard.state(),
            "replaced": self._quarantine.replaced,
            "metrics": self._bag.state(self._processes),
        }
        if self._spikes is not None:
            state["norms"] = self._spikes.state()
        self._saver.save(self._step, state)

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _common_reason(self) -> str:
        """The signal that stops the run: Ctrl-C where any process heard it."""
        heard = {reason for reason in self._processes.gather_objects(self._stop.reason) if reason is not None}
        return signal.SIGINT.name if signal.SIGINT.name in heard else min(heard)

    def _due(self, every: int, interval: int | None = None) -> bool:
        """Whether something was due in the last samples, those of one step by default, or the run is over."""
        return due(every, self._samples, interval or self._lengths.batch) or self._step == self._lengths.steps

    def _farewell(self, reason: str) -> str:
        if reason == "finished":
            shown = "" if self._gallery is None else f"; pictures and curve in {self._gallery.folder}"
            return f"finished: {self._step} steps, {self._samples} samples{shown}"
        return f"stopped by {reason} after step {self._step}, saved; the same command continues"


def micro_steps(recipe: Recipe, share: int) -> int:
    """Forward passes in a step.

    Args:
        recipe: The recipe.
        share: Samples of this process in a step.

    Raises:
        ConfigError: `efficiency.micro_batch` does not divide the share; lists what does.
    """
    size = recipe.efficiency.micro_batch or share
    if share % size:
        legal = [str(part) for part in range(1, share + 1) if share % part == 0]
        raise ConfigError(
            f"efficiency.micro_batch {size} does not divide the {share} samples of a process's step",
            expected=f"one of {', '.join(legal)}",
        )
    return share // size


def _last_loss(folder: RunFolder) -> float | None:
    lines = read_lines(folder.metrics, last=1)
    return lines[0].get("loss") if lines else None
