import pickle
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from facemae.errors import CheckpointError, DataError, DecodeError, UsageError
from facemae.features.crops import CropMismatchWarning, compare_crops
from facemae.features.extractor import FeatureExtractor, load
from facemae.features.weights import load_encoder
from tests.features.conftest import CROP, DEPTH, SIDE, WIDTH, Save, picture

POOLINGS = {"cls": WIDTH, "mean": WIDTH, "cls+mean": 2 * WIDTH, "grid2": 4 * WIDTH, "tokens": 17 * WIDTH}


@pytest.fixture(scope="module")
def extractor(run: Path) -> FeatureExtractor:
    return load(run, device="cpu")


@pytest.fixture(scope="module")
def reference(extractor: FeatureExtractor, pictures: list[np.ndarray]) -> np.ndarray:
    return extractor.transform(pictures)


def test_the_same_pixels_give_the_same_features_from_anywhere(
    extractor: FeatureExtractor, reference: np.ndarray, pictures: list[np.ndarray], faces: Path, shards: Path
) -> None:
    assert reference.shape == (7, WIDTH)
    assert reference.dtype == np.float32
    assert np.ptp(reference, axis=0).max() > 1e-3
    files = sorted(faces.rglob("*.png"), key=lambda path: path.relative_to(faces).as_posix())
    keys = next(batch_keys for batch_keys, _ in extractor.iter_features(faces))
    assert keys == ["a/0.png", "a/1.png", "a/2.png", "b3.png", "b4.png", "b5.png", "b6.png"]
    for images in (
        faces,
        str(faces),
        files,
        np.array([str(path) for path in files]),
        np.stack(pictures),
        [Image.fromarray(pixels) for pixels in pictures],
        [files[0], pictures[1], Image.fromarray(pictures[2]), *files[3:]],
    ):
        np.testing.assert_array_equal(extractor.transform(images), reference)
    with pytest.warns(CropMismatchWarning, match=r"margin is '0.2' here, '0.05'"):
        packed = extractor.transform(shards)
    order = [int(key[1:]) for keys, _ in extractor.iter_features(shards) for key in keys]
    np.testing.assert_array_equal(packed, reference[order])


def test_two_runs_agree_and_the_batch_size_changes_nothing(
    run: Path, reference: np.ndarray, pictures: list[np.ndarray]
) -> None:
    np.testing.assert_array_equal(load(run, device="cpu").transform(pictures), reference)
    for batch_size, workers in ((1, 1), (3, 3)):
        other = load(run, device="cpu", batch_size=batch_size, workers=workers).transform(pictures)
        np.testing.assert_allclose(other, reference, atol=1e-5)
    np.testing.assert_array_equal(reference, load(run, device="cpu").transform(pictures[::-1])[::-1])


@pytest.mark.parametrize(("pooling", "size"), POOLINGS.items())
def test_poolings_layers_and_names(
    run: Path, extractor: FeatureExtractor, pictures: list[np.ndarray], pooling: str, size: int
) -> None:
    for layer in (-1, 3):
        other = load(run, device="cpu", layer=layer, pooling=pooling)
        found = other.transform(pictures)
        names = other.get_feature_names_out()
        assert found.shape == (7, size)
        assert len(set(names)) == size
        images = next(extractor.iter_images(pictures)).images
        tokens = extractor.encode(images, [layer])[layer].numpy()
        patches = tokens[:, 1:]
        cells = patches.reshape(7, 2, 2, 2, 2, WIDTH).mean(axis=(2, 4))
        expected = {
            "cls": tokens[:, 0],
            "mean": patches.mean(1),
            "cls+mean": np.concatenate([tokens[:, 0], patches.mean(1)], 1),
            "grid2": cells.reshape(7, -1),
            "tokens": tokens.reshape(7, -1),
        }
        np.testing.assert_allclose(found, expected[pooling], atol=1e-5)


