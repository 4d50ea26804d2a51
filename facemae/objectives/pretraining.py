"""The whole model of a pretraining run: encoders, objectives, and the plan that encodes each view and sound once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import nn

from facemae.config import NormaliseConfig, ObjectiveConfig, Recipe, copy_names, sound_copies
from facemae.data.preprocess import normalise
from facemae.data.schema import Batch, SoundBatch, ViewBatch
from facemae.models.drop_path import draw_factors
from facemae.models.encoder import MaskedEncoder, build_encoder, build_sound_encoder
from facemae.models.encoding import START, Encoding
from facemae.models.fusion import Fusion
from facemae.models.init import initialise
from facemae.models.joint import JointPass
from facemae.objectives.base import Objective, Setting, SoundSetting
from facemae.objectives.exchange import Alone, Exchange
from facemae.objectives.mixup import draw_shares, mix
from facemae.objectives.registry import build_objective
from facemae.objectives.rows import only
from facemae.objectives.streams import StreamLosses
from facemae.objectives.transfer import upload


def build_pretrain_model(recipe: Recipe, exchange: Exchange | None = None) -> "PretrainModel":
    """Build the model of a recipe with its initial weights, a function of the recipe's seed.

    Args:
        recipe: The recipe.
        exchange: The processes that share a step; None for this one alone.
    """
    encoder = build_encoder(recipe.encoder)
    hears = recipe.sound_encoder
    sound_encoder = None if hears is None else build_sound_encoder(hears, encoder)
    setting = Setting(
        recipe.encoder,
        encoder_width=encoder.width,
        encoder_depth=encoder.depth,
        class_token=encoder.prefix > recipe.encoder.registers,
        views=recipe.views,
        seed=recipe.seed,
        batch_size=recipe.optim.batch_size,
        exchange=exchange or Alone(),
        sounds=recipe.sounds,
        sound_encoder=(
            None
            if hears is None or sound_encoder is None
            else SoundSetting(hears, sound_encoder.width, sound_encoder.depth)
        ),
    )
    objectives = [build_objective(config, setting) for config in recipe.objectives]
    normalisation = {
        copy: view.normalise for name, view in recipe.views.items() for copy in copy_names(recipe.views, name)
    }
    streams = [stream.name for stream in recipe.data.streams]
    mixups = {
        copy: view.mixup.alpha
        for name, view in recipe.views.items()
        if view.mixup is not None
        for copy in copy_names(recipe.views, name)
    }
    model = PretrainModel(
        encoder,
        objectives,
        normalisation,
        streams,
        seed=recipe.seed,
        mixups=mixups,
        sound_encoder=sound_encoder,
        fused=_fused_pairs(recipe, encoder, sound_encoder),
    )
    initialise(model, recipe.seed)
    return model


def _fused_pairs(
    recipe: Recipe, encoder: MaskedEncoder, sound_encoder: MaskedEncoder | None
) -> tuple[Fusion | JointPass, tuple[tuple[str, str], ...]] | None:
    """The recipe's fusion, and the names of what it brings together: a view and its sound, or a pair for each copy."""
    fusion = recipe.fusion
    if fusion is None or sound_encoder is None:
        return None
    views = copy_names(recipe.views, fusion.view)
    sounds = sound_copies(fusion.sound, recipe.sounds[fusion.sound], recipe.views)
    module: Fusion | JointPass = JointPass(encoder)
    if fusion.kind == "cross":
        module = Fusion(fusion, width=encoder.width, sound_width=sound_encoder.width)
    return module, tuple(zip(views, sounds, strict=True))


