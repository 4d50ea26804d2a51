"""What a start of a run says before its first step: what begins, on which machine, and what may not be meant."""

from collections.abc import Iterator

from facemae.config.base import idle_settings
from facemae.data.selection import remark_test_samples
from facemae.data.workers import default_workers
from facemae.revision import revision
from facemae.train.hardware.allocator import memory_choice
from facemae.train.hardware.numerics import library_versions
from facemae.train.optim.spike import remark_window
from facemae.train.processes.world import describe_idle_gpus
from facemae.train.record.log import RunLog
from facemae.train.saving.lease import Lease
from facemae.train.session import Session
from facemae.train.start import describe_extension


def announce(session: Session, log: RunLog, lease: Lease | None, *, again: bool) -> None:
    """Say what begins, on which machine, and what may be expected of it.

    Args:
        session: What was decided.
        log: The run's logs; the first process's are the ones that are written.
        lease: The right to write in the folder; None but in the first process.
        again: Whether the run goes back, so that machine and remarks have been said.
    """
    for note in session.start.notes:
        log.event("note", note)
    if not again:
        _introduce(session, log, lease)
    _begin(session, log)


def _introduce(session: Session, log: RunLog, lease: Lease | None) -> None:
    if lease is not None and lease.taken_over is not None:
        gone = lease.taken_over
        log.event("note", f"took over from process {gone.pid} on {gone.host}, which is gone")
    size = f"{session.lengths.steps} steps of {session.lengths.batch} samples, {_describe_epoch(session)}"
    log.event("setup", f"{session.recipe.name}: {size}; {_describe_machine(session)}")
    for remark in _remarks(session):
        log.event("note", remark)


def _begin(session: Session, log: RunLog) -> None:
    shared = {
        "steps": session.lengths.steps,
        "total_samples": session.lengths.total,
        "epoch_samples": session.lengths.epoch,
        "code": revision(),
        "facts": {**session.machine, **library_versions()},
    }
    checkpoint, promise = session.start.checkpoint, session.promise
    if checkpoint is None:
        log.event("start", f"starting in {session.folder.root}", **shared)
        return
    text = f"continuing from {checkpoint.folder.name}: {promise.text}"
    if session.start.went_back and promise.bitwise:
        text += "; an undisturbed run goes back here as well"
    log.event("resume", text, bitwise=promise.bitwise, changed_at=promise.changed_at, **shared)
    extension = describe_extension(session.recipe, session.start, session.lengths)
    if extension is not None:
        log.event("extend", extension)
    if session.start.pinned is None:
        log.event("adopt", "took over the data as it is now", streams=session.first.state_description())


def _remarks(session: Session) -> Iterator[str]:
    """What a person may not have meant."""
    recipe = session.recipe
    idle = describe_idle_gpus(recipe, session.processes.world)
    if idle is not None:
        yield idle
    yield from _remark_length(session)
    for name in recipe.unused():
        kind = "view" if name in recipe.views else "sound"
        yield f"no objective takes {kind} {name!r}: it costs time and teaches nothing; take it out of the recipe"
    yield from idle_settings(recipe)
    if session.start.checkpoint is None and session.is_first:
        for number, (stream, config) in enumerate(zip(session.first.streams, recipe.data.streams, strict=True)):
            remark = remark_test_samples(stream.index, config, number)
            if remark is not None:
                yield remark


def _remark_length(session: Session) -> Iterator[str]:
    """Settings that the run is too short for."""
    optim, lengths = session.recipe.optim, session.lengths
    if optim.total.unit == "samples" and optim.total.amount < lengths.batch:
        yield (
            f"optim.total of {optim.total.amount:g} samples is less than a step of {lengths.batch}: a number "
            "without a unit counts samples; '20 epochs' counts epochs"
        )
    remarks = [objective.remark(lengths.total, lengths.batch) for objective in session.recipe.objectives]
    if lengths.warmup >= lengths.total:
        remarks.append(
            f"optim.warmup of {lengths.warmup} samples lasts for a whole run of {lengths.total}, so the learning rate "
            "rises to its end and never falls; make it shorter, such as '5 percent', or the run longer"
        )
    remarks.append(remark_window(optim.spike, lengths))
    if session.start.step >= lengths.steps:
        remarks.append("nothing is left to train; a longer optim.total goes on with --extend")
    yield from filter(None, remarks)


def _describe_machine(session: Session) -> str:
    numerics, world = session.numerics, session.processes.world
    choice = memory_choice() if numerics.device.type == "cpu" else None
    memory = "" if choice is None else f"; {choice} is set and decides what is done with freed memory"
    workers = session.recipe.efficiency.workers
    workers = default_workers() if workers is None else workers
    each = f"{world} processes, each with " if world > 1 else ""
    used = f"{_count(numerics.threads, 'thread')}, {_count(workers, 'loader process', 'es')}"
    return f"{numerics.reason}; {each}{used}{memory}"


def _describe_epoch(session: Session) -> str:
    first, epoch = session.first, session.lengths.epoch
    total = sum(stream.order.samples_total for stream in first.streams)
    out = total - epoch
    # A run that has taken new data over keeps the length its epochs began with.
    if out == 0 or first.epoch_samples != epoch:
        return f"{epoch:,} samples an epoch"
    others = "other ones" if out > 1 else "another one"
    return f"{epoch:,} of {total:,} samples an epoch: {out} must sit out, {others} the next"


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{plural if number != 1 else ''}"
