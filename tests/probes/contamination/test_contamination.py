"""Contamination: copies are found however they are stored, others are not; what cannot be seen is said."""

import csv
import importlib.metadata
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from facemae.checkpoint import InitialWeights, Manifest, find_checkpoint, write_checkpoint
from facemae.config import StreamConfig
from facemae.data.duplicates import near_across, near_pairs
from facemae.data.index import ShardIndex, build_index
from facemae.data.pack import PackItem, pack_samples
from facemae.data.schema import DatasetCard, ModelInput
from facemae.data.select import select_keys
from facemae.data.selection import choose_samples
from facemae.data.verify import NEAR
from facemae.errors import DataError, IndexMismatchError, UsageError
from facemae.rng import generator
from facemae_probes.commands import app
from facemae_probes.contamination import LIMITS, Contamination, Part, contamination, streams_of
from facemae_probes.contamination.parts import Fingerprints
from facemae_probes.results import identity
from facemae_probes.studies.commands import app as studies
from facemae_probes.studies.copies import study_copies
from tests.data.test_loader import damage

SIDE = 48
Pixels = NDArray[np.uint8]


def picture(number: int) -> Pixels:
    """A smooth picture in colours, unlike others."""
    coarse = generator(5, "contamination", number).uniform(20, 220, (7, 7, 3)).astype(np.float32)
    smooth: Pixels = np.clip(cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    return smooth


def encoded(pixels: Pixels, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def item(key: str, data: bytes, extension: str = "png", **meta: Any) -> PackItem:
    return PackItem(key, data, extension, meta)


def packed(folder: Path, items: list[PackItem]) -> Path:
    pack_samples(items, folder, shard_size=16)
    return folder


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures, the first of them twice, half of them in split `train`."""
    items = [item(f"known_{i:02d}", encoded(picture(i)), split="train" if i < 20 else "valid") for i in range(40)]
    items.append(item("known_again", encoded(picture(0), "WEBP", lossless=True), "webp", split="train"))
    return packed(tmp_path_factory.mktemp("contamination") / "known", items)


@pytest.fixture(scope="module")
def probing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of several kinds among pictures of its own."""
    brighter = np.clip(picture(3).astype(int) + 12, 0, 255).astype(np.uint8)
    items = [
        item("copy", encoded(picture(0)), split="test"),
        item("copy_again", encoded(picture(0), compress_level=0), split="test"),
        item("jpeg", encoded(picture(1), "JPEG", quality=70), "jpg", split="test"),
        item("smaller", encoded(cv2.resize(picture(2), (36, 36), interpolation=cv2.INTER_AREA)), split="test"),
        item("brighter", encoded(brighter), split="test"),
        item("mirrored", encoded(np.ascontiguousarray(picture(4)[:, ::-1])), split="test"),
        item("cropped", encoded(np.ascontiguousarray(picture(5)[8:40, 8:40])), split="test"),
        item("of_valid", encoded(picture(30)), split="valid"),
        *(item(f"own_{i}", encoded(picture(100 + i)), split="train" if i % 2 else "test") for i in range(12)),
        item("nowhere", encoded(picture(6))),
    ]
    return packed(tmp_path_factory.mktemp("contamination") / "probing", items)


def kinds(found: Contamination) -> dict[str, str]:
    return {pair.key: pair.kind for pair in found.pairs}


def test_copies_are_found_and_others_are_not(known: Path, probing: Path) -> None:
    found = contamination([known], probing)
    assert kinds(found) == {
        "copy": "exact",
        "copy_again": "exact",
        "of_valid": "exact",
        "nowhere": "exact",
        "jpeg": "near",
        "smaller": "near",
        "brighter": "near",
        "mirrored": "mirrored",
        # Cropped ones are not, as LIMITS says.
    }
    assert "another crop" in LIMITS
    by_key = {pair.key: pair for pair in found.pairs}
    # The packer shuffles: either of the two stands for both.
    assert by_key["copy"].pretraining_key in ("known_00", "known_again")
    assert by_key["copy"].copies == 2
    assert (by_key["jpeg"].pretraining_key, by_key["jpeg"].copies) == ("known_01", 1)
    assert by_key["jpeg"].correlation is not None
    assert by_key["jpeg"].correlation >= 0.9
    counts = {name: (c.samples, c.exact, c.near, c.undecodable) for name, c in found.splits.items()}
    assert counts == {"test": (13, 2, 4, 0), "train": (6, 0, 0, 0), "valid": (1, 1, 0, 0), "": (1, 1, 0, 0)}
    assert set(found.clean["test"]) == {"cropped", *(f"own_{i}" for i in range(0, 12, 2))}
    assert found.lines()[0].startswith("test: 6 of 13 contaminated (46.15 %)")


def changed(kind: str, image: Pixels) -> Pixels:
    """A copy such as other people's preprocessing makes."""
    if kind == "brighter":
        return np.asarray(np.clip(image * 1.3, 0, 255), dtype=np.uint8)
    if kind == "equalised":
        return np.stack([cv2.equalizeHist(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).astype(np.uint8)] * 3, axis=2)
    if kind == "mirrored":
        return np.ascontiguousarray(image[:, ::-1])
    return np.ascontiguousarray(image[1:-1, 1:-1])


@pytest.mark.parametrize("kind", ["brighter", "equalised", "mirrored", "cut"])
def test_copies_whose_hashes_differ_in_more_than_four_bits_are_found(known: Path, tmp_path: Path, kind: str) -> None:
    """The gate of `facemae data verify` closed before the correlation was looked at, and mirrored ones were not."""
    items = [item(f"copy_{i:02d}", encoded(changed(kind, picture(i))), split="test") for i in range(1, 40)]
    found = contamination([known], packed(tmp_path / "copies", items))
    own = {pair.key for pair in found.pairs if pair.key[-2:] == pair.pretraining_key[-2:]}
    assert len(own) >= (25 if kind == "cut" else 36)
    assert len(found.pairs) == len(own), "nothing else is found"
    assert any(pair.bits > NEAR for pair in found.pairs) == (kind != "mirrored")
    assert {pair.kind for pair in found.pairs} == {"mirrored" if kind == "mirrored" else "near"}


def test_a_symmetric_copy_is_one_pair(tmp_path: Path) -> None:
    half = picture(1)[:, :24]
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    first = packed(tmp_path / "first", [item("whole", encoded(image))])
    second = packed(tmp_path / "second", [item("jpeg", encoded(image, "JPEG", quality=60), "jpg", split="test")])
    (pair,) = contamination([first], second).pairs
    assert pair.kind == "near"
    assert [pair.kind for pair in contamination([first], first).pairs] == ["exact"]


def test_what_of_altered_copies_is_found_is_measured(known: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(studies, ["copies", "--data", str(known), "--count", "20", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["images"], found["pairs"]) == (20, 40 * 39 // 2)
    assert found["found"]["JPEG of quality 50"] == found["found"]["mirrored"] == 1
    assert found["found"]["8 % off each side"] < 0.5
    assert found["mirrored_pairs"] == 0
    shown = CliRunner().invoke(studies, ["copies", "--data", str(known), "--count", "20"])
    assert "100.0 %  mirrored" in shown.stdout
    assert "0 of 780 pairs of different images are alike mirrored" in shown.stdout
    both = [item("one", encoded(picture(1))), item("two", encoded(changed("mirrored", picture(1))))]
    assert study_copies(packed(tmp_path / "both", both))["mirrored_pairs"] == 1


def test_only_what_was_read_of_a_set_counts_and_several_sets_are_told_apart(known: Path, probing: Path) -> None:
    assert "of_valid" not in kinds(contamination([Part(known, {"split": "train"})], probing))
    found = contamination([Part(known, {"split": "valid"}), Part(known, {"split": "train"})], probing)
    assert {pair.key: pair.pretraining for pair in found.pairs if pair.key in ("copy", "of_valid")} == {
        "copy": 1,
        "of_valid": 0,
    }


def checkpoint_on(
    folder: Path, shards: Path, *, init: InitialWeights | None = None, cards: dict[str, DatasetCard] | None = None
) -> Path:
    """A run of one stream, split train, with one checkpoint that has no weights; returns the run folder."""
    index = ShardIndex.open(shards)
    config = StreamConfig(shards=str(shards), where={"split": "train"})
    _, selection = choose_samples(index, config)
    pins = {"shards": len(index.shards), "digest": index.digest, "selection": selection}
    manifest = Manifest(
        step=1,
        samples=8,
        recipe={"name": "made", "data": {"streams": [config.model_dump(mode="json")]}},
        input=ModelInput(image_size=SIDE, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3),
        cards=cards or {},
        init=init,
    )
    saved = folder / "checkpoints" / "step-00000001"
    write_checkpoint(saved, manifest, tensors={}, documents={"data": {"streams": {"faces": pins}}})
    return folder


def test_a_run_is_compared_by_what_it_is_pinned_to(known: Path, probing: Path, tmp_path: Path) -> None:
    shards = shutil.copytree(known, tmp_path / "shards")
    run = checkpoint_on(tmp_path / "run", shards)
    count = len(ShardIndex.open(shards).shards)
    assert streams_of(find_checkpoint(run)) == (Part(shards, {"split": "train"}, None, count),)
    before = contamination(streams_of(find_checkpoint(run)), probing)

    # Shards that came later were not trained on.
    shutil.copy(next(probing.glob("*.tar")), shards / "zz-later.tar")
    build_index(shards)
    after = contamination(streams_of(find_checkpoint(run)), probing)
    assert after.pairs == before.pairs
    assert len(contamination([Part(shards)], probing).pairs) > len(before.pairs)

    # Another set at the same place was not trained on either.
    shutil.rmtree(shards)
    packed(shards, [item(f"new_{i}", encoded(picture(200 + i)), split="train") for i in range(40)])
    with pytest.raises(IndexMismatchError, match=r"is not what stream 'faces' of .* was trained on") as caught:
        streams_of(find_checkpoint(run))
    assert "--pretraining DIR" in str(caught.value.fix)
    shutil.rmtree(shards)
    packed(shards, [item("one", encoded(picture(1)), split="train")])
    with pytest.raises(IndexMismatchError, match="of 1 shards"):
        streams_of(find_checkpoint(run))


def test_what_the_weights_saw_that_a_run_started_from_is_told(known: Path, probing: Path, tmp_path: Path) -> None:
    cards = {"faces": DatasetCard(name="faces"), "init/faces": DatasetCard(name="older faces")}
    init = InitialWeights(digest="0" * 64, recipe="fmae", cards={"faces": DatasetCard(name="older faces")})
    run = checkpoint_on(tmp_path / "run", known, init=init, cards=cards)
    arguments = ["contamination", "--data", str(probing), "--run"]
    for as_json in ((), ("--json",)):
        done = CliRunner().invoke(app, [*arguments, str(run), "--out", str(tmp_path / "out"), *as_json])
        assert done.exit_code == 0, done.output
        assert "weights of an earlier one (recipe fmae), whose data (older faces) are not compared" in done.stdout
    plain = CliRunner().invoke(app, [*arguments, str(checkpoint_on(tmp_path / "plain", known)), "--json"])
    assert json.loads(plain.stdout)["warnings"] == []


def test_what_does_not_decode_is_counted(tmp_path: Path, probing: Path) -> None:
    items = [item("good", encoded(picture(1))), item("bad", encoded(picture(2)), split="test")]
    broken = packed(tmp_path / "broken", items)
    damage(broken, ["bad"])
    found = contamination([broken], probing)
    assert found.pretraining[0]["undecodable"] == 1
    assert any(line.startswith("1 pretraining samples") for line in found.lines())
    assert contamination([probing], broken).splits["test"].undecodable == 1


def test_a_set_in_which_nothing_can_be_compared_is_not_called_clean(tmp_path: Path, probing: Path) -> None:
    broken = packed(tmp_path / "broken", [item("one", encoded(picture(1))), item("two", encoded(picture(2)))])
    damage(broken, ["one", "two"])
    for sets in (([broken], probing), ([probing], broken)):
        with pytest.raises(DataError, match=r"none of the 2 samples of .* has an image that decodes"):
            contamination(*sets)


def test_many_equal_images_make_no_square_of_pairs(tmp_path: Path) -> None:
    black = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    many = packed(tmp_path / "many", [item(f"m{i}", encoded(black)) for i in range(30)])
    asked = packed(tmp_path / "asked", [item(f"a{i}", encoded(black), split="test") for i in range(30)])
    found = contamination([many], asked)
    assert len(found.pairs) == 30
    assert len({pair.pretraining_key for pair in found.pairs}) == 1
    assert {pair.copies for pair in found.pairs} == {30}


def test_a_result_is_kept_until_something_changes(
    known: Path, probing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = contamination([known], probing, cache=tmp_path)
    looked: list[Any] = []
    real = Fingerprints.of.__func__  # type: ignore[attr-defined]

    def counting(cls: type[Fingerprints], images: Any, *others: Any) -> Fingerprints:
        looked.append(images)
        return real(cls, images, *others)  # type: ignore[no-any-return]

    monkeypatch.setattr(Fingerprints, "of", classmethod(counting))
    again = contamination([known], probing, cache=tmp_path)
    assert not looked
    assert again.to_json() == first.to_json()
    contamination([Part(known, {"split": "train"})], probing, cache=tmp_path)
    assert len(looked) == 2

    # The same images elsewhere are the same result, which names the folders as they are now.
    shutil.copytree(known, tmp_path / "moved")
    moved = contamination([tmp_path / "moved"], probing, cache=tmp_path)
    assert len(looked) == 2
    assert moved.pretraining[0]["folder"] == str(tmp_path / "moved")
    assert moved.pairs == first.pairs

    plain = identity.source_bytes
    monkeypatch.setattr(identity, "source_bytes", lambda name: plain(name) + b"#" * (name == "facemae.data.duplicates"))
    contamination([known], probing, cache=tmp_path)
    assert len(looked) == 4
    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0" if name == "pillow" else installed(name))
    contamination([known], probing, cache=tmp_path)
    assert len(looked) == 6


def test_pairs_and_clean_keys_are_written(known: Path, probing: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["contamination", "--data", str(probing), "--pretraining", str(known), "--out", str(tmp_path), "--json"]
    )
    assert done.exit_code == 0, done.output
    data: Mapping[str, Any] = json.loads(done.stdout)
    assert data["splits"]["test"]["share"] == pytest.approx(6 / 13)
    assert data == json.loads((tmp_path / "result.json").read_text())
    rows = list(csv.DictReader((tmp_path / "pairs.csv").open()))
    assert len(rows) == 8
    assert rows[1] == {
        "key": "copy",
        "split": "test",
        "kind": "exact",
        "bits": "0",
        "correlation": "",
        "pretraining": "0",
        "pretraining_key": rows[1]["pretraining_key"],
        "copies": "2",
    }
    # The list is what a stream's `keys` takes.
    index = ShardIndex.open(probing)
    chosen = [index.key(int(place)) for place in select_keys(index, tmp_path / "clean-test.txt")]
    assert chosen == list(contamination([known], probing).clean["test"])


def test_what_is_missing_is_named(known: Path, probing: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pretraining set to compare with"):
        contamination([], probing)
    with pytest.raises(UsageError, match="has no metadata column 'fold'"):
        contamination([known], probing, split="fold")
    with pytest.raises(UsageError, match="no clean sample of split 'valid'") as caught:
        contamination([known], probing).write_clean(tmp_path / "clean.txt", "valid")
    assert "'test', 'train', 'valid'" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --pretraining or --run"),
        (["--run", "runs/x", "--where", "split=train"], "--where with --run"),
        (["--pretraining", "x", "--where", "split"], "--where split"),
    ],
)
def test_options_that_do_not_go_together_are_refused(probing: Path, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["contamination", "--data", str(probing), *arguments])
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_the_search_across_finds_what_the_search_within_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = generator(0, "hashes").integers(0, 256, (400, 8)).astype(np.uint8)
    hashes[200:] = hashes[:200]
    hashes[200:, 0] ^= generator(0, "bits").integers(0, 8, 200).astype(np.uint8)
    within = near_pairs(hashes, 4)
    assert not list(near_across(hashes[:0], hashes, 4))
    for limit in (50_000, 100):  # beyond the limit only those are compared that agree in a block of bits
        monkeypatch.setattr("facemae.data.duplicates._FLAT_LIMIT", limit)
        across = np.concatenate(list(near_across(hashes[:200], hashes[200:], 4)))
        assert {(a, b + 200) for a, b in across.tolist()} == {tuple(pair) for pair in within.tolist()}
        assert len(near_pairs(hashes, 4)) == len(within) >= 200
        # Blocks of four bits would sort nothing.
        wide = np.concatenate(list(near_across(hashes[:200], hashes[200:], 12)))
        assert {tuple(pair) for pair in across.tolist()} <= {tuple(pair) for pair in wide.tolist()}
