"""How good the features are while a run goes on: their effective rank, and what the nearest faces know of a label.

The loss says how well a model does its exercise, not what its features are worth; a collapse shows here first.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call

from facemae.config import MonitorConfig, Recipe
from facemae.data.index import ShardIndex
from facemae.data.loader import Stream
from facemae.data.preprocess import normalise
from facemae.data.schema import ModelInput
from facemae.errors import ConfigError, FacemaeError, NonFiniteError
from facemae.models.encoder import MaskedEncoder
from facemae.objectives.pretraining import PretrainModel
from facemae.recipe_specs import model_input
from facemae.train.hardware.numerics import Numerics
from facemae.train.monitor.faces import HeldOut, Part
from facemae.train.optim.adamw import Average
from facemae.train.optim.schedule import Lengths
from facemae.train.record.log import RunLog

TEMPERATURE = 0.07
"""Scale of the similarities in the vote (Wu et al. 2018, arXiv:1805.01978)."""

EPSILON = 1e-7
"""Added to the shares of singular values, as in RankMe's equation 1 for fp32."""

_BATCH = 64
_PREFIX = "encoder."


@dataclass(frozen=True)
class _Features:
    """Features [N, D], fp32 on the CPU, and the samples' places in their part."""

    values: torch.Tensor
    places: list[int]


def choose_faces(recipe: Recipe, streams: Sequence[Stream]) -> HeldOut | None:
    """The faces a run's monitor looks at, or None where its recipe has none.

    They are of the first stream's shards as the run is pinned to them, so that shards which are added do not change the
    faces; another shard set is taken as it is.

    Raises:
        FacemaeError: As `HeldOut`.
    """
    config = recipe.monitor
    if config is None:
        return None
    index = streams[0].index if config.data is None else ShardIndex.open(Path(config.data))
    return HeldOut(config, index, seed=recipe.seed)


def open_monitor(
    recipe: Recipe,
    faces: HeldOut,
    lengths: Lengths,
    numerics: Numerics,
    model: PretrainModel,
    average: Average | None,
    log: RunLog,
    streams: Sequence[Stream],
) -> "Monitor":
    """The monitor of a run, on the faces of `choose_faces`.

    Raises:
        FacemaeError: As `Monitor`.
    """
    for stream in streams:
        both = faces.trained_on(stream)
        if both:
            found = f"{both} of {len(faces.query.rows)} faces the monitor holds out"
            log.event("note", f"{found} are trained on by stream {stream.name!r}")
    every = faces.config.every.samples(epoch=lengths.epoch, total=lengths.total)
    return Monitor(faces, model_input(recipe), model.encoder, average, numerics, batch=_BATCH, every=every, log=log)


class Monitor:
    """Measures the encoder of a run on held-out faces. Draws nothing at random and leaves the model as it was.

    Args:
        faces: The held-out faces, with the recipe's block.
        model_input: What the encoder expects of its pixels.
        encoder: The run's encoder.
        average: The run's averaged weights, which are the ones measured where there are any.
        numerics: Device and precision of the run.
        batch: Samples in a forward pass.
        every: Samples of training between measurements.
        log: The run's logs.

    Raises:
        ConfigError: The encoder has no such layer, or no class token to pool.
    """

    def __init__(
        self,
        faces: HeldOut,
        model_input: ModelInput,
        encoder: MaskedEncoder,
        average: Average | None,
        numerics: Numerics,
        *,
        batch: int,
        every: int,
        log: RunLog,
    ) -> None:
        _check(faces.config, encoder)
        self.every = every
        self._config, self._faces, self._input = faces.config, faces, model_input
        self._encoder, self._average, self._numerics = encoder, average, numerics
        self._batch, self._log = batch, log
        self._layer = faces.config.layer % encoder.depth

    def measure(self) -> dict[str, float]:
        """Measure now, and say so.

        Returns:
            `monitor/rankme`; with a label also `monitor/knn`, the accuracy, and `monitor/majority`, that of always
            naming the most frequent class. Empty where the faces cannot be read or a feature is not finite, which the
            log says.
        """
        begin = time.perf_counter()
        try:
            found = self._measure()
        except (FacemaeError, RuntimeError) as error:
            # The run is worth more than its monitor. RuntimeErrors are torch's: no memory, no convergence.
            found_out = error.found if isinstance(error, FacemaeError) else f"{type(error).__name__}: {error}"
            self._log.event("monitor", f"held-out faces could not be measured: {found_out}")
            return {}
        seconds = time.perf_counter() - begin
        rank = found["monitor/rankme"]
        text = f"held-out faces: effective rank {rank:.1f}" + ("" if rank else ", all features are zero")
        if "monitor/knn" in found:
            knn, majority = 100 * found["monitor/knn"], 100 * found["monitor/majority"]
            text += f", kNN {knn:.1f} % {self._config.label} (most frequent class {majority:.1f} %)"
        self._log.event("monitor", f"{text}; {seconds:.1f} s", **found)
        return found

    def _measure(self) -> dict[str, float]:
        query, reference = self._faces.query, self._faces.reference
        features = self._features(query)
        found = {"monitor/rankme": effective_rank(features.values)}
        if reference is not None:
            bank = self._features(reference)
            labels, truth = _encode(_labels(reference, bank), _labels(query, features))
            # Some that were counted at the start may no longer decode.
            k = min(self._config.k, len(bank.values))
            guessed = nearest_vote(bank.values, labels, features.values, k)
            majority = labels.bincount().argmax()
            found["monitor/knn"] = (guessed == truth).double().mean().item()
            found["monitor/majority"] = (truth == majority).double().mean().item()
        return found

    @torch.no_grad()
    def _features(self, part: Part) -> _Features:
        """Pooled features of the current encoder, as in evaluation: whole images, nothing hidden."""
        weights = {} if self._average is None else _encoder_part(self._average.tensors())
        modes = {module: module.training for module in self._encoder.modules()}
        layers = () if self._layer == self._encoder.depth - 1 else (self._layer,)
        values: list[torch.Tensor] = []
        places: list[int] = []
        self._encoder.eval()
        try:
            for images, found in self._faces.images(part, self._input, self._batch):
                pixels = normalise(images.to(self._numerics.device), self._input.mean, self._input.std)
                with self._numerics.autocast():
                    encoding = functional_call(self._encoder, weights, (pixels, None, layers))
                tokens = encoding.layers[self._layer] if layers else encoding.tokens
                pooled = tokens[:, 0] if self._config.pooling == "cls" else tokens[:, encoding.prefix :].mean(dim=1)
                values.append(pooled.float().cpu())
                places += found
        finally:
            for module, training in modes.items():
                module.training = training
        if not values:
            raise ConfigError(
                f"none of {len(part.rows)} samples of {self._faces.index.folder} decodes",
                fix=f"facemae data verify {self._faces.index.folder} says why; name another set with monitor.data",
            )
        features = torch.cat(values)
        finite = int(features.isfinite().all(dim=1).sum())
        if finite < len(features):
            raise NonFiniteError(f"features of {len(features) - finite} of {len(features)} faces are not finite")
        return _Features(features, places)


