"""The training steps that `facemae bench step` compares, each in a process of its own."""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

import torch

from facemae.bench.step_baseline import MaskedAutoencoder
from facemae.bench.step_batches import made_batches
from facemae.bench.step_hicmae import AudioVisualAutoencoder
from facemae.config import Recipe
from facemae.data.loader import build_loader
from facemae.data.schema import Batch
from facemae.errors import DataError
from facemae.objectives.masked_image import MaskedImage
from facemae.objectives.masked_patches import MaskedPatches
from facemae.objectives.pretraining import build_pretrain_model
from facemae.recipe import parse_recipe, recipe_tree
from facemae.recipe_specs import view_specs
from facemae.train.hardware.device import Mover, to_device
from facemae.train.hardware.numerics import Numerics
from facemae.train.hardware.resident import peak_resident_bytes
from facemae.train.optim.adamw import Average, group_names
from facemae.train.processes.process_group import OneProcess
from facemae.train.strategy import choose_strategy

SIDES = ("ours", "fp32", "bf16")
BATCHES = 2
_RATE = 1e-4

Step = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True)
class Timing:
    """Some steps of one side.

    Attributes:
        seconds: Wall time of all.
        cpu_seconds: Processor time of all, over all threads.
        losses: The loss of each.
    """

    seconds: float
    cpu_seconds: float
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Facts:
    """What a side says of itself once it is built: its `reason` and `threads`."""

    reason: str
    threads: int


class Side:
    """A side's process; a context manager.

    Args:
        name: One of `SIDES`.
        recipe: The recipe.
    """

    def __init__(self, name: str, recipe: Recipe) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, recipe_tree(recipe)), daemon=True)
        self._process.start()
        theirs.close()
        self.facts: Facts = self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._ours.send(None)
        self._process.join()
        self._ours.close()

    def run(self, steps: int) -> Timing:
        """Take some steps."""
        self._ours.send(steps)
        timing: Timing = self._receive()
        return timing

    def peak_memory(self) -> int:
        """The most memory so far, in bytes: resident on the CPU, allocated on a GPU."""
        self._ours.send("memory")
        peak: int = self._receive()
        return peak

    def _receive(self) -> Any:
        try:
            return self._ours.recv()
        except EOFError:
            self._process.join()
            raise DataError(
                f"the process of side {self.name!r} ended with code {self._process.exitcode}",
                expected="a process that lives as long as the measurement",
                fix="its own message is above; where there is none, memory ran out: lower --batch",
            ) from None


def _serve(connection: Connection, name: str, tree: dict[str, Any]) -> None:
    recipe = parse_recipe(tree, origin="the bench")
    numerics = Numerics.choose(recipe.efficiency)
    with contextlib.ExitStack() as stack:
        if name == "ours":
            stack.enter_context(numerics.applied())
        elif recipe.efficiency.threads:
            torch.set_num_threads(recipe.efficiency.threads)
        batches = _batches(recipe, numerics.device)
        step = build_ours(recipe, numerics) if name == "ours" else build_baseline(recipe, numerics.device, name)
        reason = numerics.reason if name == "ours" else f"device {numerics.device.type}, {name}"
        connection.send(Facts(reason, torch.get_num_threads()))
        while True:
            try:
                asked = connection.recv()
            except EOFError:
                return  # the process that asks is gone
            if asked is None:
                return
            answer = peak_memory(numerics.device) if asked == "memory" else _time(step, batches, asked, numerics.device)
            connection.send(answer)


def _batches(recipe: Recipe, device: torch.device) -> Iterator[Batch]:
    """The first batches of the recipe, over and over, where the loader would put them."""
    if recipe.sounds:
        held = made_batches(recipe, BATCHES)
    else:
        size = recipe.optim.batch_size
        held = list(build_loader(recipe.data, view_specs(recipe), seed=recipe.seed, batch_size=size, stop_step=BATCHES))
    if device.type == "cuda":
        held = [batch.pin_memory() for batch in held]
    while True:
        yield from held


def _time(step: Step, batches: Iterator[Batch], steps: int, device: torch.device) -> Timing:
    start, cpu = time.perf_counter(), time.process_time()
    losses = [step(next(batches)) for _ in range(steps)]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return Timing(seconds, cpu_seconds, tuple(float(loss) for loss in losses))


def build_ours(recipe: Recipe, numerics: Numerics) -> Step:
    """The step as the trainer takes it: strategy, clipping and running average as in the recipe."""
    model = numerics.prepare(build_pretrain_model(recipe))
    strategy = choose_strategy(recipe.efficiency, OneProcess(), numerics.device)
    forward = strategy.prepare(model, recipe.optim)
    average = None if recipe.optim.ema is None else Average(model)
    move = Mover(numerics.device)

    def step(batch: Batch) -> torch.Tensor:
        counts = model.counts(batch)
        batch = move(batch)
        strategy.clear()
        with strategy.accumulate(last=True):
            with numerics.autocast():
                loss, _ = forward(batch, batch.step, counts)
            strategy.backward(loss)
        result: torch.Tensor = loss.detach()
        strategy.update(result, _RATE, recipe.optim.clip)
        if average is not None:
            average.update(0.01)
        return result

    return step


def build_baseline(recipe: Recipe, device: torch.device, precision: str) -> Step:
    """The same step written with timm's blocks, from the same initial weights.

    Args:
        recipe: The recipe; see `facemae.bench.step.bench_recipe`.
        device: Where it runs.
        precision: `fp32`, or `bf16` under autocast.
    """
    model = baseline_model(recipe).to(device)
    groups, parameters = group_names(model.named_parameters()), dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [parameters[name] for name in groups.decayed], "weight_decay": recipe.optim.weight_decay},
            {"params": [parameters[name] for name in groups.undecayed], "weight_decay": 0.0},
        ],
        lr=_RATE,
        betas=recipe.optim.betas,
        fused=True,
    )

    def step(batch: Batch) -> torch.Tensor:
        batch = to_device(batch, device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model.loss(batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.optim.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.clip)
        optimizer.step()
        return loss.detach()

    return step


def baseline_model(recipe: Recipe) -> MaskedAutoencoder | AudioVisualAutoencoder:
    """The model of the baseline, with the initial weights of ours."""
    source = build_pretrain_model(recipe)
    masked = [objective for objective in source.objectives if isinstance(objective, MaskedPatches)]
    if recipe.sounds:
        both = AudioVisualAutoencoder(recipe, [objective.decoder.positions for objective in masked])
        both.load_from(source)
        return both
    (objective,) = masked
    assert isinstance(objective, MaskedImage)
    view = objective.settings.view
    model = MaskedAutoencoder(recipe.encoder, objective.decoding, view, recipe.views[view].normalise)
    model.load_from(source.state_dict())
    return model


def peak_memory(device: torch.device) -> int:
    """The most memory this process has held, in bytes: resident on the CPU, allocated on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()
