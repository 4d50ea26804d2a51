"""Verification: damage is found and named, duplicates too, and what is sound passes."""

import csv
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facemae.data.duplicates import clusters, near_pairs
from facemae.data.index import ShardIndex, build_index
from facemae.data.pack import PackItem, pack_samples
from facemae.data.scan import scan_shard
from facemae.data.verify import verify_shards, write_duplicates
from facemae.errors import DataError


def smooth(number: int, noise: float = 0.0, size: int = 64) -> Image.Image:
    """A picture with coarse structure, as faces have, and some fine noise."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).resize(
        (size, size), Image.Resampling.BICUBIC
    )
    grain = np.random.default_rng(number + 999).normal(0, noise, (size, size)) if noise else 0
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", **options)
    return buffer.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=60)
    return buffer.getvalue()


def test_sound_set_passes(shard_set: Path) -> None:
    report = verify_shards(shard_set)
    assert report.sound
    assert report.samples == 40
    assert report.problems == []
    assert report.exact == []


def test_flipped_byte_is_found_in_its_sample(shard_set: Path, index: ShardIndex) -> None:
    path = shard_set / index.shards[2].name
    data = bytearray(path.read_bytes())
    data[index.members(24)["png"].offset + 3] ^= 1
    path.write_bytes(data)
    report = verify_shards(shard_set)
    assert not report.sound
    assert {problem.where for problem in report.problems} == {index.shards[2].name, index.key(24)}
    assert all(problem.kind == "checksum" for problem in report.problems)


def test_renamed_sample_is_found(shard_set: Path, index: ShardIndex) -> None:
    # Every checksum may hold and the shard still be another one: the digest covers names.
    path = shard_set / index.shards[0].name
    header = bytearray(path.read_bytes())
    for name in ("png", "json"):
        start = header.index(f"{index.key(0)}.{name}\0".encode())
        header[start : start + 6] = b"face99"
        start = header.index(f"face99.{name}\0".encode())
        header[start + 148 : start + 156] = b" " * 8
        header[start + 148 : start + 156] = b"%06o\0 " % sum(header[start : start + 512])
    path.write_bytes(header)
    with tarfile.open(path) as tar:
        assert tar.getnames()[0] == "face99.png"
    report = verify_shards(shard_set)
    assert [problem.where for problem in report.problems] == [index.shards[0].name]
    assert "content digest" in report.problems[0].reason


def test_truncated_and_missing_shards_are_named(shard_set: Path, index: ShardIndex) -> None:
    first, second = (shard_set / index.shards[i].name for i in (0, 1))
    first.write_bytes(first.read_bytes()[:3000])
    second.unlink()
    report = verify_shards(shard_set)
    reasons = {problem.where: problem.reason for problem in report.problems}
    assert "truncated" in reasons[first.name]
    assert "No such file" in reasons[second.name]
    assert len(report.problems) == 2 + 20


def test_undecodable_images_in_foreign_shards_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", [("good.png", png(smooth(1))), ("bad.png", b"nothing"), ("text.txt", b"x")])
    build_index(tmp_path)
    report = verify_shards(tmp_path)
    assert not report.sound
    assert [(problem.where, problem.kind) for problem in report.problems] == [("bad", "undecodable")]


def test_new_shard_is_told_and_is_no_damage(shard_set: Path, index: ShardIndex) -> None:
    extra = shard_set / "shard-zzz.tar"
    extra.write_bytes((shard_set / index.shards[0].name).read_bytes())
    report = verify_shards(shard_set)
    assert report.sound
    assert [(problem.where, problem.kind) for problem in report.problems] == [("shard-zzz.tar", "not indexed")]


def test_duplicates_and_those_that_cross_splits(tmp_path: Path) -> None:
    face, other = smooth(1), smooth(2)
    images = {
        "original": ("train", png(face)),
        "same-pixels": ("train", png(face, compress_level=1)),
        "in-test": ("test", png(face)),
        "compressed": ("test", jpeg(face)),
        "smaller": ("valid", png(face.resize((48, 48)))),
        "other": ("train", png(other)),
        "other-again": ("train", png(other)),
        "alone": ("train", png(smooth(3))),
        "black": ("train", png(Image.new("L", (64, 64)))),
        "white": ("test", png(Image.new("L", (64, 64), 255))),
    }
    items = [
        PackItem(key, data, "jpg" if key == "compressed" else "png", {"split": split})
        for key, (split, data) in images.items()
    ]
    pack_samples(items, tmp_path / "set", shard_size=4)
    index = ShardIndex.open(tmp_path / "set")
    report = verify_shards(tmp_path / "set")

    def keys(groups: list[list[int]]) -> set[frozenset[str]]:
        return {frozenset(index.key(i) for i in group) for group in groups}

    same, others = {"original", "same-pixels", "in-test"}, {"other", "other-again"}
    assert keys(report.exact) == {frozenset(same), frozenset(others)}
    assert keys(report.near) == {frozenset(same | {"compressed", "smaller"}), frozenset(others)}
    assert (report.crossing_exact, report.crossing_near) == (1, 1)
    assert report.sound

    write_duplicates(report, tmp_path / "duplicates.csv")
    with (tmp_path / "duplicates.csv").open(newline="") as handle:
        rows = {row["key"]: row for row in csv.DictReader(handle)}
    assert set(rows) == same | others | {"compressed", "smaller"}
    assert {rows[key]["cluster"] for key in same | {"compressed", "smaller"}} != {rows["other"]["cluster"]}
    assert rows["in-test"]["kind"] == "exact"
    assert rows["compressed"]["kind"] == "near"
    assert rows["smaller"]["split"] == "valid"

    exact_only = verify_shards(tmp_path / "set", near=None)
    assert exact_only.near == []
    assert exact_only.as_dict()["near_bits"] is None
    assert len(exact_only.rows) == 5


def test_near_pairs_misses_none_by_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (300, 8), dtype=np.uint8)
    for copy in range(100):
        row = np.unpackbits(hashes[copy])
        row[rng.choice(64, copy % 6, replace=False)] ^= 1
        hashes[200 + copy] = np.packbits(row)
    bits = np.unpackbits(hashes, axis=1).astype(int)
    distance = (bits[:, None] != bits[None]).sum(2)
    expected = {(int(a), int(b)) for a, b in zip(*np.nonzero(distance <= 4), strict=True) if a < b}
    assert len(expected) > 80
    assert set(map(tuple, near_pairs(hashes, 4).tolist())) == expected
    monkeypatch.setattr("facemae.data.duplicates._FLAT_LIMIT", 10)
    assert set(map(tuple, near_pairs(hashes, 4).tolist())) == expected


def test_clusters_join_chains() -> None:
    assert clusters(np.array([[0, 3], [3, 5], [1, 2]]), 7) == [[0, 3, 5], [1, 2]]
    assert clusters(np.zeros((0, 2), dtype=np.int64), 7) == []


def test_missing_index(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no index"):
        verify_shards(tmp_path)


def test_scan_of_a_single_shard_counts_its_samples(shard_set: Path, index: ShardIndex) -> None:
    scan = scan_shard(shard_set, index.shards[0].name)
    assert scan.keys == index.keys(0, 10)


def test_a_set_of_clips_is_spoken_of_as_such(tmp_path: Path) -> None:
    frames = [jpeg(smooth(number, size=16)) for number in range(3)]
    clip = [("a.mjpeg", b"".join(frames)), ("a.json", b"{}"), ("b.mjpeg", b"".join(frames[:2])), ("b.json", b"{}")]
    broken = [("c.mjpeg", frames[0][:-9]), ("c.json", b"{}")]
    (tmp_path / "clips").mkdir()
    write_tar(tmp_path / "clips/000000.tar", clip)
    build_index(tmp_path / "clips")
    lines = verify_shards(tmp_path / "clips").lines()
    assert lines[2:] == [
        "samples that do not decode: 0",
        "exact duplicates: 0 samples in 0 groups; 0 groups cross splits",
        "near-duplicates are not looked for among the 2 clips, which are often alike",
    ]
    (tmp_path / "mixed").mkdir()
    write_tar(tmp_path / "mixed/000000.tar", [*clip, *broken, ("d.jpg", frames[0]), ("d.json", b"{}")])
    build_index(tmp_path / "mixed")
    report = verify_shards(tmp_path / "mixed")
    assert report.as_dict()["clips"] == 2
    lines = report.lines()
    assert lines[2] == "samples that do not decode: 1"
    assert lines[4].startswith("near-duplicates are not looked for among the 2 clips")
    assert lines[5].startswith("near-duplicates of stills (at most 4 of 64 bits differ")
