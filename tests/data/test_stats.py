"""Counting a shard set and drawing a contact sheet of it."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from facemae.data.index import build_index
from facemae.data.stats import contact_sheet, count_shards


def test_counts(shard_set: Path) -> None:
    report = count_shards(shard_set)
    assert (report.samples, report.shards, report.subjects, report.shared_subjects) == (40, 4, 8, 0)
    assert report.splits == {"train": 35, "test": 5}
    assert report.labels["emotion"] == {"joy": 20, "fear": 20}
    assert report.labels["votes"] == {"0": 14, "1": 13, "2": 13}
    assert report.sizes == {"width": (20, 20, 20), "height": (16, 16, 16)}
    json.dumps(report.as_dict())
    assert "subjects: 8, in more than one split: 0" in report.lines()


def test_labels_with_many_values_are_summarised(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for i in range(100):
            meta = {
                "labels": {
                    "valence": i / 99,
                    "name": f"n{i}",
                    "intensity": i % 20 / 10,
                    "half": i % 2 / 2,
                    "level": i % 20 * 1.0,
                },
                "subject": f"s{i % 3}",
                "split": ("train", "test")[i % 2],
            }
            data = json.dumps(meta).encode()
            header = tarfile.TarInfo(f"{i}.json")
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    build_index(tmp_path)
    report = count_shards(tmp_path)
    assert report.labels["valence"] == {"values": 100, "least": 0.0, "mean": 0.5, "greatest": 1.0}
    assert report.labels["name"] == {"values": 100}
    assert report.labels["intensity"] == {"values": 20, "least": 0.0, "mean": 0.95, "greatest": 1.9}
    assert report.labels["half"] == {"0.0": 50, "0.5": 50}
    assert len(report.labels["level"]) == 20
    assert (report.subjects, report.shared_subjects) == (3, 3)
    assert report.sizes == {}


def test_sizes_of_foreign_shards_come_from_the_headers(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for i in range(3):
            buffer = io.BytesIO()
            Image.new("RGB", (10 + i, 20)).save(buffer, "jpeg")
            header = tarfile.TarInfo(f"{i}.jpg")
            header.size = buffer.tell()
            tar.addfile(header, io.BytesIO(buffer.getvalue()))
    build_index(tmp_path)
    report = count_shards(tmp_path)
    assert report.sizes == {"width": (10, 11, 12), "height": (20, 20, 20)}
    assert report.measured == 3


def test_contact_sheet_is_a_picture_and_depends_on_the_seed_alone(shard_set: Path, tmp_path: Path) -> None:
    first = contact_sheet(shard_set, tmp_path / "1.png", images=9).read_bytes()
    assert contact_sheet(shard_set, tmp_path / "2.png", images=9).read_bytes() == first
    assert contact_sheet(shard_set, tmp_path / "3.png", images=9, seed=1).read_bytes() != first
    with Image.open(tmp_path / "1.png") as sheet:
        assert sheet.size == (304, 340)
        # Each of the nine tiles shows something.
        for place in range(9):
            left, top = 4 + place % 3 * 100, 4 + place // 3 * 112
            tile = np.asarray(sheet.crop((left, top, left + 96, top + 96)).convert("L")).astype(int)
            assert tile.max() - tile.min() > 50
