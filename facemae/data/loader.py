"""From streams to batches: what one process receives, step by step.

One item of the underlying DataLoader is one process's whole batch of one step, made from the step number alone. So the
number of worker processes decides only how soon a batch is there, never what is in it.
"""

import copy
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from facemae.config import DataConfig, StreamConfig
from facemae.data.augment import make_clip_view, make_view
from facemae.data.blank import empty_sound, empty_view, rows_of
from facemae.data.index import ShardIndex
from facemae.data.material import Material, check_heard, check_views, draw_moment
from facemae.data.metadata import sample_labels
from facemae.data.order import Order
from facemae.data.plan import Plan, SlotRef
from facemae.data.reader import ShardReader
from facemae.data.regions import Map
from facemae.data.schema import Batch, Replacement, Sample, SoundBatch, SoundSpec, ViewBatch, ViewSpec
from facemae.data.selection import check_regions, check_selection, choose_samples, open_shards
from facemae.data.sound_masks import draw_sound_mask
from facemae.data.workers import context, default_workers, remembered_workers, start_worker
from facemae.errors import DataError, DecodeError, FacemaeError, IndexMismatchError
from facemae.rng import generator

_NEIGHBOURS = 32
_PREFETCH = 2

_Pinned = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Stream:
    """An opened stream: its index as pinned, its order, its share of a batch, and what its `where` selects."""

    name: str
    index: ShardIndex
    order: Order
    share: int
    selection: Mapping[str, Any] | None = None

    def description(self) -> dict[str, Any]:
        """What pins the stream's data."""
        found: dict[str, Any] = {"shards": len(self.index.shards), "digest": self.index.digest}
        return found if self.selection is None else {**found, "selection": dict(self.selection)}

    @property
    def content(self) -> tuple[str, str | None]:
        """Digests of the shards and of the positions selected in them: where both are equal, so are the samples."""
        return self.index.digest, None if self.selection is None else self.selection["digest"]

    def continues(self, pinned: Mapping[str, Any]) -> bool:
        """Whether the order is that of a run that pinned this; samples that were erased since have substitutes in it.

        Args:
            pinned: What `description` said then.
        """
        selection = (pinned.get("selection") or {}).get("digest")
        return (
            (len(self.index.shards), self.content[1]) == (pinned["shards"], selection)
            # The digest is another where samples were erased, see `facemae.data.drop`.
            and self.index.accepts(str(pinned["digest"]))
        )


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a worker to the training process, which raises it as it was."""

    error: FacemaeError


class StepDataset(Dataset[Batch | _Failure]):
    """One process's batch for a step number. Pure: equal steps give equal batches.

    Args:
        plan: Which sample each slot reads.
        readers: One for each stream.
        specs: The views to make.
        seed: The run's seed.
        rank: Number of the process.
        world: Number of processes.
        sounds: The sounds to make.
    """

    def __init__(
        self,
        plan: Plan,
        readers: Mapping[str, ShardReader],
        specs: Sequence[ViewSpec],
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        sounds: Sequence[SoundSpec] = (),
    ) -> None:
        self.plan, self.readers, self.specs, self.sounds = plan, dict(readers), tuple(specs), tuple(sounds)
        self.seed, self.rank, self.world = seed, rank, world

    def __getitem__(self, step: int) -> "Batch | _Failure":
        try:
            return self.batch(step)
        except FacemaeError as error:
            return _Failure(error)

    def batch(self, step: int) -> Batch:
        """Read, decode and augment this process's slots of one step."""
        slots = self.plan.slots(step, self.rank, self.world)
        first = self.plan.first_slot(self.rank, self.world)
        specs = [spec.at(step * self.plan.batch_size) for spec in self.specs]
        rows = {spec.name: rows_of(spec, slots) for spec in specs}
        views = {spec.name: empty_view(spec, len(slots), rows[spec.name]) for spec in specs}
        sounds = {spec.name: empty_sound(spec, len(slots), rows[spec.beneath]) for spec in self.sounds}
        samples: list[Sample | None] = [None] * len(slots)
        replaced: dict[int, Replacement] = {}
        held: Counter[str] = Counter()
        # Ascending positions in the shards keep slow storage reading forward; slots are filled where they belong.
        for place in sorted(range(len(slots)), key=lambda i: (slots[i].stream, slots[i].sample)):
            slot = slots[place]
            material, reason = self._fill(slot, place, specs, views, sounds)
            sample = samples[place] = material.sample
            held.update(_held(material, spec) for spec in specs if views[spec.name].row(place) is not None)
            if reason is not None:
                requested = self.readers[slot.stream].index.key(slot.sample)
                position = step * self.plan.batch_size + first + place
                replaced[place] = Replacement(slot.stream, position, requested, sample.key, reason)
        used = [sample for sample in samples if sample is not None]
        return Batch(
            step=step,
            first_slot=first,
            keys=tuple(sample.key for sample in used),
            streams=tuple(slot.stream for slot in slots),
            views=views,
            meta=tuple(_metadata(sample) for sample in used),
            replaced=tuple(replaced[place] for place in sorted(replaced)),
            sounds=sounds,
            held={name: count for name, count in sorted(held.items()) if name},
        )

    def _fill(
        self,
        slot: SlotRef,
        place: int,
        specs: Sequence[ViewSpec],
        views: Mapping[str, ViewBatch],
        sounds: Mapping[str, SoundBatch],
    ) -> tuple[Material, str | None]:
        """Make the views of the slot's sample, or of the next of its stream that decodes; and why the first did not."""
        reader, order = self.readers[slot.stream], self.plan.orders[slot.stream]
        position, reason = slot.sample, None
        for _ in range(_NEIGHBOURS + 1):
            material = Material(reader.read(position))
            try:
                self._make(material, slot, place, specs, views, sounds)
            except DecodeError as error:
                reason = reason or error.found
                position = order.neighbour(position)
            else:
                return material, reason
        raise DataError(
            f"{_NEIGHBOURS + 1} samples in a row of stream {slot.stream!r} do not decode; the first: {reason}",
            expected="at most a few damaged samples",
            fix=f"facemae data verify {reader.index.folder}",
        )

    def _make(
        self,
        material: Material,
        slot: SlotRef,
        place: int,
        specs: Sequence[ViewSpec],
        views: Mapping[str, ViewBatch],
        sounds: Mapping[str, SoundBatch],
    ) -> None:
        firsts = {}
        for spec in specs:
            row = views[spec.name].row(place)
            if row is not None:
                firsts[spec.name] = _fill_view(views[spec.name], row, material, spec, self.seed, slot)
        clips = {spec.name: spec.clip for spec in specs}
        for sound in self.sounds:
            made = sounds[sound.name]
            row = made.row(place)
            if row is None:
                continue
            mel = material.mel(sound, firsts[sound.beneath], clips[sound.beneath])
            made.present[row] = mel is not None
            made.mel[row] = torch.from_numpy(mel) if mel is not None else 0.0
            if made.visible is not None and sound.mask is not None:
                rng = generator(self.seed, "mask", sound.name, slot.stream, slot.epoch, slot.sample)
                made.visible[row] = torch.from_numpy(draw_sound_mask(sound.mask, rng))


