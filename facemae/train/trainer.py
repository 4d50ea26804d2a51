"""Pretraining as one call: takes the folder, finds where to go on, builds everything, and trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facemae.checkpoint import InitialWeights
from facemae.config import Recipe
from facemae.data.card import read_card
from facemae.data.loader import Loader, build_loader
from facemae.data.schema import ViewSpec
from facemae.files import write_text
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model
from facemae.recipe import recipe_to_yaml, view_specs
from facemae.train.folder import RunFolder
from facemae.train.gallery import Gallery
from facemae.train.lease import Lease
from facemae.train.log import RunLog
from facemae.train.loop import RunResult, Trainer, micro_steps
from facemae.train.numerics import Numerics, library_versions, machine_facts, resume_promise
from facemae.train.optim import Average, group_names
from facemae.train.preempt import StopRequest
from facemae.train.saver import Saver
from facemae.train.schedule import Lengths
from facemae.train.start import Start, describe_extension, find_start, load_initial, load_weights, resolve_lengths
from facemae.train.strategy import SingleProcess, Strategy


def pretrain(
    recipe: Recipe,
    out: str | Path,
    *,
    init_from: str | Path | None = None,
    extend: bool = False,
    adopt_data: bool = False,
) -> RunResult:
    """Pretrain a recipe in a run folder, or continue what was started there.

    The first SIGTERM or Ctrl-C saves and returns; the same call continues.

    Args:
        recipe: The recipe, with its streams' shards filled in.
        out: The run folder.
        init_from: Start from these weights: a run or checkpoint folder, an exported encoder, or a safetensors file.
            Ignored when the run continues.
        extend: Allow a longer `optim.total` than the run was started with.
        adopt_data: Let shards enter that were added since the run was started.

    Raises:
        LeaseError: Another job is writing there.
        ResumeError: The recipe differs from the one the run was started with.
        IndexMismatchError: The data is not what the run was started with.
        CheckpointError: No checkpoint is intact, or `init_from` does not fit.
        NonFiniteError: Loss or gradients stayed non-finite.
        StorageError: Reading or writing failed underneath.
    """
    folder = RunFolder(Path(out))
    folder.create()
    numerics = Numerics.choose(recipe.efficiency)
    with Lease(folder.lease) as lease, StopRequest() as stop, numerics.applied():
        start = find_start(folder.root, recipe, extend=extend, adopt_data=adopt_data)
        session = _Session(recipe, folder, numerics, start)
        with session.open_log() as log, log.failures():
            session.announce(log, lease)
            trainer = session.build(log, lease, stop, init_from=None if init_from is None else Path(init_from))
            return trainer.train()


class _Session:
    """Everything that is decided before the first step."""

    def __init__(self, recipe: Recipe, folder: RunFolder, numerics: Numerics, start: Start) -> None:
        self.recipe, self.folder, self.numerics, self.start = recipe, folder, numerics, start
        self.strategy: Strategy = SingleProcess()
        self.specs: tuple[ViewSpec, ...] = view_specs(recipe)
        # Only opened, to learn the size of an epoch; reads its one batch when a picture is due.
        self.first = self._loader(0, 1, workers=0)
        self.lengths: Lengths = resolve_lengths(recipe, start, self.first.epoch_samples)
        micro = recipe.optim.batch_size // self.strategy.world
        micro //= micro_steps(recipe, micro)
        self.machine: Mapping[str, Any] = machine_facts(numerics, world=self.strategy.world, micro_batch=micro)
        write_text(folder.recipe, recipe_to_yaml(recipe))

    def open_log(self) -> RunLog:
        settings = self.recipe.log
        return RunLog(
            self.folder,
            step=self.start.step,
            samples=self.start.step * self.lengths.batch,
            steps=self.lengths.steps,
            tensorboard=settings.tensorboard,
            keys=settings.keys,
        )

    def announce(self, log: RunLog, lease: Lease) -> None:
        """Say what begins, on which machine, and what may be expected of it."""
        for note in self.start.notes:
            log.event("note", note)
        if lease.taken_over is not None:
            gone = lease.taken_over
            log.event("note", f"took over from process {gone.pid} on {gone.host}, which is gone")
        facts = {**self.machine, **library_versions()}
        shared = {
            "steps": self.lengths.steps,
            "total_samples": self.lengths.total,
            "epoch_samples": self.lengths.epoch,
            "facts": facts,
        }
        size = f"{self.lengths.steps} steps of {self.lengths.batch} samples, {self.lengths.epoch} samples an epoch"
        log.event("setup", f"{self.recipe.name}: {size}; {self.numerics.reason}; {self.numerics.threads} threads")
        checkpoint = self.start.checkpoint
        if checkpoint is None:
            log.event("start", f"starting in {self.folder.root}", **shared)
            return
        old = {**checkpoint.manifest.machine, **checkpoint.manifest.versions}
        bitwise, promise = resume_promise(old, facts)
        log.event("resume", f"continuing from {checkpoint.folder.name}: {promise}", bitwise=bitwise, **shared)
        extension = describe_extension(self.recipe, self.start, self.lengths)
        if extension is not None:
            log.event("extend", extension)
        if self.start.pinned is None:
            log.event("adopt", "took over the data as it is now", streams=self.first.state_description())

    def build(self, log: RunLog, lease: Lease, stop: StopRequest, *, init_from: Path | None) -> Trainer:
        """Build model, optimiser and trainer, and put the checkpoint's state into them."""
        recipe, lengths, checkpoint = self.recipe, self.lengths, self.start.checkpoint
        model, init = self._build_model(log, init_from)
        forward = self.strategy.prepare(model, recipe.optim)
        average = None if lengths.ema is None else Average(model)
        if checkpoint is not None:
            self.strategy.load_optimizer_state(checkpoint.tensors("optimizer"))
            if average is not None:
                average.load(checkpoint.tensors("ema"))
        gallery = Gallery(self.folder, self.specs, lambda: next(iter(self.first)), batch_size=lengths.batch, log=log)
        if checkpoint is None:
            gallery.views()
        saver = Saver(
            self.folder, recipe, lengths, self.strategy, model, average,
            streams=self.first.state_description(), cards=self._cards(), init=init, machine=self.machine, log=log,
        )  # fmt: skip
        loader = self._loader(self.start.step, lengths.steps, workers=recipe.efficiency.workers)
        return Trainer(
            recipe, self.folder, lengths=lengths, numerics=self.numerics, strategy=self.strategy, model=model,
            forward=forward, average=average, loader=loader, log=log, saver=saver, gallery=gallery, lease=lease,
            stop=stop, state=dict(self.start.state),
        )  # fmt: skip

    def _build_model(self, log: RunLog, init_from: Path | None) -> tuple[PretrainModel, InitialWeights | None]:
        model = build_pretrain_model(self.recipe)
        init: InitialWeights | None = None
        if self.start.checkpoint is not None:
            init = self.start.checkpoint.manifest.init
            load_weights(model, self.start.checkpoint)
            if init_from is not None:
                log.event("note", f"--init-from {init_from} was used at the start of this run and is ignored now")
        elif init_from is not None:
            init, text = load_initial(model, init_from)
            log.event("init", text, digest=init.digest)
        groups = group_names(model.named_parameters())
        log.event(
            "groups",
            f"weight decay on {len(groups.decayed)} tensors, none on {len(groups.undecayed)}; names in the event log",
            decayed=groups.decayed,
            undecayed=groups.undecayed,
        )
        return model.to(self.numerics.device), init

    def _loader(self, start: int, stop: int, *, workers: int | None) -> Loader:
        return build_loader(
            self.recipe.data,
            self.specs,
            seed=self.recipe.seed,
            batch_size=self.recipe.optim.batch_size,
            start_step=start,
            stop_step=stop,
            rank=self.strategy.rank,
            world=self.strategy.world,
            workers=workers,
            pinned=self.start.pinned,
            pin_memory=self.numerics.device.type == "cuda",
        )

    def _cards(self) -> dict[str, Any]:
        return {stream.name: read_card(Path(stream.shards)) for stream in self.recipe.data.streams}


__all__ = ["RunResult", "pretrain"]
