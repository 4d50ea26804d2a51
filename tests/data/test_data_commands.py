"""`facemae data …` as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from facemae.data.commands import app
from facemae.data.index import ShardIndex
from facemae.errors import DataError, StorageError

runner = CliRunner()


@pytest.fixture
def source(tmp_path: Path, encode: Any) -> Path:
    for i in range(6):
        path = tmp_path / "faces" / ("train", "test")[i % 2] / ("joy", "fear")[i // 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(i) if i else b"")
    return tmp_path / "faces"


def run(*arguments: object) -> Any:
    return runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_from_folder_to_erasure(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    result = run("pack", source, "--out", out)
    assert result.exit_code == 0
    assert "5 samples in 1 shards" in result.stdout
    assert "train/joy/0.png: the file is empty (0 bytes)" in result.stdout
    assert ShardIndex.open(out).find("test_fear_5") is not None

    packed = json.loads(run("pack", source, "--out", out, "--overwrite", "--json").stdout)
    assert packed["written"] == 5
    assert json.loads(run("index", out, "--json").stdout)["digest"] == packed["digest"]

    counted = json.loads(run("stats", out, "--json").stdout)
    assert counted["labels"] == {"class": {"fear": 3, "joy": 2}}
    assert (out / "contact-sheet.png").exists()

    verified = run("verify", out, "--json")
    assert verified.exit_code == 0
    assert json.loads(verified.stdout)["sound"] is True

    assert "would be erased" in run("drop", out, "--key", "test_fear_5", "--dry-run").stdout
    dropped = json.loads(run("drop", out, "--key", "test_fear_5", "--json").stdout)
    assert dropped["erased"] == ["test_fear_5"]
    assert "erased: 1" in run("stats", out, "--images", "0").stdout


def test_dry_run_writes_nothing(source: Path, tmp_path: Path) -> None:
    result = run("pack", source, "--out", tmp_path / "set", "--dry-run")
    assert "6 images would be packed" in result.stdout
    assert not (tmp_path / "set").exists()


def test_dry_run_answers_a_script_in_json(source: Path, tmp_path: Path) -> None:
    result = run("pack", source, "--out", tmp_path / "set", "--dry-run", "--json")
    assert json.loads(result.stdout)["would_pack"] == 6
    assert not (tmp_path / "set").exists()


def test_counts_come_also_where_no_sheet_can_be_written(shard_set: Path) -> None:
    (shard_set / "contact-sheet.png").mkdir()
    result = run("stats", shard_set)
    assert result.exit_code == 0
    assert "40 samples in 4 shards" in result.stdout
    assert "choose a place for it with --sheet" in result.stderr
    with pytest.raises(StorageError):
        run("stats", shard_set, "--sheet", shard_set / "contact-sheet.png")


def test_damage_gives_exit_code_1(shard_set: Path, index: ShardIndex, tmp_path: Path) -> None:
    path = shard_set / index.shards[0].name
    data = bytearray(path.read_bytes())
    data[index.members(0)["png"].offset] ^= 1
    path.write_bytes(data)
    result = run("verify", shard_set, "--out", tmp_path / "duplicates.csv", "--near", "-1")
    assert result.exit_code == 1
    assert "checksum errors: 2" in result.stdout
    assert f"checksum: {index.key(0)}:" in result.stdout
    assert (tmp_path / "duplicates.csv").read_text().startswith("key,cluster,kind")


def test_columns_by_name(tmp_path: Path, encode: Any) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    (folder / "a.png").write_bytes(encode(1))
    (tmp_path / "table.csv").write_text("pic,who,usage,x,y\na.png,p1,Training,1,2\n")
    columns = ["--path-column", "pic", "--split-column", "usage", "--subject-column", "who", "--label-columns", "y"]
    result = run("pack", folder, "--out", tmp_path / "set", "--labels", tmp_path / "table.csv", *columns)
    assert "split names read as: Training -> train" in result.stdout
    with pytest.raises(DataError, match="no label column 'z'"):
        run("pack", folder, "--out", tmp_path / "b", "--labels", tmp_path / "table.csv", *columns[:-1], "z")
    index = ShardIndex.open(tmp_path / "set")
    assert list(index.subjects) == ["p1"]
    assert index.splits == ("train",)


@pytest.mark.parametrize("command", ["pack", "index", "verify", "stats", "drop", "synth"])
def test_help_has_an_example(command: str) -> None:
    assert "Example: facemae data " + command in run(command, "--help").stdout


def test_the_command_module_is_light() -> None:
    heavy = ("torch", "numpy", "pyarrow", "cv2", "pydantic")
    code = f"import sys, facemae.data.commands; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (("a.png",), ["--people", "all"], "--people with a folder of images"),
        (("a.mp4",), ["--resize", "64"], "--resize with a folder of videos"),
        (("a.mp4", "b.png"), [], "holds images and videos"),
        (("a.mp4",), ["--dry-run", "--detector", "default:x"], "takes no path"),
        (("a.mp4",), ["--dry-run", "--sound", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    tmp_path: Path, files: tuple[str, ...], options: list[str], message: str
) -> None:
    for name in files:
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source" / name).write_bytes(b"x")
    done = CliRunner().invoke(app, ["pack", str(tmp_path / "source"), "--out", str(tmp_path / "out"), *options])
    assert done.exit_code != 0
    assert message in str(done.exception)


def test_a_table_decides_between_images_and_a_stray_video(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "making_of.mp4").write_bytes(b"x")
    (tmp_path / "labels.csv").write_text("path,mood\na.png,good\n")
    done = CliRunner().invoke(app, ["pack", str(tmp_path), "--out", str(tmp_path.parent / "packed"), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "1 images would be packed" in done.stdout