def _held(material: Material, spec: ViewSpec) -> str:
    """The view's name where the clip is too short for it; empty where it is not."""
    return spec.name if spec.clip is not None and material.held(spec.clip) else ""


def _metadata(sample: Sample) -> dict[str, Any]:
    """A sample's metadata; a `cls` member is a label in it, as in the metadata columns."""
    cls = sample.members.get("cls")
    return sample.meta if cls is None else {**sample.meta, "labels": sample_labels(sample.meta, cls)}


def _fill_view(view: ViewBatch, place: int, material: Material, spec: ViewSpec, seed: int, slot: SlotRef) -> int | None:
    """Make one view; returns the first frame that it takes of a clip, None where it shows a still."""
    # A replacement is drawn from the slot's own generator: whether a neighbour stands in changes no other draw.
    path = (slot.stream, slot.epoch, slot.sample)
    out = view.image[place].numpy()
    first: int | None
    if spec.clip is None:
        first = material.moment(lambda: draw_moment(seed, spec.name, path))
        regions = _regions(material, spec, [first or 0])
        _, visible = make_view(material.still(spec.channels, first), spec, seed, *path, out=out, regions=regions)
    else:
        numbers = material.numbers(spec.clip, draw_moment(seed, spec.clip.moment or spec.name, path))
        first = numbers[0]
        regions = _regions(material, spec, numbers)
        visible = make_clip_view(material.frames(numbers, spec.channels), spec, seed, *path, out=out, regions=regions)
    if view.visible is not None and visible is not None:
        view.visible[place] = torch.from_numpy(visible)
    return first