class PretrainModel(nn.Module):
    """Encoders and objectives as one module, so that a training strategy wraps one thing.

    Attributes:
        encoder: The encoder of views.
        sound_encoder: That of sounds; None where no objective hears any.
        fusion: What brings the two together; None without.
        objectives: The objectives, in the recipe's order.
        names: What each objective is called in the log: its kind, numbered where a kind occurs twice.
    """

    def __init__(
        self,
        encoder: MaskedEncoder,
        objectives: Sequence[Objective],
        normalisation: dict[str, NormaliseConfig],
        streams: Sequence[str] = (),
        *,
        seed: int = 0,
        mixups: Mapping[str, float] = MappingProxyType({}),
        sound_encoder: MaskedEncoder | None = None,
        fused: tuple[Fusion | JointPass, tuple[tuple[str, str], ...]] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.sound_encoder = sound_encoder
        self.fusion: Fusion | JointPass | None
        self.fusion, pairs = fused or (None, ())
        asked = {need.view for objective in objectives for need in objective.needs() if need.fused}
        self._pairs = [pair for pair in pairs if asked & {*pair}]
        self.objectives = nn.ModuleList(objectives)
        self.normalisation = normalisation
        self.names = objective_names([objective.config for objective in objectives])
        before = (START,) if isinstance(self.fusion, JointPass) else ()
        self._plan = encode_plan(objectives, {name: before for pair in self._pairs for name in pair})
        self._streams = StreamLosses(streams)
        self._seed, self._mixups = seed, dict(mixups)

    def counts(self, batch: Batch) -> tuple[int, ...]:
        """Each objective's count of a batch, on the CPU; the trainer adds them up over the global batch.

        Where the recipe has several streams, each objective's counts by stream follow.
        """
        terms = self._terms()
        return (*(objective.count(batch) for objective in terms), *self._streams.counts(terms, batch))

    def counted(self, counts: Sequence[int]) -> dict[str, bool]:
        """Whether anything of a global batch counted, by what its metrics are of: objectives, and streams of each.

        Args:
            counts: What `counts` gives, over the global batch.
        """
        streams = [f"{name}/{stream}" for name in self.names for stream in self._streams.names]
        return {name: count > 0 for name, count in zip((*self.names, *streams), counts, strict=True)}

    def forward(self, batch: Batch, step: int, counts: Sequence[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The share of this batch in the loss of its global batch.

        Losses and metrics of all micro-batches and processes of a step add up to those of the global batch.

        Args:
            batch: A batch whose images are on the model's device.
            step: The optimiser step.
            counts: What `counts` gives, over the global batch.

        Returns:
            The loss to run backward from, and detached metrics by name, `loss/<objective>` among them, unweighted, and
            `loss/<objective>/<stream>` where the recipe has several streams and the objective tells samples apart.
        """
        pixels, encodings = self.encode(batch, step)
        losses: list[torch.Tensor] = []
        metrics: dict[str, torch.Tensor] = {}
        terms, streams = self._terms(), len(self._streams.names)
        for number, (name, objective) in enumerate(zip(self.names, terms, strict=True)):
            count, first = counts[number], len(terms) + number * streams
            term = objective.term(encodings, pixels, batch, step)
            # A global batch in which nothing counts contributes nothing, not a division by zero.
            share = term.sum / max(count, 1)
            losses.append(objective.config.weight * share)
            metrics[f"loss/{name}"] = share.detach()
            for key, value in term.metrics.items():
                metrics[f"{key}/{name}"] = value.detach() / max(count, 1)
            metrics |= self._streams.metrics(name, term.samples, batch, counts[first : first + streams])
        return torch.stack(losses).sum(), metrics

    def encode(self, batch: Batch, step: int | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Encoding]]:
        """Normalised pixels, fp32, and encodings, by view and sound: each that is needed is encoded and fused once.

        Args:
            batch: The batch.
            step: The optimiser step, which decides how samples are mixed and what stochastic depth leaves out; None
                for evaluation, which does neither.
        """
        pixels: dict[str, torch.Tensor] = {}
        encodings: dict[str, Encoding] = {}
        for name, layers in self._plan.items():
            encoder = self.encoder
            given: ViewBatch | SoundBatch
            if name in batch.sounds:
                assert self.sound_encoder is not None, "checked with the recipe"
                given, encoder = batch.sounds[name], self.sound_encoder
                pixels[name] = given.mel.float().unsqueeze(1)
            else:
                given, settings = batch.views[name], self.normalisation[name]
                pixels[name] = normalise(given.image, settings.mean, settings.std, torch.float32)
                if step is not None:
                    pixels[name] = self._mixed(pixels[name], name, batch, step)
            if layers is None:
                continue
            factors = self._factors(encoder, name, batch, step)
            encodings[name] = _encode(encoder, pixels[name], given.visible, layers, factors)
        for pair in self._pairs:
            encodings |= zip(pair, self._fuse(pair, encodings, batch, step), strict=True)
        return pixels, encodings

    def _fuse(
        self, pair: tuple[str, str], encodings: Mapping[str, Encoding], batch: Batch, step: int | None
    ) -> tuple[Encoding, Encoding]:
        """The encodings of a view and its sound with their tokens after fusion."""
        assert self.fusion is not None
        view, sound = (encodings[name] for name in pair)
        present = batch.sounds[pair[1]].present
        if not len(present):
            # A part of a batch without samples of the view's streams: what is made of nothing is nothing.
            return replace(view, fused=view.tokens), replace(sound, fused=sound.tokens)
        drawn = [self._factors(self.fusion, name, batch, step, "/fusion") for name in pair]
        return self.fusion(view, sound, present, *drawn)  # type: ignore[no-any-return]

    def _mixed(self, pixels: torch.Tensor, view: str, batch: Batch, step: int) -> torch.Tensor:
        alpha = self._mixups.get(view)
        if alpha is None:
            return pixels
        return mix(pixels, draw_shares(alpha, seed=self._seed, step=step, view=view, batch=batch))

    def _factors(
        self, encoder: MaskedEncoder | Fusion | JointPass, name: str, batch: Batch, step: int | None, place: str = ""
    ) -> list[torch.Tensor]:
        if not encoder.drop_path or step is None:
            return []
        drawn = draw_factors(
            encoder.drop_path,
            encoder.branches,
            seed=self._seed,
            step=step,
            view=name + place,
            first_slot=batch.first_slot,
            slots=len(batch),
        )
        device, rows = next(self.parameters()).device, batch.rows(name)
        return [only(upload(factors, device), rows) for factors in drawn]

    def _terms(self) -> list[Objective]:
        return [objective for objective in self.objectives if isinstance(objective, Objective)]


def _encode(
    encoder: MaskedEncoder,
    pixels: torch.Tensor,
    visible: torch.Tensor | None,
    layers: Sequence[int],
    factors: Sequence[torch.Tensor],
) -> Encoding:
    """An encoding of the rows there are; of none, where a part of a batch has no sample of the view's streams."""
    if len(pixels):
        return encoder(pixels, visible, layers, factors=factors)  # type: ignore[no-any-return]
    # Kernels of attention and compiled blocks refuse an empty batch: a row of zeros is encoded and taken away again,
    # so that what is exchanged with other processes depends on the weights here too.
    blank = pixels.new_zeros(1, *pixels.shape[1:])
    seen = None
    if visible is not None:
        seen = torch.arange(visible.shape[-1], device=pixels.device).expand(1, *visible.shape[1:])
    encoding: Encoding = encoder(blank, seen, layers)
    return encoding.first_rows(0)


def objective_names(objectives: Sequence[ObjectiveConfig]) -> tuple[str, ...]:
    """What each objective is called in the log: its kind, numbered where a kind occurs twice."""
    kinds = [objective.kind for objective in objectives]
    return tuple(
        kind if kinds.count(kind) == 1 else f"{kind}_{kinds[:place].count(kind)}" for place, kind in enumerate(kinds)
    )


def compared_groups(recipe: Recipe) -> dict[str, int]:
    """How many samples each objective of a recipe compares with each other, by its name in the log.

    Raises:
        ConfigError: They do not divide the batch.
    """
    sizes = [objective.group_size(recipe.optim.batch_size) for objective in recipe.objectives]
    return dict(zip(objective_names(recipe.objectives), sizes, strict=True))


def encode_plan(
    objectives: Sequence[Objective], fused: Mapping[str, tuple[int, ...]] = MappingProxyType({})
) -> dict[str, tuple[int, ...] | None]:
    """The views and sounds that objectives need and, of each, the layers any of them wants, ascending.

    None where nobody wants it encoded but only its pixels.

    Args:
        objectives: The objectives.
        fused: What is encoded in any case, to be fused, with the layers that fusion wants.
    """
    wanted: dict[str, set[int] | None] = {}
    for objective in objectives:
        for need in objective.needs():
            layers = wanted.setdefault(need.view, None)
            if need.encoded:
                wanted[need.view] = {*need.layers, *(layers or ())}
    for name, layers_of_fusion in fused.items():
        wanted[name] = {*layers_of_fusion, *(wanted.get(name) or ())}
    return {name: None if layers is None else tuple(sorted(layers)) for name, layers in wanted.items()}
