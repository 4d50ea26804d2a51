"""Pretraining as one call: starts the processes, takes the folder, finds where to go on, builds everything, trains."""

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from facemae.config import Recipe
from facemae.data.selection import open_shards
from facemae.errors import FacemaeError
from facemae.train.announcement import announce
from facemae.train.hardware.numerics import Numerics
from facemae.train.labels import complete_recipe
from facemae.train.loop import RunResult
from facemae.train.processes.launcher import run_in_processes
from facemae.train.processes.process_group import OneProcess, Place, Processes, ProcessGroup, find_place
from facemae.train.processes.rank import Began, Ending, Tell
from facemae.train.processes.world import (
    check_given_world,
    check_gpus,
    check_share,
    choose_world,
    place_by_slurm,
    visible_gpus,
)
from facemae.train.record.log import append_line, read_lines
from facemae.train.saving.folder import RunFolder
from facemae.train.saving.lease import Lease
from facemae.train.saving.preempt import StopRequest
from facemae.train.saving.rewind import GoBack, record_rewind
from facemae.train.session import Session
from facemae.train.start import Start, find_start


@dataclass(frozen=True)
class Request:
    """What `pretrain` was asked for, on its way to the processes of the run; see there."""

    recipe: Recipe
    out: Path
    init_from: Path | None = None
    extend: bool = False
    adopt_data: bool = False


def pretrain(
    recipe: Recipe,
    out: str | Path,
    *,
    init_from: str | Path | None = None,
    extend: bool = False,
    adopt_data: bool = False,
) -> RunResult:
    """Pretrain a recipe in a run folder, or continue what was started there.

    The first SIGTERM or Ctrl-C saves and returns; the same call continues. Where the recipe has several processes, they
    are started and waited for; a process that torchrun or srun has started joins the others instead.

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
        SpikeError: Gradients stood out more often than the recipe tolerates.
        DamageLimitError: More samples had to be replaced than the recipe allows.
        StorageError: Reading or writing failed underneath.
        ProcessError: The processes do not find each other, or one of them was killed.
        UsageError: The number of processes does not fit the recipe or the machine.
        ConfigError: Settings that do not go together. Sizes that do not divide each other are refused before the
            folder is made.
        DataError: A stream's data cannot be read; where there is no shard set, before the folder is made.
    """
    os.environ.update(place_by_slurm())
    place = find_place()
    world = choose_world(recipe) if place is None else place.world
    check_share(recipe, world)
    if place is None:
        check_gpus(recipe.efficiency, world)
    else:
        check_given_world(recipe.efficiency, world)
    initial = None if init_from is None else Path(init_from)
    request = Request(recipe, Path(out), initial, extend=extend, adopt_data=adopt_data)
    if place is not None:
        with StopRequest() as stop, _join(place, recipe) as group:
            # One machine of the run may lack the shards: only processes that have met notice that another has ended.
            return pretrain_among(group, _completed(request), stop)
    request = _completed(request)
    if world > 1:
        lost = functools.partial(record_loss, RunFolder(request.out))
        result: RunResult = run_in_processes(functools.partial(_pretrain_as_rank, request), world, lost)
        return result
    with StopRequest() as stop:
        return pretrain_among(OneProcess(), request, stop)


def _completed(request: Request) -> Request:
    """The request with what its recipe leaves to the data.

    Shards are opened only so that a mistyped folder is refused before the run's is made.
    """
    for number, stream in enumerate(request.recipe.data.streams):
        open_shards(stream, number)
    return replace(request, recipe=complete_recipe(request.recipe, request.out))


def _pretrain_as_rank(request: Request, stop: StopRequest, tell: Tell) -> RunResult:
    """What each process of a run does that `pretrain` has started."""
    place = find_place()
    assert place is not None, "given by whoever started this process"
    with _join(place, request.recipe) as group:
        return pretrain_among(group, request, stop, tell)


def _join(place: Place, recipe: Recipe) -> ProcessGroup:
    gpu = recipe.efficiency.device != "cpu" and visible_gpus() > 0
    return ProcessGroup(place, "cuda" if gpu else "cpu")


def _tell_nobody(_: Began | Ending) -> None:
    pass


def pretrain_among(processes: Processes, request: Request, stop: StopRequest, tell: Tell = _tell_nobody) -> RunResult:
    """This process's part of a run.

    Args:
        processes: The processes of the run, all of which call this.
        request: What was asked for.
        stop: Watches for signals.
        tell: Told, in the first process, when the run folder is taken, and when an error is about to end the run.

    Raises:
        FacemaeError: As `pretrain`.
    """
    recipe, folder = request.recipe, RunFolder(request.out)
    numerics = Numerics.choose(recipe.efficiency)
    with contextlib.ExitStack() as stack:
        lease: Lease | None = None
        start = Start()
        if processes.rank == 0:
            folder.create()
            lease = stack.enter_context(Lease(folder.lease))
            tell(Began())
        stack.enter_context(numerics.applied())
        went_back = False
        while True:
            # Before the first start an error refuses the command, and the run is what it was.
            with _written_down(folder) if went_back and processes.rank == 0 else contextlib.nullcontext():
                if processes.rank == 0:
                    # What came since the start is not adopted in mid-run.
                    adopt = request.adopt_data and not went_back
                    start = find_start(folder.root, recipe, extend=request.extend, adopt_data=adopt)
                # One process decides; the others read the same checkpoint from the file system that they share.
                start = processes.broadcast_object(start)
                session = Session(recipe, folder, numerics, processes, start)
            try:
                with session.open_log() as log, _told(tell if processes.rank == 0 else _tell_nobody), log.failures():
                    announce(session, log, lease, again=went_back)
                    init_from = None if went_back else request.init_from
                    prepared = session.build(log, lease, stop, init_from=init_from)
                    session.grant_terms()
                    return prepared.train()
            except GoBack as back:
                went_back = True
                if processes.rank == 0:
                    with _written_down(folder):
                        record_rewind(folder.root, folder.rewinds, back, session.promise.changed_at)


@contextlib.contextmanager
def _told(tell: Tell) -> Iterator[None]:
    """Tell whoever started the processes of an error in the block, before the log is closed, which may last."""
    try:
        yield
    except GoBack:
        raise
    except BaseException:
        # Nobody left to be told is no reason to hide what happened.
        with contextlib.suppress(OSError):
            tell(Ending())
        raise


@contextlib.contextmanager
def _written_down(folder: RunFolder) -> Iterator[None]:
    """Write down which error ended the run in the block, between two starts, when no log is open."""
    try:
        yield
    except FacemaeError as error:
        # The reason may be that nothing can be written; the error itself is what the person must see.
        with contextlib.suppress(FacemaeError, OSError):
            record_loss(folder, type(error).__name__, error.found)
        raise


def record_loss(folder: RunFolder, reason: str, found: str) -> None:
    """Write down how a run ended whose first process could not: it was killed, or never learned why it had to end."""
    if not folder.exists():
        # A log without a recipe would make it a folder of something else, which the next start refuses.
        return
    last = [*read_lines(folder.metrics, last=1), *read_lines(folder.events, last=1)]
    step = max((int(line.get("step", 0)) for line in last), default=0)
    text = f"stopped after step {step} or later: {found}"
    append_line(folder.events, {"time": time.time(), "event": "stop", "step": step, "text": text, "reason": reason})


__all__ = ["Request", "RunResult", "pretrain", "pretrain_among", "record_loss"]
