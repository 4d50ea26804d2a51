import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facemae.errors import DataError, StorageError, UsageError
from facemae.features import writers
from facemae.features.writers import TEXT, Column, feature_columns, open_writer, read_clip_features, read_features

KINDS = [".npz", ".parquet"]
KEYS = ["a", "folder/b.png", "ä ö\n,", "d", "e"]


def rows(count: int, *shape: int) -> np.ndarray:
    return np.arange(count * int(np.prod(shape)), dtype=np.float32).reshape(count, *shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_rows_keys_and_metadata_come_back(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    data = rows(5, *shape)
    meta = {"feature_shape": list(shape), "skipped": [{"key": "x", "reason": "bad ü"}]}
    with open_writer(tmp_path / f"f{kind}", feature_columns(shape)) as writer:
        writer.append({"keys": KEYS[:2], "features": data[:2]})
        writer.append({"keys": KEYS[2:], "features": data[2:]})
        writer.finish(meta)
    found = read_features(tmp_path / f"f{kind}")
    assert found.keys.tolist() == KEYS
    np.testing.assert_array_equal(found.features, data)
    assert found.features.dtype == np.float32
    assert found.meta == meta
    assert [path.name for path in tmp_path.iterdir()] == [f"f{kind}"]


def test_npz_is_plain_numpy(tmp_path: Path) -> None:
    with open_writer(tmp_path / "f.npz", feature_columns((4,))) as writer:
        writer.append({"keys": ["k"], "features": rows(1, 4)})
        writer.finish({"n": 1})
    with np.load(tmp_path / "f.npz", allow_pickle=False) as archive:
        assert sorted(archive.files) == ["features", "keys", "meta"]
        assert archive["features"].shape == (1, 4)
        assert json.loads(str(archive["meta"])) == {"n": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_equal_rows_give_equal_files(tmp_path: Path, kind: str) -> None:
    for name, cut in (("a", 1), ("b", 4)):
        with open_writer(tmp_path / f"{name}{kind}", feature_columns((3,))) as writer:
            writer.append({"keys": KEYS[:cut], "features": rows(5, 3)[:cut]})
            writer.append({"keys": KEYS[cut:], "features": rows(5, 3)[cut:]})
            writer.finish({})
    assert (tmp_path / f"a{kind}").read_bytes() == (tmp_path / f"b{kind}").read_bytes()


def test_parquet_is_written_in_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(writers, "_ROW_GROUP_BYTES", 4 * 3 * 2)
    with open_writer(tmp_path / "f.parquet", feature_columns((3,))) as writer:
        for i in range(5):
            writer.append({"keys": KEYS[i : i + 1], "features": rows(5, 3)[i : i + 1]})
        writer.finish({"feature_shape": [3]})
    assert pq.ParquetFile(tmp_path / "f.parquet").metadata.num_row_groups == 3
    np.testing.assert_array_equal(read_features(tmp_path / "f.parquet").features, rows(5, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_leaves_nothing_and_keeps_the_old_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"f{kind}"
    path.write_bytes(b"old")

    def fail() -> None:
        with open_writer(path, feature_columns((3,))) as writer:
            writer.append({"keys": ["a"], "features": rows(1, 3)})
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zipfile.ZipFile", full)

    def write() -> None:
        with open_writer(tmp_path / "f.npz", feature_columns((3,))) as writer:
            writer.append({"keys": ["a"], "features": rows(1, 3)})
            writer.finish({})

    with pytest.raises(StorageError, match="disk is full"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_wrong_shapes_names_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.csv"), open_writer(tmp_path / "f.csv", feature_columns((3,))):
        pass

    def write() -> None:
        with open_writer(tmp_path / "f.npz", feature_columns((3,))) as writer:
            writer.append({"keys": ["a"], "features": rows(1, 4)})

    with pytest.raises(ValueError, match="expected rows"):
        write()
    for kind in KINDS:
        (tmp_path / f"bad{kind}").write_bytes(b"not it")
        with pytest.raises(DataError, match="not a feature file"):
            read_features(tmp_path / f"bad{kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_several_kinds_come_back(tmp_path: Path, kind: str) -> None:
    columns = {
        "keys": TEXT,
        "clip": TEXT,
        "start": Column("<f8"),
        "real": Column("|b1"),
        "video": Column("<f4", (2, 2)),
    }
    given: dict[str, Any] = {
        "keys": KEYS,
        "clip": ["a", "ü", "", "d", "long name"],
        "start": np.arange(5.0),
        "real": np.array([True, False, True, True, False]),
        "video": np.where(rows(5, 2, 2) > 9, np.nan, rows(5, 2, 2)).astype(np.float32),
    }
    with open_writer(tmp_path / f"f{kind}", columns) as writer:
        for cut in (slice(0, 3), slice(3, 5)):
            writer.append({name: values[cut] for name, values in given.items()})
        writer.finish({"n": 1})
    found = read_clip_features(tmp_path / f"f{kind}")
    assert found.meta == {"n": 1}
    for name, values in given.items():
        np.testing.assert_array_equal(found.columns[name], values)
    with pytest.raises(UsageError, match="features of clips"):
        read_features(tmp_path / f"f{kind}")
    with open_writer(tmp_path / f"g{kind}", feature_columns((3,))) as writer:
        writer.append({"keys": KEYS[:1], "features": rows(1, 3)})
        writer.finish({})
    with pytest.raises(UsageError, match="features of pictures"):
        read_clip_features(tmp_path / f"g{kind}")
