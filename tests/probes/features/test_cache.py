"""The feature cache."""

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facemae.data.schema import ModelInput
from facemae.errors import ProbeError
from facemae.features.extractor import FeatureExtractor
from facemae.models.init import initialise
from facemae_probes.features.cache import FeatureCache, feature_key
from facemae_probes.features.sources import EncoderSource, Setting
from facemae_probes.results import identity

INPUT = ModelInput(image_size=4, channels=1, mean=(0.5,), std=(0.5,))
SAMPLES = np.arange(10)
MEAN = Setting(0, "mean")


class CountingSource:
    """A source that counts its passes."""

    name = "counting"

    def __init__(self, weights: str = "a", precision: str = "fp32", model_input: ModelInput = INPUT) -> None:
        self.input = model_input
        self.weights = weights
        self.precision = precision
        self.passes: list[list[Setting]] = []
        self.fill = 1.0

    def identity(self) -> dict[str, str]:
        return {"kind": "counting", "weights": self.weights, "precision": self.precision}

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def settings(self, layers: Sequence[int] | None, poolings: Sequence[str] | None) -> list[Setting]:
        return [Setting(layer, pooling) for layer in layers or (0,) for pooling in poolings or ("mean",)]

    def compute(self, images: np.ndarray, wanted: Sequence[Setting]) -> dict[Setting, np.ndarray]:
        self.passes.append(list(wanted))
        flat = images.reshape(len(images), -1).astype(np.float32)
        return {setting: flat * (setting.layer + 1) * self.fill for setting in wanted}


def _blocks() -> Iterator[np.ndarray]:
    images = np.arange(10 * 16, dtype=np.uint8).reshape(10, 1, 4, 4)
    yield images[:6]
    yield images[6:]


def _features(folder: Path, source: CountingSource, layers: Sequence[int], **changes: Any) -> dict[Setting, Any]:
    options = {"data_digest": "d", "samples": SAMPLES, "code": {"source": "c", "torch": "2"}, **changes}
    return FeatureCache(folder).features(source, source.settings(layers, ("mean",)), _blocks, **options)


def test_one_pass_gives_all_missing_settings_and_none_is_computed_twice(tmp_path: Path) -> None:
    source = CountingSource()
    first = _features(tmp_path, source, [0, 1])
    assert source.passes == [[Setting(0, "mean"), Setting(1, "mean")]] * 2  # two blocks, one pass
    np.testing.assert_array_equal(first[Setting(1, "mean")][3], np.arange(48, 64) * 2)
    again = _features(tmp_path, source, [0, 1, 2])
    assert source.passes[2:] == [[Setting(2, "mean")]] * 2
    np.testing.assert_array_equal(again[Setting(0, "mean")], first[Setting(0, "mean")])


def test_the_key_changes_with_everything_that_determines_features() -> None:
    def key(source: CountingSource | None = None, setting: Setting = MEAN, **changes: Any) -> str:
        options = {"data_digest": "d", "samples": SAMPLES, "code": {"source": "c", "torch": "2"}, **changes}
        return feature_key(source or CountingSource(), setting, **options)[0]

    keys = [
        key(),
        key(CountingSource(weights="b")),
        key(CountingSource(precision="bf16")),
        key(CountingSource(model_input=INPUT.model_copy(update={"image_size": 8}))),
        key(CountingSource(model_input=INPUT.model_copy(update={"std": (0.25,)}))),
        key(setting=Setting(1, "mean")),
        key(setting=Setting(0, "cls")),
        key(setting=Setting(0, "tokens")),
        key(data_digest="e"),
        key(samples=SAMPLES[::-1]),
        key(samples=SAMPLES[:9]),
        key(code={"source": "other", "torch": "2"}),
        key(code={"source": "c", "torch": "3"}),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


def test_a_weight_that_changes_changes_the_identity(tiny_extractor: FeatureExtractor) -> None:
    loaded = tiny_extractor.loaded
    before = EncoderSource(tiny_extractor).identity()
    other = FeatureExtractor.from_encoder(initialised_copy(loaded.encoder), loaded.config, loaded.input, device="cpu")
    assert EncoderSource(other).identity() != before
    assert EncoderSource(FeatureExtractor(loaded, precision="bf16", device="cpu")).identity() != before
    cuda = [EncoderSource(FeatureExtractor(loaded, device=f"cuda:{number}")).identity() for number in (0, 1)]
    assert cuda[0] == cuda[1] != before, "another kind of device rounds otherwise, another of one kind does not"
    other_shape = loaded.config.model_copy(update={"position": "learned"})
    assert EncoderSource(FeatureExtractor(replace(loaded, config=other_shape), device="cpu")).identity() != before
    assert EncoderSource(FeatureExtractor(replace(loaded), device="cpu")).identity() == before


@pytest.mark.parametrize("module", identity.FEATURE_MODULES)
def test_a_change_of_code_that_makes_features_changes_their_key(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity.feature_code()
    _change_source(monkeypatch, module)
    assert identity.feature_code() != before


@pytest.mark.parametrize(
    "module", [*identity.PROBE_MODULES, *(identity.modules_of(package)[-1] for package in identity.PROBE_PACKAGES)]
)
def test_a_change_of_code_that_makes_results_asks_another_question(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = identity.probe_code()
    _change_source(monkeypatch, module)
    assert identity.probe_code() != before


@pytest.mark.parametrize("library", ["torch", "timm", "opencv-python-headless", "pillow", "simplejpeg", "numpy"])
def test_another_version_of_a_library_changes_the_key(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity.feature_code()
    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0" if name == library else installed(name))
    assert identity.feature_code() != before


def _change_source(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    plain = identity.source_bytes
    monkeypatch.setattr(identity, "source_bytes", lambda name: plain(name) + b"#" * (name == module))


def initialised_copy(encoder: Any) -> Any:
    import copy

    found = copy.deepcopy(encoder)
    initialise(found, 1, prefix="encoder.")
    return found


@pytest.mark.parametrize("fill", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_and_nothing_is_left(tmp_path: Path, fill: float) -> None:
    source = CountingSource()
    source.fill = fill
    with np.errstate(invalid="ignore"), pytest.raises(ProbeError, match="not finite"):
        _features(tmp_path, source, [0])
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_pass_leaves_nothing_that_could_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="10 images arrived where 12"):
        _features(tmp_path, CountingSource(), [0], samples=np.arange(12))
    assert list(tmp_path.iterdir()) == []


def test_layers_come_from_one_pass_of_the_backbone(tiny_extractor: FeatureExtractor) -> None:
    source = EncoderSource(tiny_extractor)
    images = np.random.default_rng(0).integers(0, 255, size=(3, 1, 16, 16), dtype=np.uint8)
    calls = []
    handle = tiny_extractor.encoder.register_forward_hook(lambda *_: calls.append(1))
    wanted = source.settings([0, 5, -1], ("mean", "cls", "grid2", "tokens"))
    found = source.compute(images, wanted)
    handle.remove()
    assert len(calls) == 1
    assert len(found) == 12
    assert found[Setting(11, "tokens")].dtype == np.float16
    assert found[Setting(5, "grid2")].shape == (3, 4 * 192)
    alone = FeatureExtractor(tiny_extractor.loaded, layer=5, pooling="mean", device="cpu")
    np.testing.assert_allclose(
        found[Setting(5, "mean")], alone.transform(list(images.transpose(0, 2, 3, 1))), rtol=1e-4, atol=1e-5
    )