def test_layers_are_raw_block_outputs_and_the_last_is_normed(
    extractor: FeatureExtractor, pictures: list[np.ndarray]
) -> None:
    images = next(extractor.iter_images(pictures)).images
    several = extractor.encode(images, [0, -2, -1, DEPTH - 1])
    assert list(several) == [0, -2, -1, DEPTH - 1]
    torch.testing.assert_close(several[-1], several[DEPTH - 1], rtol=0, atol=0)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (extractor.input.mean, extractor.input.std))
    pixels = (images.float() / 255 - mean) / std
    raw = extractor.encoder.vit.forward_intermediates(
        pixels, indices=[0, DEPTH - 2], return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )
    for layer, (patches, prefix) in zip((0, -2), raw, strict=True):
        torch.testing.assert_close(several[layer], torch.cat([prefix, patches], 1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(several[-1], extractor.encoder.vit.forward_features(pixels), atol=1e-4, rtol=1e-4)


def test_iter_tokens_streams_keys_and_layers(extractor: FeatureExtractor, faces: Path) -> None:
    batches = list(extractor.iter_tokens(faces, [2, -1], batch_size=3))
    assert [len(keys) for keys, _ in batches] == [3, 3, 1]
    assert batches[0][1][2].shape == (3, 17, WIDTH)
    assert not batches[0][1][2].requires_grad
    batches[0][1][2].requires_grad_()  # an ordinary tensor that a head can train on, not an inference tensor


def test_registers_stay_out_of_the_mean(save_checkpoint: Save, pictures: list[np.ndarray]) -> None:
    other = load(save_checkpoint(registers=2, ema=False), device="cpu")
    tokens = other.encode(next(other.iter_images(pictures)).images)[-1]
    assert tokens.shape == (7, 3 + 16, WIDTH)
    np.testing.assert_allclose(other.transform(pictures), tokens[:, 3:].mean(1).numpy(), atol=1e-6)
    names = other.set_params(pooling="tokens").get_feature_names_out()
    assert [names[i * WIDTH] for i in range(4)] == ["cls_0", "register0_0", "register1_0", "patch_r0c0_0"]


def test_a_register_is_no_class_token(save_checkpoint: Save, pictures: list[np.ndarray]) -> None:
    path = save_checkpoint(registers=2, class_token=False, ema=False)
    other = load(path, device="cpu")
    tokens = other.encode(next(other.iter_images(pictures)).images)[-1]
    assert tokens.shape == (7, 2 + 16, WIDTH)
    np.testing.assert_allclose(other.transform(pictures), tokens[:, 2:].mean(1).numpy(), atol=1e-6)
    names = other.set_params(pooling="tokens").get_feature_names_out()
    assert [names[i * WIDTH] for i in range(3)] == ["register0_0", "register1_0", "patch_r0c0_0"]
    for pooling in ("cls", "cls+mean"):
        with pytest.raises(UsageError, match="needs a class token; this encoder has none"):
            load(path, device="cpu", pooling=pooling)


def test_it_is_a_scikit_learn_estimator(run: Path, pictures: list[np.ndarray], reference: np.ndarray) -> None:
    original = FeatureExtractor(str(run), layer=-1, device="cpu")
    copy = clone(original.fit())
    assert copy.get_params() == original.get_params()
    assert "_loaded" not in vars(copy)
    pipeline = make_pipeline(copy, LogisticRegression())
    labels = [0, 1, 0, 1, 0, 1, 0]
    assert pipeline.fit(pictures, labels).score(pictures, labels) == 1.0
    data = pickle.dumps(original)
    assert len(data) < 10_000
    np.testing.assert_array_equal(pickle.loads(data).transform(pictures), reference)  # noqa: S301
    assert not np.allclose(original.set_params(layer=2).transform(pictures), reference)
    assert not np.allclose(original.set_params(layer=-1, weights="model").transform(pictures), reference)


def test_an_encoder_in_memory_can_be_used_and_cloned(
    run: Path, pictures: list[np.ndarray], reference: np.ndarray
) -> None:
    loaded = load_encoder(run)
    wrapped = FeatureExtractor.from_encoder(loaded.encoder, loaded.config, loaded.input, device="cpu")
    np.testing.assert_array_equal(clone(wrapped).transform(pictures), reference)
    assert wrapped.digest == loaded.digest


@pytest.mark.parametrize(("name", "value"), [("weights", "model"), ("random_init", 3)])
def test_other_weights_are_not_asked_of_a_loaded_encoder(run: Path, name: str, value: Any) -> None:
    loaded = load_encoder(run)
    with pytest.raises(UsageError, match=f"{name}={value!r} with an encoder that is loaded already") as caught:
        FeatureExtractor(loaded).set_params(**{name: value}).fit()
    assert "give the path" in str(caught.value.fix)
    assert FeatureExtractor(loaded).fit().digest == loaded.digest


def test_grey_and_colour_are_brought_to_the_models_channels(save_checkpoint: Save, extractor: FeatureExtractor) -> None:
    grey, colour = picture(0, channels=1), picture(1)
    repeated = np.repeat(grey, 3, axis=2)
    for image in (grey, grey[:, :, 0], Image.fromarray(grey[:, :, 0])):
        np.testing.assert_array_equal(extractor.transform([image]), extractor.transform([repeated]))
    grey_model = load(save_checkpoint(channels=1, ema=False), device="cpu")
    luma = np.asarray(Image.fromarray(colour).convert("L"))
    np.testing.assert_array_equal(grey_model.transform([colour]), grey_model.transform([luma]))
    assert grey_model.input.channels == 1


def test_rotation_in_exif_is_honoured(tmp_path: Path, extractor: FeatureExtractor) -> None:
    pixels = picture(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif)
    upright = extractor.transform([pixels])
    assert not np.allclose(extractor.transform([np.ascontiguousarray(np.rot90(pixels))]), upright)
    np.testing.assert_array_equal(extractor.transform([tmp_path / "turned.png"]), upright)
    with Image.open(tmp_path / "turned.png") as image:
        np.testing.assert_array_equal(extractor.transform([image]), upright)


def test_run_checkpoint_and_weights_are_chosen(run: Path, save_checkpoint: Save) -> None:
    checkpoint = next((run / "checkpoints").iterdir())
    averaged = load_encoder(run)
    assert averaged.about == {"recipe": "fmae_test", "step": 7, "samples": 56, "weights": "ema"}
    assert load_encoder(checkpoint).digest == averaged.digest == load_encoder(run, weights="ema").digest
    last = load_encoder(run, weights="model")
    assert last.about["weights"] == "model"
    assert last.digest != averaged.digest
    plain = save_checkpoint(ema=False)
    assert load_encoder(plain).digest == last.digest
    with pytest.raises(CheckpointError, match="keeps no averaged weights"):
        load_encoder(plain, weights="ema")
    assert averaged.crop == CROP


def test_random_init_is_the_start_of_a_run(run: Path, save_checkpoint: Save) -> None:
    random = load_encoder(run, random_init=1)
    assert random.digest == load_encoder(save_checkpoint(ema=False, seed=1)).digest
    assert random.digest != load_encoder(run, random_init=2).digest
    assert random.about["weights"] == "random"


def test_what_is_no_model_is_refused_with_advice(tmp_path: Path, run: Path, save_checkpoint: Save) -> None:
    with pytest.raises(CheckpointError, match="there is no model at"):
        load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"not a checkpoint.*manifest\.json"):
        load(tmp_path)
    (tmp_path / "vit.pth").write_bytes(pickle.dumps({}))
    with pytest.raises(CheckpointError, match="pickles, which run code") as caught:
        load(tmp_path / "vit.pth")
    assert "safetensors" in str(caught.value)
    weights = next((run / "checkpoints").iterdir()) / "model.safetensors"
    with pytest.raises(CheckpointError, match=re.escape(f"give the folder {weights.parent}")):
        load(weights)


def test_damaged_and_foreign_weights_are_refused(tmp_path: Path, run: Path, save_checkpoint: Save) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    weights = next((broken / "checkpoints").iterdir()) / "ema.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"checksum of ema\.safetensors"):
        load(broken)
    weights.write_bytes(data[:-10])
    with pytest.raises(CheckpointError, match="bytes, not"):
        load(broken)


def test_weights_of_another_model_are_refused(tmp_path: Path, run: Path, save_checkpoint: Save) -> None:
    from facemae.checkpoint import find_checkpoint, write_checkpoint

    mine, other = find_checkpoint(run), find_checkpoint(save_checkpoint(registers=2, ema=False))
    write_checkpoint(tmp_path / "shapes", mine.manifest, tensors={"model": other.tensors("model")}, documents={})
    with pytest.raises(CheckpointError, match=r"not in the model reg_token"):
        load(tmp_path / "shapes")
    grey = find_checkpoint(save_checkpoint(channels=1, ema=False))
    write_checkpoint(tmp_path / "grey", mine.manifest, tensors={"model": grey.tensors("model")}, documents={})
    with pytest.raises(CheckpointError, match=r"patch_embed.proj.weight is 192x1x8x8, the model has 192x3x8x8"):
        load(tmp_path / "grey")
    renamed = {f"module.{name}": value for name, value in mine.tensors("model").items()}
    write_checkpoint(tmp_path / "names", mine.manifest, tensors={"model": renamed}, documents={})
    with pytest.raises(CheckpointError, match=r"no tensor whose name starts with 'encoder\.vit\.'"):
        load(tmp_path / "names")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layer": DEPTH}, "0 to 11"),
        ({"layer": -DEPTH - 1}, "down to -12"),
        ({"pooling": "max"}, "unknown pooling 'max'"),
        ({"pooling": "grid5"}, "grid1 to grid4"),
    ],
)
def test_wrong_layers_and_poolings_are_refused_at_once(run: Path, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(run, **params)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (picture(0).astype(np.float32) / 255, "float32, values 0"),
        (picture(0).transpose(2, 0, 1), "channels first"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (object(), "type object"),
    ],
)
def test_arrays_that_are_no_pixels_are_refused(extractor: FeatureExtractor, image: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        extractor.transform([image])


def test_inputs_that_cannot_be_meant_are_refused(extractor: FeatureExtractor, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not an image")
    with pytest.raises(DecodeError, match=r"bad\.png"):
        extractor.transform([tmp_path / "bad.png"])
    with pytest.raises(UsageError, match="does not exist"):
        extractor.transform(tmp_path / "none")
    with pytest.raises(UsageError, match="single image"):
        extractor.transform(Image.fromarray(picture(0)))
    with pytest.raises(UsageError, match="one array of shape"):
        extractor.transform(picture(0))
    with pytest.raises(UsageError, match="uint8"):
        extractor.encode(torch.zeros(1, 3, SIDE, SIDE))
    assert extractor.transform([]).shape == (0, WIDTH)


def test_unknown_crops_do_not_warn(extractor: FeatureExtractor, faces: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor.transform(faces)
    assert compare_crops(CROP, CROP.model_copy(update={"detector": "unknown", "size": 99})) == []
    assert len(compare_crops(CROP, CROP.model_copy(update={"detector": "b", "colour": "grey"}))) == 2


def test_sixteen_bit_alpha_and_palette_pictures_agree_between_file_and_memory(
    tmp_path: Path, extractor: FeatureExtractor
) -> None:
    colour = Image.fromarray(picture(2))
    alpha = colour.convert("RGBA")
    alpha.putalpha(Image.fromarray(picture(5, channels=1)[:, :, 0]))
    deep = Image.fromarray(picture(4, channels=1)[:, :, 0].astype(np.uint16) * 257)
    for name, image in (("alpha", alpha), ("palette", colour.quantize(16)), ("deep", deep)):
        image.save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(
            extractor.transform([image]), extractor.transform([tmp_path / f"{name}.png"]), err_msg=name
        )
