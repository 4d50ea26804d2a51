"""Everything that is decided and built between the taking of a run's folder and its first step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from facemae.checkpoint import InitialWeights
from facemae.config import Recipe
from facemae.data.card import read_card
from facemae.data.loader import Loader, build_loader
from facemae.data.schema import Batch, ViewSpec
from facemae.errors import DataError
from facemae.files import write_text
from facemae.objectives.exchange import Exchange
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model
from facemae.recipe import recipe_to_yaml, recipe_tree
from facemae.recipe_specs import sound_specs, view_specs
from facemae.train.hardware.numerics import Numerics, library_versions, machine_facts
from facemae.train.labels import check_labels
from facemae.train.loop import Trainer, micro_steps
from facemae.train.monitor.monitor import choose_faces, open_monitor
from facemae.train.optim.adamw import Average, group_names
from facemae.train.optim.schedule import Lengths
from facemae.train.processes.process_group import OneProcess, Processes
from facemae.train.processes.quiet import QuietLog
from facemae.train.record.gallery import Gallery
from facemae.train.record.log import RunLog
from facemae.train.saving.folder import RunFolder
from facemae.train.saving.lease import Lease
from facemae.train.saving.preempt import StopRequest
from facemae.train.saving.promise import Promise, resume_promise
from facemae.train.saving.rewind import position
from facemae.train.saving.saver import Saver
from facemae.train.saving.terms import Terms, write_terms
from facemae.train.start import Start, load_initial, load_weights, resolve_lengths
from facemae.train.strategy import Strategy, choose_strategy


class Session:
    """One start of a run, in one of its processes.

    Args:
        recipe: The recipe.
        folder: The run folder, which is taken.
        numerics: Device, precision, threads.
        processes: The processes of the run.
        start: Where the run goes on from.

    Raises:
        ConfigError: Settings that do not go together.
        UsageError: A batch or number of processes that does not fit the data, or a monitor of faces that there are not.
        DataError: A stream's data cannot be read.
        IndexMismatchError: The data is not what the run was started with.
        ResumeError: The run would become shorter than it was.
        StorageError: The recipe cannot be written.
    """

    def __init__(
        self, recipe: Recipe, folder: RunFolder, numerics: Numerics, processes: Processes, start: Start
    ) -> None:
        self.recipe, self.folder, self.numerics, self.start = recipe, folder, numerics, start
        self.processes = processes
        self.is_first = processes.rank == 0
        self.strategy: Strategy = choose_strategy(
            recipe.efficiency,
            processes,
            numerics.device,
            exchanges=any(objective.compares_samples for objective in recipe.objectives),
        )
        self.specs: tuple[ViewSpec, ...] = view_specs(recipe)
        # Only opened, to learn the size of an epoch.
        self.first = self._first_loader(self.specs)
        self._check_same_data()
        self.lengths: Lengths = resolve_lengths(recipe, start, self.first.epoch_samples)
        # Where a view changes is known only now.
        self.specs = view_specs(recipe, self.lengths.stages)
        share = recipe.optim.batch_size // processes.world
        self.machine: Mapping[str, Any] = machine_facts(
            numerics,
            world=processes.world,
            strategy=self.strategy.name,
            micro_batch=share // micro_steps(recipe, share),
        )
        self.promise = self._promise()
        self.faces = choose_faces(recipe, self.first.streams) if self.is_first else None
        if self.is_first:
            write_text(folder.recipe, recipe_to_yaml(recipe))

    def _check_same_data(self) -> None:
        """Raise DataError in all processes where one of them reads other samples than the first."""
        first, *others = self.processes.gather_objects({stream.name: stream.content for stream in self.first.streams})
        for rank, found in enumerate(others, start=1):
            for name, said in first.items():
                if found[name] != said:
                    what = "samples" if found[name][0] == said[0] else "shards"
                    raise DataError(
                        f"process {rank} reads other {what} for stream {name!r} than the first process",
                        expected="the same shard set and list of keys in all processes, on every machine of the run",
                        fix="copy them again, or name some that all can read",
                    )

    def open_log(self) -> RunLog:
        """The run's log in the first process, a quiet one in the others.

        Raises:
            MissingExtraError: A logger's library is not installed.
            StorageError: The log cannot be continued.
        """
        if not self.is_first:
            return QuietLog()
        settings = self.recipe.log
        return RunLog(
            self.folder,
            step=self.start.step,
            batch=self.lengths.batch,
            steps=self.lengths.steps,
            keys=settings.keys,
            loggers=settings.loggers,
            recipe=recipe_tree(self.recipe),
            rewinds=len(self.start.rewinds),
        )

    def _promise(self) -> Promise:
        checkpoint = self.start.checkpoint
        if checkpoint is None:
            return Promise("from the beginning", None)
        before = int(self.start.state.get("total_samples", self.lengths.total))
        streams, now = checkpoint.document("data")["streams"], self.first.state_description()
        other_order = not self.first.continues(streams)
        return resume_promise(
            {**checkpoint.manifest.machine, **checkpoint.manifest.versions},
            {**self.machine, **library_versions()},
            step=self.start.step,
            sounds=bool(self.recipe.sounds),
            changed_at=self.start.changed_at,
            other_order=other_order,
            erased=not other_order and any(now[name]["digest"] != then["digest"] for name, then in streams.items()),
            longer=None if before == self.lengths.total else (before, self.lengths.total),
        )

    def grant_terms(self) -> None:
        """Write down what the run's older checkpoints do not know: that it has another length now, or reads more.

        Only when nothing can be refused any more, in the first process.

        Raises:
            StorageError: It cannot be written.
        """
        checkpoint = self.start.checkpoint
        if checkpoint is None or not self.is_first:
            return
        total = self.recipe.optim.total.model_dump()
        before = self.start.terms or Terms.of(checkpoint)
        if total != before.total or not self.first.continues(before.streams):
            write_terms(self.folder.terms, Terms(before.step, total, self.first.state_description()))

    def build(self, log: RunLog, lease: Lease | None, stop: StopRequest, *, init_from: Path | None) -> Trainer:
        """Build model, optimiser and trainer, and put the checkpoint's state into them.

        Raises:
            ConfigError: An objective, the monitor or the spike watch cannot be made as the recipe wants it.
            CheckpointError: The checkpoint, or `init_from`, does not fit the model.
            StorageError: Reading or writing failed underneath.
        """
        recipe, lengths, checkpoint = self.recipe, self.lengths, self.start.checkpoint
        model, init = self._build_model(log, init_from)
        forward = self.strategy.prepare(model, recipe.optim)
        average = None if lengths.ema is None else Average(model)
        if checkpoint is not None:
            self.strategy.load_optimizer_state(checkpoint.tensors("optimizer"))
            if average is not None:
                average.load(checkpoint.tensors("ema"))
        gallery = self._open_gallery(log)
        if gallery is not None and checkpoint is None:
            gallery.views()
        saver = Saver(
            self.folder, recipe, lengths, self.strategy, model, average,
            streams=self.first.state_description(), cards=self._cards(), init=init, machine=self.machine, log=log,
            changed_at=self.promise.changed_at,
            saved=None if checkpoint is None else self.start.step,
        )  # fmt: skip
        monitor = (
            None
            if self.faces is None
            else open_monitor(recipe, self.faces, lengths, self.numerics, model, average, log, self.first.streams)
        )
        steps = range(self.start.step, lengths.steps)
        loader = self._loader(self.specs, steps, self.processes, workers=recipe.efficiency.workers)
        if self.start.rewinds:
            loader = loader.reading([position(self.start.rewinds, step) for step in steps])
        return Trainer(
            recipe, self.folder, lengths=lengths, numerics=self.numerics, strategy=self.strategy, model=model,
            forward=forward, average=average, loader=loader, log=log, saver=saver, gallery=gallery,
            monitor=monitor, lease=lease, stop=stop, state=dict(self.start.state), rewinds=len(self.start.rewinds),
        )  # fmt: skip

    def _open_gallery(self, log: RunLog) -> Gallery | None:
        if not self.is_first:
            return None

        def first_batch(specs: Sequence[ViewSpec]) -> Batch:
            return next(iter(self._first_loader(specs)))

        return Gallery(self.folder, self.specs, first_batch, batch_size=self.lengths.batch, log=log)

    def _first_loader(self, specs: Sequence[ViewSpec]) -> Loader:
        """Reads the first step's whole batch."""
        return self._loader(specs, range(1), OneProcess(), workers=0)

    def _build_model(self, log: RunLog, init_from: Path | None) -> tuple[PretrainModel, InitialWeights | None]:
        model = build_pretrain_model(self.recipe, self.processes)
        for sentence in check_labels(self.recipe, model, self.first.streams):
            log.event("labels", sentence)
        init: InitialWeights | None = None
        if self.start.checkpoint is not None:
            init = self.start.checkpoint.manifest.init
            load_weights(model, self.start.checkpoint)
            if init_from is not None:
                began = (
                    "random weights" if init is None else f"given weights (recipe {init.recipe}, {init.digest[:12]})"
                )
                log.event("note", f"--init-from {init_from} is ignored: this run was started from {began}")
        elif init_from is not None:
            init, text = load_initial(model, init_from, self.recipe)
            log.event("init", text, digest=init.digest)
        groups = group_names(model.named_parameters())
        log.event(
            "groups",
            f"weight decay on {len(groups.decayed)} tensors, none on {len(groups.undecayed)}; names in the event log",
            decayed=groups.decayed,
            undecayed=groups.undecayed,
        )
        return self.numerics.prepare(model), init

    def _loader(self, specs: Sequence[ViewSpec], steps: range, processes: Exchange, *, workers: int | None) -> Loader:
        return build_loader(
            self.recipe.data,
            specs,
            seed=self.recipe.seed,
            batch_size=self.recipe.optim.batch_size,
            start_step=steps.start,
            stop_step=steps.stop,
            rank=processes.rank,
            world=processes.world,
            workers=workers,
            pinned=self.start.pinned,
            pin_memory=self.numerics.device.type == "cuda",
            sounds=sound_specs(self.recipe),
        )

    def _cards(self) -> dict[str, Any]:
        return {stream.name: read_card(Path(stream.shards)) for stream in self.recipe.data.streams}