def effective_rank(features: torch.Tensor) -> float:
    """RankMe: the exponential of the entropy of the normalised singular values (Garrido et al. 2023, equation 1).

    Between 1, where all features point one way, and the smaller of N and D, where they fill their space. 0 where all
    are zero, for which the equation has no value.

    Args:
        features: Finite, [N, D].
    """
    if not features.any():
        return 0.0
    singular = torch.linalg.svdvals(features.double())
    share = singular / singular.sum() + EPSILON
    return float((-(share * share.log()).sum()).exp())


def nearest_vote(bank: torch.Tensor, labels: torch.Tensor, queries: torch.Tensor, k: int) -> torch.Tensor:
    """The class each query's k nearest faces by cosine vote for, weighted by exp(similarity / 0.07).

    Features are standardised by the bank first, as in the kNN probe: frozen features share a large common direction,
    and the cosines of raw ones would all be near one.

    Args:
        bank: [N, D].
        labels: int64 [N], the bank's classes.
        queries: [M, D].
        k: Neighbours, at most N.

    Returns:
        int64 [M].
    """
    mean, deviation = bank.mean(dim=0), bank.std(dim=0, correction=0)
    # A column that never changes says nothing, and dividing by its deviation would make noise of rounding.
    scale = torch.where(deviation > EPSILON * deviation.max(), deviation.reciprocal(), 0.0)
    known, asked = (F.normalize((rows - mean) * scale, dim=1) for rows in (bank, queries))
    similarity, near = (asked @ known.T).topk(k, dim=1)
    weight = ((similarity - similarity[:, :1]) / TEMPERATURE).exp()
    votes = torch.zeros(len(queries), int(labels.max()) + 1)
    return votes.scatter_add_(1, labels[near], weight).argmax(dim=1)


def _check(config: MonitorConfig, encoder: MaskedEncoder) -> None:
    if not -encoder.depth <= config.layer < encoder.depth:
        raise ConfigError(
            f"monitor.layer {config.layer}",
            expected=f"0 to {encoder.depth - 1}, or -1 (the last) down to {-encoder.depth}",
        )
    if config.pooling == "cls" and encoder.vit.cls_token is None:
        raise ConfigError("monitor.pooling is cls, and the encoder has no class token", fix="monitor.pooling=mean")


def _encoder_part(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name[len(_PREFIX) :]: value for name, value in state.items() if name.startswith(_PREFIX)}


def _labels(part: Part, features: _Features) -> list[str]:
    return [part.labels[place] for place in features.places]


def _encode(known: list[str], asked: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels as numbers of the known classes; -1 for a class that no reference face has."""
    numbers = {label: number for number, label in enumerate(sorted(set(known)))}
    return torch.tensor([numbers[label] for label in known]), torch.tensor([numbers.get(label, -1) for label in asked])