def _regions(material: Material, spec: ViewSpec, numbers: Sequence[int]) -> Map | None:
    """The region maps that the view's mask needs: of the first frame of each step."""
    if spec.mask is None or spec.mask.kind != "region":
        return None
    return material.regions(numbers[:: len(numbers) // spec.mask.steps])


class Loader:
    """Batches of one process from `start_step` to `stop_step`; see `build_loader`.

    Iterating anew starts at `start_step` again.

    Attributes:
        streams: The opened streams.
        plan: Which sample each slot reads.
        workers: Worker processes.
        epoch_samples: Samples of all streams that one epoch reads.
    """

    def __init__(
        self, streams: Sequence[Stream], dataset: StepDataset, steps: range, *, workers: int, pin_memory: bool = False
    ) -> None:
        self.streams = tuple(streams)
        self.plan = dataset.plan
        self.workers = workers
        self.epoch_samples = sum(stream.order.used_samples for stream in streams)
        self._steps: Sequence[int] = steps
        self._dataset, self._pin_memory = dataset, pin_memory

    def __len__(self) -> int:
        return len(self._steps)

    def reading(self, steps: Sequence[int]) -> "Loader":
        """The same loader with other steps to read, in this order."""
        other = copy.copy(self)
        other._steps = steps  # noqa: SLF001 (its own)
        return other

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order of their steps.

        Raises:
            FacemaeError: What went wrong in reading, as it was raised, also when it happened in a worker.
        """
        item: Any = None
        with remembered_workers():
            items = iter(self._data_loader())
        try:
            for item in items:
                if isinstance(item, _Failure):
                    raise item.error
                yield item
        except (RuntimeError, OSError, EOFError) as error:
            traceback.clear_frames(error.__traceback__)
            # torch reports a dead worker itself, or fails to fetch what the dead one had promised: here, or in the
            # thread that page-locks it.
            known = any(words in str(error) for words in ("DataLoader worker", "Pin memory thread"))
            if not self.workers or (isinstance(error, RuntimeError) and not known):
                raise
            raise DataError(
                f"a loader process ended unexpectedly: {type(error).__name__}: {error}",
                expected="workers that live as long as the run",
                fix="usually memory or shared memory ran out: lower efficiency.workers, or enlarge /dev/shm",
            ) from error
        finally:
            # An error on its way holds this frame. An iterator left to the cycle collector cannot end its workers:
            # its queues are closed before, and torch waits five seconds for each worker, twice.
            del items, item

    def state_description(self) -> dict[str, dict[str, Any]]:
        """What pins the data of a run.

        For each stream the number of its shards and the digest of their contents; where it has a `where`, also the
        number and the digest of the positions that it selects, which the order is made of.
        """
        return {stream.name: stream.description() for stream in self.streams}

    def continues(self, pinned: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether all streams read on in the order of a run that pinned these; see `Stream.continues`."""
        return all(stream.continues(pinned[stream.name]) for stream in self.streams)

    def _data_loader(self) -> DataLoader[Any]:
        parallel: dict[str, Any] = {}
        if self.workers:
            parallel = {
                "multiprocessing_context": context(__name__),
                "worker_init_fn": start_worker,
                "prefetch_factor": _PREFETCH,
            }
        return DataLoader(
            self._dataset,
            batch_size=None,
            sampler=self._steps,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=self._pin_memory,
            generator=torch.Generator(),  # else it would draw from the global one
            **parallel,
        )


def build_loader(
    data: DataConfig,
    specs: Sequence[ViewSpec],
    *,
    seed: int,
    batch_size: int,
    stop_step: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int | None = 0,
    pinned: _Pinned | None = None,
    pin_memory: bool = False,
    sounds: Sequence[SoundSpec] = (),
) -> Loader:
    """Open the streams of a recipe.

    Args:
        data: Streams, lanes, block.
        specs: The views to make; see `facemae.recipe_specs.view_specs`.
        seed: The run's seed.
        batch_size: Samples of a global batch.
        stop_step: The first step that is not read.
        start_step: The first step that is read: the number of steps the optimiser has made.
        rank: Number of this process.
        world: Number of processes; divides the lanes.
        workers: Worker processes; None chooses from the cores this process may use.
        pinned: What the run started with: entries of `Loader.state_description` by stream. Streams without an entry
            take all shards there are.
        pin_memory: Put batches into page-locked memory.
        sounds: The sounds to make; see `facemae.recipe_specs.sound_specs`.

    Raises:
        ConfigError: A stream without shards.
        UsageError: A batch size, world or filter that does not fit; the message lists what does.
        DataError: No index, no sample of a stream has what its views are made of, or none of any a sound that is heard.
        IndexMismatchError: Not the shards or not the selection that the run started with.
        ConfigError: Also where a view's mask needs region maps and the shards of a stream have none.
    """
    streams = [
        _open_stream(i, stream, data, seed, (pinned or {}).get(stream.name)) for i, stream in enumerate(data.streams)
    ]
    for stream in streams:
        made = [spec for spec in specs if spec.streams is None or stream.name in spec.streams]
        check_regions(stream.name, stream.index, made)
        check_views(stream.name, stream.index.extensions, made)
    for sound in sounds:
        check_heard(sound, specs, {stream.name: stream.index.extensions for stream in streams})
    plan = Plan([(stream.name, stream.order, stream.share) for stream in streams], batch_size, data.lanes)
    plan.check_world(world)
    readers = {stream.name: ShardReader(stream.index) for stream in streams}
    dataset = StepDataset(plan, readers, specs, seed=seed, rank=rank, world=world, sounds=sounds)
    if workers is None:
        workers = default_workers()
    return Loader(streams, dataset, range(start_step, stop_step), workers=workers, pin_memory=pin_memory)


def _open_stream(
    number: int, config: StreamConfig, data: DataConfig, seed: int, pinned: Mapping[str, Any] | None
) -> Stream:
    index = open_shards(config, number)
    if pinned is not None:
        index = _pinned_index(index, config.name, pinned)
    subset, selection = choose_samples(index, config)
    if pinned is not None:
        check_selection(config, selection, pinned.get("selection"))
    order = Order(index.shard_sizes, seed=seed, lanes=data.lanes, block=data.block, stream=config.name, subset=subset)
    return Stream(config.name, index, order, config.share, selection)


def _pinned_index(index: ShardIndex, name: str, pinned: Mapping[str, Any]) -> ShardIndex:
    prefix = index.prefix(int(pinned["shards"]))
    if not prefix.accepts(str(pinned["digest"])):
        raise IndexMismatchError(
            f"the shards of stream {name!r} in {index.folder} are not those the run started with: "
            f"digest {prefix.digest[:12]}",
            expected=f"digest {str(pinned['digest'])[:12]} over the first {pinned['shards']} shards",
            fix="restore the shard set, or start a new run in another folder",
        )
    return prefix


def _as_it_is(item: Any) -> Any:
    return item
