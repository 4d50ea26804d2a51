"""Packing: what goes in, what is left out and named, and what a failure leaves behind (nothing)."""

import errno
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from facemae.data import shard_writer
from facemae.data.card import read_card
from facemae.data.decode import decode_image
from facemae.data.index import ShardIndex
from facemae.data.ingest.keys import make_keys
from facemae.data.pack import PackItem, pack_folder, pack_samples
from facemae.data.reader import ShardReader
from facemae.data.schema import CropRecipe, DatasetCard
from facemae.data.select import metadata
from facemae.errors import DataError, StorageError, UsageError


def put(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def source(tmp_path: Path, encode: Any) -> Path:
    folder = tmp_path / "faces"
    lines = ["file,split,subject,emotion,votes_joy,code,score"]
    for i in range(12):
        put(folder, f"img/{i}.png", encode(i))
        split = ("Training", "PublicTest", "PrivateTest")[i % 3]
        lines.append(f"img/{i}.png,{split},s{i % 4},{'joy' if i % 2 else ''},{i},{i:03d},{i / 2}")
    put(folder, "labels.csv", "\n".join(lines).encode())
    return folder


def test_labels_arrive_with_their_types(source: Path, tmp_path: Path) -> None:
    report = pack_folder(source, tmp_path / "out", shard_size=5)
    assert report.written == 12
    assert report.notes == ["split names read as: PrivateTest -> test, PublicTest -> valid, Training -> train"]
    index = ShardIndex.open(tmp_path / "out")
    assert index.digest == report.digest
    reader = ShardReader(index)
    for i in range(12):
        meta = reader.meta(i)
        number = int(Path(meta["path"]).stem)
        labels = {"votes_joy": number, "code": f"{number:03d}", "score": number / 2}
        assert meta["labels"] == {**labels, **({"emotion": "joy"} if number % 2 else {})}
        assert meta["split"] == ("train", "valid", "test")[number % 3]
        assert meta["subject"] == f"s{number % 4}"
    assert metadata(index)["emotion"].null_count == 6


def test_bytes_come_back_as_they_were_and_webdataset_reads_them(source: Path, tmp_path: Path) -> None:
    pack_folder(source, tmp_path / "out", shard_size=5)
    shards = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    assert len(shards) == 3
    seen = list(wds.WebDataset(shards, shardshuffle=False, empty_check=False))
    assert len(seen) == 12
    for sample in seen:
        meta = json.loads(sample["json"])
        assert sample["png"] == (source / meta["path"]).read_bytes()


def test_same_input_and_seed_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    first = pack_folder(source, tmp_path / "a", shard_size=5, seed=1)
    second = pack_folder(source, tmp_path / "b", shard_size=5, seed=1)
    other = pack_folder(source, tmp_path / "c", shard_size=5, seed=2)
    assert first.digest == second.digest != other.digest
    for path in (tmp_path / "a").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_unusable_images_are_left_out_and_named(source: Path, tmp_path: Path, encode: Any) -> None:
    put(source, "img/0.png", b"")
    put(source, "img/1.png", b"this is not an image")
    jpeg = encode(5, "JPEG", size=(200, 200), quality=95)
    put(source, "img/2.png", jpeg[: len(jpeg) // 2])
    (source / "img/3.png").unlink()
    put(source, "extra/9.png", encode(9))
    report = pack_folder(source, tmp_path / "out")
    assert report.written == 8
    reasons = dict(report.skipped)
    assert set(reasons) == {"img/0.png", "img/1.png", "img/2.png", "img/3.png", "extra/9.png"}
    assert reasons["img/0.png"] == "the file is empty (0 bytes)"
    assert "not an image" in reasons["img/1.png"]
    assert reasons["img/3.png"] == "listed in labels.csv and missing in the folder"
    assert reasons["extra/9.png"] == "in the folder and not listed in labels.csv"
    lines = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert {entry["path"]: entry["reason"] for entry in map(json.loads, lines)} == reasons
    assert "5 left out" in "\n".join(report.lines())
    sources = metadata(ShardIndex.open(tmp_path / "out"))["source"].to_pylist()
    assert sorted(sources) == sorted(f"img/{i}.png" for i in range(4, 12))


def test_unusual_images_are_stored_as_they_are(tmp_path: Path, encode: Any) -> None:
    folder = tmp_path / "faces"
    wide = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    buffer = io.BytesIO()
    Image.fromarray(wide).save(buffer, "png")
    put(folder, "deep.png", buffer.getvalue())
    buffer = io.BytesIO()
    Image.new("CMYK", (20, 20), (10, 20, 30, 40)).save(buffer, "jpeg")
    put(folder, "print.jpeg", buffer.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(buffer, "jpeg", exif=exif)
    put(folder, "sideways.JPG", buffer.getvalue())
    report = pack_folder(folder, tmp_path / "out")
    assert (report.written, report.skipped) == (3, [])
    reader = ShardReader(ShardIndex.open(tmp_path / "out"))
    samples = {sample.meta["path"]: sample for sample in map(reader.read, range(3))}
    assert samples["deep.png"].members["png"] == (folder / "deep.png").read_bytes()
    assert samples["print.jpeg"].members["jpg"] == (folder / "print.jpeg").read_bytes()
    # Width and height are those of the upright image, as every reader of this library sees it.
    meta = samples["sideways.JPG"].meta
    assert (meta["width"], meta["height"]) == (20, 40)


def test_other_formats_become_png_without_loss(tmp_path: Path, encode: Any) -> None:
    put(tmp_path / "faces", "a.bmp", encode(1, "BMP"))
    put(tmp_path / "faces", "b.tiff", encode(2, "TIFF"))
    report = pack_folder(tmp_path / "faces", tmp_path / "out")
    assert report.notes == ["2 images of other formats are stored as PNG"]
    reader = ShardReader(ShardIndex.open(tmp_path / "out"))
    for i in range(2):
        sample = reader.read(i)
        original = (tmp_path / "faces" / sample.meta["path"]).read_bytes()
        ours = decode_image(sample.members["png"], channels=3, name="x")
        assert np.array_equal(ours, np.asarray(Image.open(io.BytesIO(original))))


def test_resize_shrinks_the_short_side_only(tmp_path: Path, encode: Any) -> None:
    put(tmp_path / "faces", "big.jpg", encode(1, "JPEG", size=(120, 60)))
    put(tmp_path / "faces", "small.png", encode(2, "PNG", size=(20, 16)))
    pack_folder(tmp_path / "faces", tmp_path / "out", resize=30)
    index = ShardIndex.open(tmp_path / "out")
    sizes = {row["source"]: (row["width"], row["height"]) for row in metadata(index).to_pylist()}
    assert sizes == {"big.jpg": (60, 30), "small.png": (20, 16)}
    small = ShardReader(index).read(index.find("small") or 0)
    assert small.members["png"] == (tmp_path / "faces" / "small.png").read_bytes()
    assert read_card(tmp_path / "out").packed["resize"] == "30"


def test_the_card_says_how_and_to_what_images_were_resized(tmp_path: Path, encode: Any) -> None:
    for i, size in enumerate([(120, 120), (64, 64), (30, 30)]):
        put(tmp_path / "faces", f"{i}.png", encode(i, size=size))
    given = DatasetCard(name="x", crop=CropRecipe(detector="boxes", size=200, interpolation="lanczos"))
    pack_folder(tmp_path / "faces", tmp_path / "out", resize=30, card=given)
    crop = read_card(tmp_path / "out").crop
    assert (crop.detector, crop.size, crop.interpolation) == ("boxes", 30, "bicubic")
    pack_folder(tmp_path / "faces", tmp_path / "varied", resize=40, card=given)
    assert read_card(tmp_path / "varied").crop.size is None
    pack_folder(tmp_path / "faces", tmp_path / "as-is", card=given)
    assert read_card(tmp_path / "as-is").crop == given.crop


def test_dotted_and_colliding_names_stay_apart(tmp_path: Path, encode: Any) -> None:
    names = ["a.b.png", "a_b.png", "a.b.jpg", "A_B.png", "d.ir/x.png", "ünï cödé.png", f"{'long' * 40}.png"]
    for i, name in enumerate(names):
        put(tmp_path / "faces", name, encode(i, "JPEG" if name.endswith("jpg") else "PNG"))
    put(tmp_path / "faces", "labels.csv", "\n".join(["path", *names]).encode())
    report = pack_folder(tmp_path / "faces", tmp_path / "out")
    assert report.written == len(names)
    reader = ShardReader(ShardIndex.open(tmp_path / "out"))
    samples = {sample.meta["path"]: sample for sample in map(reader.read, range(len(names)))}
    assert set(samples) == set(names)
    for name, sample in samples.items():
        assert "." not in sample.key
        assert (tmp_path / "faces" / name).read_bytes() in sample.members.values()
    assert samples["d.ir/x.png"].key == "d_ir_x"


def test_keys_do_not_depend_on_order() -> None:
    paths = ["a.b.png", "a_b.png", "c.png"]
    assert make_keys(paths) == make_keys(paths[::-1])[::-1]
    assert make_keys(paths)[2] == "c"
    assert len({key.lower() for key in make_keys(["A.png", "a.png"])}) == 2


def test_duplicate_key(tmp_path: Path, encode: Any) -> None:
    items = [PackItem("same", encode(i), "png", {}, source=f"{i}.png") for i in range(2)]
    with pytest.raises(DataError, match=r"key 'same' is there twice: 0.png and 1.png"):
        pack_samples(items, tmp_path / "out")
    with pytest.raises(DataError, match=r"key 'a.b' has a dot"):
        pack_samples([PackItem("a.b", encode(0), "png", {})], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_old_set_is_only_replaced_on_demand(tmp_path: Path, encode: Any) -> None:
    out = tmp_path / "out"
    pack_samples([PackItem("old", encode(0), "png", {})], out)
    new = [PackItem("new", encode(1), "png", {})]
    with pytest.raises(DataError, match="already holds a shard set") as caught:
        pack_samples(new, out)
    assert "--overwrite" in str(caught.value.fix)
    assert ShardIndex.open(out).find("old") == 0
    pack_samples(new, out, overwrite=True)
    assert ShardIndex.open(out).find("new") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_foreign_folder_is_never_replaced(tmp_path: Path, encode: Any) -> None:
    put(tmp_path / "home", "thesis.txt", b"years of work")
    with pytest.raises(DataError, match="exists and is not a shard set"):
        pack_samples([PackItem("a", encode(1), "png", {})], tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.txt").read_bytes() == b"years of work"


@pytest.mark.parametrize("after", [0, 1, 7])
@pytest.mark.parametrize("older", [False, True])
def test_full_disk_leaves_nothing_half_written(
    tmp_path: Path, encode: Any, monkeypatch: pytest.MonkeyPatch, after: int, older: bool
) -> None:
    out = tmp_path / "deep" / "out"
    if older:
        pack_samples([PackItem("old", encode(0), "png", {})], out)
    left = [after]
    real = shard_writer.add_member

    def full(tar: tarfile.TarFile, name: str, data: bytes) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        real(tar, name, data)

    monkeypatch.setattr(shard_writer, "add_member", full)
    items = [PackItem(f"k{i}", encode(i), "png", {}) for i in range(10)]
    with pytest.raises(StorageError, match="the disk is full") as caught:
        pack_samples(items, out, shard_size=3, overwrite=True)
    assert str(out) in caught.value.found
    assert [path.name for path in out.parent.iterdir()] == (["out"] if older else [])
    if older:
        assert ShardIndex.open(out).find("old") == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_that_fills_when_buffers_are_flushed(tmp_path: Path, encode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tarfile.open

    def on_full_disk(path: Path, *args: Any, **options: Any) -> tarfile.TarFile:
        return real("/dev/full", *args, **options)

    monkeypatch.setattr(tarfile, "open", on_full_disk)
    with pytest.raises(StorageError, match="the disk is full"):
        pack_samples([PackItem("k", encode(1), "png", {})], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_card_is_kept_and_completed(tmp_path: Path, encode: Any) -> None:
    card = DatasetCard(name="Faces", licence="CC0", packed={"note": "by hand"})
    pack_samples([PackItem("k", encode(1), "png", {})], tmp_path / "out", card=card, seed=7)
    found = read_card(tmp_path / "out")
    assert (found.name, found.licence) == ("Faces", "CC0")
    assert (found.packed["seed"], found.packed["samples"], found.packed["note"]) == ("7", "1", "by hand")
    assert "facemae" in found.packed


def test_broken_card_is_an_error_and_a_missing_one_is_unknown(tmp_path: Path) -> None:
    assert read_card(tmp_path).licence == "unknown"
    (tmp_path / "card.json").write_text('{"name": "x", "license": "CC0"}')
    with pytest.raises(DataError, match="at license") as caught:
        read_card(tmp_path)
    assert "licence" in str(caught.value.expected)


def test_nothing_usable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 1 images can be packed \(k: the file is empty"):
        pack_samples([PackItem("k", b"", "png", {})], tmp_path / "out")
    with pytest.raises(DataError, match="nothing to pack"):
        pack_samples([], tmp_path / "out")
    with pytest.raises(UsageError, match="shard size 0"):
        pack_samples([], tmp_path / "out", shard_size=0)
    assert list(tmp_path.iterdir()) == []
