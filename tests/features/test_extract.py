import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from typer.testing import CliRunner, Result

from facemae.data.drop import drop_samples
from facemae.data.index import build_index
from facemae.data.pack import PackItem, pack_samples
from facemae.errors import CheckpointError, DataError, FacemaeError, UsageError
from facemae.features.commands import app
from facemae.features.extraction import extract_features
from facemae.features.extractor import FeatureExtractor, load
from facemae.features.sources import JoinedSource, SequenceSource, is_shard_set, open_paths
from facemae.features.writers import read_features
from facemae.rng import generator
from tests.features.conftest import CROP, SIDE, WIDTH, picture, png


def extract(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two good pictures, a damaged and an empty one, and a file that is no picture."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    good = png(picture(0))
    (folder / "1.png").write_bytes(good)
    (folder / "2.png").write_bytes(good[: len(good) // 2])
    (folder / "3.PNG").write_bytes(png(picture(1, side=SIDE)))
    (folder / "4.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.png").write_bytes(good)
    return folder


@pytest.mark.parametrize("kind", [".npz", ".parquet"])
def test_a_folder_becomes_a_file_with_its_papers(tmp_path: Path, run: Path, faces: Path, kind: str) -> None:
    out = tmp_path / f"f{kind}"
    result = extract(faces, "--model", run, "--out", out, "--pooling", "cls+mean", "--layer", "-2", "--device", "cpu")
    assert result.exit_code == 0
    found = read_features(out)
    assert found.keys.tolist() == ["a/0.png", "a/1.png", "a/2.png", "b3.png", "b4.png", "b5.png", "b6.png"]
    extractor = load(run, layer=-2, pooling="cls+mean", device="cpu")
    np.testing.assert_allclose(found.features, extractor.transform(faces), atol=1e-6)
    meta = found.meta
    assert meta["model"] == {
        "name": str(run),
        "digest": extractor.digest,
        "recipe": "fmae_test",
        "step": 7,
        "samples": 56,
        "weights": "ema",
    }
    assert (meta["layer"], meta["pooling"], meta["images"], meta["skipped"]) == (10, "cls+mean", 7, [])
    assert meta["input"]["image_size"] == SIDE
    assert meta["crop"]["model"] == CROP.model_dump()
    assert meta["sources"][0]["crop"]["detector"] == "unknown"
    assert meta["sizes"] == {"model": SIDE, "heights": [48, 48], "widths": [48, 48], "scaled": 7}
    assert meta["facemae"]
    assert "7 images with sides of 48 pixels were scaled to 32" in result.stdout
    assert "detector unknown" in result.stdout


@pytest.mark.parametrize("kind", [".npz", ".parquet"])
def test_tokens_keep_their_shape(tmp_path: Path, run: Path, faces: Path, kind: str) -> None:
    extract(faces, "--model", run, "--out", tmp_path / f"t{kind}", "--pooling", "tokens", "--device", "cpu")
    assert read_features(tmp_path / f"t{kind}").features.shape == (7, 17, WIDTH)


def test_what_does_not_decode_is_named_never_lost(tmp_path: Path, run: Path, mixed: Path) -> None:
    result = extract(mixed, "--model", run, "--out", tmp_path / "f.npz", "--json", "--device", "cpu")
    report = json.loads(result.stdout)
    found = read_features(tmp_path / "f.npz")
    assert found.keys.tolist() == ["1.png", "3.PNG"]
    assert [skip["key"] for skip in found.meta["skipped"]] == ["2.png", "4.jpg"]
    assert "zero bytes" in found.meta["skipped"][1]["reason"]
    assert report["skipped"] == found.meta["skipped"]
    assert report["images"] == 2
    assert found.meta["sources"][0]["other_files"] == {".txt": 1}
    text = extract(mixed, "--model", run, "--out", tmp_path / "g.npz", "--device", "cpu").stdout
    assert "2 images did not decode" in text
    assert "2.png" in text


def test_when_nothing_decodes_there_is_no_file(tmp_path: Path, run: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.png").write_bytes(b"junk")
    with pytest.raises(DataError, match="none of the 1 images") as caught:
        extract(bad, "--model", run, "--out", tmp_path / "f.npz", "--device", "cpu")
    assert caught.value.exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]


def test_shards_are_filtered_and_crops_compared(tmp_path: Path, run: Path, shards: Path, faces: Path) -> None:
    out = tmp_path / "f.parquet"
    result = extract(shards, "--model", run, "--out", out, "--where", "split=test", "--device", "cpu")
    found = read_features(out)
    assert sorted(found.keys.tolist()) == ["k1", "k3", "k5"]
    assert "warning: faces were cut otherwise" in result.stderr
    assert any("margin" in warning for warning in found.meta["warnings"])
    source = found.meta["sources"][0]
    assert source["where"] == {"split": "test"}
    assert source["crop"]["margin"] == "0.2"
    assert source["digest"]
    whole = load(run, device="cpu").transform(faces)
    np.testing.assert_allclose(found.features[found.keys.tolist().index("k3")], whole[3], atol=1e-5)


def test_dropped_samples_are_left_out(tmp_path: Path, run: Path, pictures: list[np.ndarray]) -> None:

    items = [PackItem(f"k{i}", png(pixels), "png", {"split": "train"}) for i, pixels in enumerate(pictures)]
    pack_samples(items, tmp_path / "s", shard_size=3)
    drop_samples(tmp_path / "s", keys=["k2"])
    extract(tmp_path / "s", "--model", run, "--out", tmp_path / "f.npz", "--device", "cpu")
    found = read_features(tmp_path / "f.npz")
    assert sorted(found.keys.tolist()) == ["k0", "k1", "k3", "k4", "k5", "k6"]
    assert found.meta["sources"][0]["dropped"] == 1


def test_a_shard_set_is_known_by_its_index_or_its_shards(tmp_path: Path, shards: Path) -> None:
    assert is_shard_set(shards)
    deep = tmp_path / "deep"
    (deep / "part").mkdir(parents=True)
    for shard in shards.glob("*.tar"):
        shutil.copy(shard, deep / "part" / shard.name)
    assert not is_shard_set(deep)
    build_index(deep)
    assert is_shard_set(deep)
    site = tmp_path / "site"
    (site / "index").mkdir(parents=True)
    (site / "card.json").write_text("{}")
    assert not is_shard_set(site)


def test_keys_of_several_folders_are_told_apart(tmp_path: Path, run: Path, faces: Path, mixed: Path) -> None:
    extract(faces / "a", mixed, faces / "b3.png", "--model", run, "--out", tmp_path / "f.npz", "--device", "cpu")
    keys = read_features(tmp_path / "f.npz").keys.tolist()
    assert keys[0] == f"{faces}/a/0.png"
    assert keys[-2:] == [f"{mixed}/3.PNG", f"{faces}/b3.png"]


def test_dry_run_opens_the_model_counts_and_writes_nothing(tmp_path: Path, run: Path, faces: Path) -> None:
    out = tmp_path / "f.npz"
    result = extract(faces, "--model", run, "--out", out, "--dry-run", "--device", "cpu")
    assert "would write 7 rows of 192 numbers" in result.stdout
    plan = json.loads(extract(faces, "--model", run, "--out", out, "--dry-run", "--json").stdout)
    assert (plan["images"], plan["feature_shape"], plan["bytes"]) == (7, [192], 7 * 192 * 4)
    assert not out.exists()
    with pytest.raises(CheckpointError):
        extract(faces, "--model", tmp_path, "--out", out, "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["FACES", "--out", "f.csv"], UsageError, r"\.npz or \.parquet"),
        (["NOWHERE", "--out", "f.npz"], UsageError, "does not exist"),
        (["FACES", "FACES", "--out", "f.npz"], UsageError, "given twice"),
        (["FACES", "--out", "f.npz", "--where", "split=test"], UsageError, "facemae data pack"),
        (["FACES", "--out", "f.npz", "--where", "split"], UsageError, "name=value"),
        (["EMPTY", "--out", "f.npz"], UsageError, "no image in"),
        (["FACES", "--out", "old.npz"], UsageError, "--overwrite"),
        (["FACES", "--out", "f.npz", "--pooling", "max"], UsageError, "unknown pooling"),
    ],
)
def test_wrong_usage_is_refused_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Path,
    faces: Path,
    arguments: list[str],
    error: type[FacemaeError],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "old.npz").write_bytes(b"old")
    with pytest.raises(error, match=message):
        extract(*[str(faces) if argument == "FACES" else argument for argument in arguments], "--model", run)
    assert (tmp_path / "old.npz").read_bytes() == b"old"


def test_progress_counts_what_was_skipped(tmp_path: Path, run: Path, mixed: Path) -> None:
    said: list[tuple[int, int]] = []
    extractor = FeatureExtractor(run, device="cpu", batch_size=1)
    extract_features(extractor, open_paths([mixed]), tmp_path / "f.npz", progress=lambda *done: said.append(done))
    assert said == [(1, 4), (3, 4), (4, 4)]


def test_overwrite_replaces(tmp_path: Path, run: Path, faces: Path) -> None:
    (tmp_path / "f.npz").write_bytes(b"old")
    extract(faces / "b3.png", "--model", run, "--out", tmp_path / "f.npz", "--overwrite", "--device", "cpu")
    assert len(read_features(tmp_path / "f.npz").keys) == 1


def test_a_missing_file_stops_and_leaves_nothing(tmp_path: Path, run: Path, mixed: Path) -> None:
    class Vanishing(FeatureExtractor):
        def iter_images(self, *args: Any, **kwargs: Any) -> Any:
            for path in mixed.iterdir():
                path.unlink()
            yield from super().iter_images(*args, **kwargs)

    source = open_paths([mixed / "1.png"])
    with pytest.raises(FacemaeError, match="reading"):
        extract_features(Vanishing(run, device="cpu"), source, tmp_path / "f.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixed"]


def test_help_answers_without_torch() -> None:
    code = "import sys, facemae.features.commands; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert "facemae extract faces/" in extract("--help").stdout


@pytest.mark.parametrize("kind", [".npz", ".parquet"])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, run: Path, kind: str) -> None:
    """5,000 images more, 65 MB more features: the process may not need half of that more.

    The margin is wide because allocators keep what they were given: on a machine of many cores their pools settle late.
    """

    class Quick(FeatureExtractor):
        # Reading, decoding, batching and writing are real; only the forward pass, which keeps nothing, is left out.
        def features(self, images: torch.Tensor) -> np.ndarray:
            return generator(0, "features", len(images)).random((len(images), *self.feature_shape), dtype=np.float32)

    extractor = Quick(run, device="cpu", pooling="tokens", batch_size=32).fit()
    process = psutil.Process()
    image = picture(0, side=SIDE)

    def peak(number: int) -> int:
        highest = 0

        def watch(done: int, total: int) -> None:
            nonlocal highest
            highest = max(highest, process.memory_info().rss)

        source = JoinedSource([SequenceSource([image] * number)], name="images")
        report = extract_features(extractor, source, tmp_path / f"{number}{kind}", progress=watch)
        assert report.images == number
        return highest

    peak(1400)  # allocators fill their pools
    first = peak(1500)
    growth = peak(6500) - first
    assert growth < 32e6, f"grew by {growth / 1e6:.1f} MB"
