"""A frozen encoder as a scikit-learn transformer."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin

from facemae.config import EncoderConfig
from facemae.data.preprocess import normalise
from facemae.data.schema import CropRecipe, ModelInput
from facemae.errors import UsageError
from facemae.features.crops import CropMismatchWarning, compare_crops
from facemae.features.pooling import feature_names, feature_shape, pool_tokens, prefix_of
from facemae.features.sources import as_source
from facemae.features.stream import ImageBatch, OnSkip, stream_batches
from facemae.features.weights import LoadedEncoder, load_encoder, weights_digest
from facemae.models.encoder import MaskedEncoder
from facemae.parallel import usable_cores

if TYPE_CHECKING:
    from facemae.features.clips import ClipExtractor

_log = logging.getLogger(__name__)


class FeatureExtractor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features of images from a frozen encoder.

    It is a scikit-learn estimator: clonable, picklable, usable in a `Pipeline`. The constructor only stores its
    arguments; the model is loaded on first use. There is nothing to fit.

    Pixels take one path, the one of pretraining: decoded upright, colour brought to the model's channels (grey is
    repeated, colour becomes luma), the whole image scaled to the model's square, normalised with the model's numbers.
    Faces are expected to be cut already; `crop` says how the model's training faces were.

    **Layers** are numbered from 0; negative numbers count from the end. The last layer (-1) is taken behind the
    encoder's final norm; every other layer is the raw output of its block, without any norm.

    Args:
        model: A run folder, a checkpoint folder, an exported encoder, or a `LoadedEncoder`.
        layer: The block whose output is pooled.
        pooling: `cls`, `mean`, `cls+mean`, `gridK` or `tokens`; see `facemae.features.pooling.pool_tokens`.
        weights: `ema` averaged, `model` last, `auto` averaged where the run keeps them.
        batch_size: Images per forward pass. Changes no feature beyond rounding.
        device: `auto`, or a torch device such as `cpu` or `cuda:1`.
        precision: `fp32`, or `bf16` for autocast.
        random_init: Fill the architecture with the random weights of this seed, for baselines.
        workers: Decoding threads; None chooses from the cores.

    Example:
        >>> extractor = FeatureExtractor("runs/first", layer=-2, pooling="mean")  # doctest: +SKIP
        >>> features = extractor.transform(["a.jpg", "b.png"])  # float32 [2, width]  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Path | LoadedEncoder,
        *,
        layer: int = -1,
        pooling: str = "mean",
        weights: str = "auto",
        batch_size: int = 64,
        device: str = "auto",
        precision: str = "fp32",
        random_init: int | None = None,
        workers: int | None = None,
    ) -> None:
        self.model = model
        self.layer = layer
        self.pooling = pooling
        self.weights = weights
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.random_init = random_init
        self.workers = workers

    @classmethod
    def from_encoder(
        cls,
        encoder: MaskedEncoder,
        config: EncoderConfig,
        model_input: ModelInput,
        *,
        crop: CropRecipe | None = None,
        **params: Any,
    ) -> Self:
        """An extractor around a module in memory, which it puts into evaluation mode.

        Args:
            encoder: The module.
            config: How it was built.
            model_input: What it expects of its pixels.
            crop: How its training faces were cut, if known.
            **params: As for the constructor.
        """
        loaded = LoadedEncoder(
            encoder=encoder.eval(),
            config=config,
            input=model_input,
            crop=crop or CropRecipe(),
            digest=weights_digest(encoder.vit.state_dict()),
            about={"recipe": "unknown", "weights": "in memory"},
        )
        return cls(loaded, **params)

    # --- the model -----------------------------------------------------------------------------------------------

    @property
    def loaded(self) -> LoadedEncoder:
        """The encoder with its papers; read from disk on first use.

        Raises:
            CheckpointError: `model` is no intact facemae model.
            UsageError: Other weights are asked of an encoder that is loaded already.
        """
        key = (self.model if isinstance(self.model, str | Path) else id(self.model), self.weights, self.random_init)
        if getattr(self, "_loaded_key", None) != key:
            if isinstance(self.model, LoadedEncoder):
                self._check_given()
                self._loaded = self.model
            else:
                self._loaded = load_encoder(self.model, weights=self.weights, random_init=self.random_init)
            self._loaded_key = key
        return self._loaded

    def _check_given(self) -> None:
        """Refuse wishes that an encoder which is loaded already cannot fulfil."""
        for name, value, usual in (("weights", self.weights, "auto"), ("random_init", self.random_init, None)):
            if value != usual:
                raise UsageError(
                    f"{name}={value!r} with an encoder that is loaded already",
                    expected=f"{name}={usual!r}: the encoder keeps the weights it has",
                    fix=f"give the path of the model, or load_encoder(path, {name}={value!r})",
                )

    @property
    def encoder(self) -> MaskedEncoder:
        """The module itself. `transform` and `encode` run it without gradients; calling it directly does not."""
        return self.loaded.encoder

    @property
    def input(self) -> ModelInput:
        """What the encoder expects of its pixels."""
        return self.loaded.input

    @property
    def crop(self) -> CropRecipe:
        """How the faces the model was trained on were cut."""
        return self.loaded.crop

    @property
    def digest(self) -> str:
        """SHA-256 of the encoder's weights."""
        return self.loaded.digest

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one image's features: (F,), or (tokens, width) for pooling `tokens`."""
        return feature_shape(self.pooling, self.encoder.width, prefix_of(self.encoder), self.encoder.grid)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns that `transform` returns; see `facemae.features.pooling.feature_names`."""
        encoder = self.encoder
        names = feature_names(self.pooling, encoder.width, prefix_of(encoder), encoder.grid)
        return np.asarray(names, dtype=object)

    # --- scikit-learn --------------------------------------------------------------------------------------------

    def fit(self, X: Any = None, y: Any = None) -> Self:  # noqa: N803 (scikit-learn's name)
        """Nothing to learn; checks layer and pooling against the model."""
        self.resolve_layer(self.layer)
        _ = self.feature_shape
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803 (scikit-learn's name)
        """Features of images.

        Args:
            X: A sequence of image paths, uint8 arrays [H, W, C] (RGB) and PIL images; one array [N, H, W, C]; or the
                path of one image, a folder of images, or a shard set.

        Returns:
            float32 [N, F], one row an image in the order given. Tokens of pooling `tokens` are joined in one row.

        Raises:
            DecodeError: An image does not decode. Rows must match images here; `facemae extract` skips instead.
            DataError: An array whose range or layout is not that of pixels.
        """
        source = as_source(X)
        for message in compare_crops(self.crop, source.card.crop if source.card else CropRecipe()):
            warnings.warn(message, CropMismatchWarning, stacklevel=2)
        rows = [features.reshape(len(keys), -1) for keys, features in self.iter_features(source)]
        if not rows:
            return np.empty((0, int(np.prod(self.feature_shape))), dtype=np.float32)
        return np.concatenate(rows)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        # A pickle carries parameters, not weights; the receiver loads them where it runs.
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_loaded", None)
        state.pop("_loaded_key", None)
        return state

    # --- streaming -----------------------------------------------------------------------------------------------

    def encode(self, images: torch.Tensor, layers: Sequence[int] | None = None) -> dict[int, torch.Tensor]:
        """Tokens of several layers from one forward pass, without gradients.

        Args:
            images: uint8 [B, C, S, S] from `facemae.data.preprocess.to_model_input`; to an encoder of clips also
                [B, T, C, S, S], of a multiple of its tubelet's frames.
            layers: Layer numbers, negative from the end; None takes `layer`.

        Returns:
            By the numbers given, float32 [B, P + h·w, D] on the model's device: prefix tokens first, then patches in
            row-major order, of clips step by step.

        Raises:
            UsageError: The pixels are not uint8 of the model's size and channels, or a layer does not exist.
        """
        self._check_images(images)
        wanted = {number: self.resolve_layer(number) for number in (layers if layers is not None else [self.layer])}
        return self._encode(self.encoder, images, wanted, lambda x: normalise(x, self.input.mean, self.input.std))

    def clips(self, **how: Any) -> "ClipExtractor":
        """Features of clips and sound of any length; arguments as for `facemae.features.clips.ClipExtractor`."""
        from facemae.features import clips

        return clips.ClipExtractor(self, **how)

    def encode_sound(self, mels: torch.Tensor, layers: Sequence[int] | None = None) -> dict[int, torch.Tensor]:
        """Tokens of the encoder of sound, as `encode`.

        Args:
            mels: float32 [B, frames, mels], made with the settings of `loaded.sound.input.mel`.
            layers: As for `encode`.

        Raises:
            UsageError: The model has no encoder of sound, the spectrograms have other bands, or no such layer.
        """
        sound = self.loaded.sound
        if sound is None:
            raise UsageError(f"{self.model} hears nothing", expected="a model with a sound_encoder")
        bands, patch = sound.input.mel.mels, sound.input.patch
        if mels.dtype != torch.float32 or mels.ndim != 3 or mels.shape[2] != bands or mels.shape[1] % patch:
            raise UsageError(
                f"spectrograms of {mels.dtype} and shape {tuple(mels.shape)}",
                expected=f"float32 ('B', a multiple of {patch}, {bands}), normalised",
                fix="facemae.sound.mel.log_mel makes them with loaded.sound.input.mel",
            )
        depth = sound.encoder.depth
        wanted = {number: _resolve(number, depth) for number in (layers if layers is not None else [self.layer])}
        return self._encode(sound.encoder, mels, wanted, lambda x: x.unsqueeze(1))

    def _encode(
        self,
        encoder: MaskedEncoder,
        given: torch.Tensor,
        wanted: dict[int, int],
        prepare: Callable[[torch.Tensor], torch.Tensor],
    ) -> dict[int, torch.Tensor]:
        """Tokens of the wanted blocks, by the numbers they are asked for under."""
        device = self._device()
        encoder.to(device)
        last = encoder.depth - 1
        bf16 = self._check_precision() == "bf16"
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            ready = prepare(given.to(device, non_blocking=True))
            encoding = encoder(ready, layers=sorted({layer for layer in wanted.values() if layer != last}))
        by_layer = {**encoding.layers, last: encoding.tokens}
        return {number: by_layer[layer].float() for number, layer in wanted.items()}

    def iter_tokens(
        self,
        source: Any,
        layers: Sequence[int] | None = None,
        batch_size: int | None = None,
        on_skip: OnSkip | None = None,
    ) -> Iterator[tuple[list[str], dict[int, torch.Tensor]]]:
        """Stream the tokens of several layers, batch by batch, at constant memory.

        Args:
            source: What `transform` takes, or a source of `facemae.features.sources`.
            layers: As for `encode`.
            batch_size: Images a batch; None takes the extractor's.
            on_skip: Called for each image that does not decode; without it the first one raises `DecodeError`.

        Yields:
            Keys of the batch and what `encode` gives for it.
        """
        for batch in self.iter_images(source, batch_size, on_skip):
            yield batch.keys, self.encode(batch.images, layers)

    def iter_features(
        self, source: Any, batch_size: int | None = None, on_skip: OnSkip | None = None
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        """Stream pooled features; as `iter_tokens`, yielding keys and float32 [B, …]."""
        for batch in self.iter_images(source, batch_size, on_skip):
            yield batch.keys, self.features(batch.images)

    def iter_images(
        self, source: Any, batch_size: int | None = None, on_skip: OnSkip | None = None
    ) -> Iterator[ImageBatch]:
        """Stream the model-ready images themselves, prefetched by threads."""
        size = batch_size or self.batch_size
        if size < 1:
            raise UsageError(f"batch_size {size}", expected="at least 1")
        workers = self.workers or min(4, usable_cores())
        side = self.input.image_size
        said = False
        if not self.loaded.saw_pictures:
            alone = "was trained on clips alone; a picture is to it a clip of one step in which nothing moves"
            warnings.warn(f"{self.model} {alone}", stacklevel=2)
        for batch in stream_batches(as_source(source), self.input, batch_size=size, workers=workers, on_skip=on_skip):
            other = [found for found in batch.sizes if found != (side, side)]
            if other and not said:
                _log.info("images of %d x %d pixels and others are scaled to the model's %d", *other[0][::-1], side)
                said = True
            yield batch

    def features(self, images: torch.Tensor) -> np.ndarray:
        """Pooled features of model-ready images uint8 [B, C, S, S]: float32 [B, …]."""
        tokens = self.encode(images)[self.layer]
        pooled = pool_tokens(tokens, prefix_of(self.encoder), self.encoder.grid, self.pooling)
        found: np.ndarray = pooled.cpu().numpy()
        return found

    def resolve_layer(self, number: int) -> int:
        """A layer number as 0-based block number.

        Raises:
            UsageError: The encoder has no such layer.
        """
        return _resolve(number, self.encoder.depth)

    @property
    def device_type(self) -> str:
        """Kind of device that computes, such as `cpu` or `cuda`: its rounding is another's."""
        return self._device().type

    def _device(self) -> torch.device:
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def _check_precision(self) -> str:
        if self.precision not in ("fp32", "bf16"):
            raise UsageError(f"precision {self.precision!r}", expected="fp32 or bf16")
        return self.precision

    def _check_images(self, images: torch.Tensor) -> None:
        expected = (self.input.channels, self.input.image_size, self.input.image_size)
        tubelet = self.loaded.config.tubelet
        clips = tubelet is not None and images.ndim == 5 and images.shape[1] % tubelet == 0 and images.shape[1] > 0
        if images.dtype != torch.uint8 or not (clips or images.ndim == 4) or tuple(images.shape[-3:]) != expected:
            raise UsageError(
                f"images of {images.dtype} and shape {tuple(images.shape)}",
                expected=f"uint8 pixels {('B', *expected)}, not normalised",
                fix="facemae.data.preprocess.to_model_input makes them; transform() takes any image",
            )


def _resolve(number: int, depth: int) -> int:
    """A layer number as 0-based block number."""
    if not -depth <= number < depth:
        raise UsageError(f"layer {number}", expected=f"0 to {depth - 1}, or -1 (the last) down to {-depth}")
    return number % depth


def load(model: str | Path, **params: Any) -> FeatureExtractor:
    """Open a model as a feature extractor; errors in the model show here rather than at first use.

    Args:
        model: A run folder (newest intact checkpoint), a checkpoint folder, or an exported encoder.
        **params: As for `FeatureExtractor`.

    Raises:
        CheckpointError: The path holds no intact facemae model.
        UsageError: Layer or pooling do not suit it.
    """
    return FeatureExtractor(model, **params).fit()
