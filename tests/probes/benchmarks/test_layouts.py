"""Made data in each owner's layout: doctor, pack, probe, report."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from facemae.data.card import read_card
from facemae.data.index import ShardIndex
from facemae.data.reader import ShardReader
from facemae.errors import DataError, DecodeError
from facemae_probes.benchmarks.base import Benchmark
from facemae_probes.benchmarks.clusters import crossing, near_duplicates
from facemae_probes.benchmarks.doctor import examine
from facemae_probes.benchmarks.packed import packed_listing
from facemae_probes.benchmarks.packing import cut_face, pack_benchmark
from facemae_probes.benchmarks.registry import benchmark
from facemae_probes.commands import app
from facemae_probes.tasks.columns import read_columns
from facemae_probes.tasks.task import make_task
from tests.probes.benchmarks.conftest import MADE, OTHER, TRAIN, blob, make_raf, write_image, write_table

Know = Callable[..., Benchmark]


@pytest.mark.parametrize("case", MADE)
def test_doctor_and_pack_read_every_layout(case: str, tmp_path: Path, know: Know) -> None:
    made = MADE[case]
    known = know(made.name, made.splits, twice=made.twice)
    made.make(tmp_path / "data")

    found = examine(known, tmp_path / "data", decode_all=True)
    assert found.problems == []
    assert found.layout == known.layouts[made.layout].name
    assert found.decoded >= sum(sum(per.values()) for per in found.counts.values())
    assert list(found.counts) == list(made.splits)
    if known.versions:
        assert found.version == "made"
        assert list(found.counts["train"]) == list(known.headline.classes)

    report = pack_benchmark(known, tmp_path / "data", tmp_path / "shards")
    assert report.skipped == []
    packed = examine(known, tmp_path / "shards", decode_all=True)
    assert packed.problems == []
    assert packed.layout == "packed shards"
    assert (packed.counts, packed.digest, packed.version) == (found.counts, found.digest, found.version)
    card = read_card(tmp_path / "shards")
    assert (card.name, card.licence) == (known.name, known.licence)
    assert card.packed["layout"] == found.layout


@pytest.mark.parametrize("case", ["raf-db", "affectnet8 lists", "affectnet7 arrays", "fer2013 table", "ferplus tables"])
def test_probe_by_name_from_pack_to_report(case: str, tmp_path: Path, know: Know) -> None:
    made = MADE[case]
    known = know(made.name, made.splits)
    made.make(tmp_path / "data")
    runner = CliRunner()

    def call(*arguments: str) -> str:
        done = runner.invoke(app, [*arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    call("pack", made.name, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "shards"))
    call("doctor", made.name, "--data", str(tmp_path / "shards"))
    out = tmp_path / "out"
    shown = call(
        "run", made.name, "--data", str(tmp_path / "shards"), "--model", "pixels", "--probe", "knn", "--out", str(out)
    )
    assert known.title in shown
    data = json.loads((out / "result.json").read_text())
    assert data["task"]["classes"] == list(known.headline.classes)
    assert data["task"]["unit"] == "cluster"
    assert data["benchmark"]["name"] == made.name
    assert data["benchmark"]["version"] == "made"
    assert data["benchmark"]["target"] == known.headline.name
    assert set(known.warnings) <= set(data["warnings"])
    test = data["results"]["knn"]["test"]
    assert test["count"] == OTHER * len(known.headline.classes)
    assert list(test["recall"]) == list(known.headline.classes)
    assert data["results"]["knn"]["slices"]["crosses_splits=0"]["count"] == test["count"]
    assert known.title in call("report", str(out))


def test_a_manifest_is_probed_by_name(tmp_path: Path) -> None:
    MADE["custom"].make(tmp_path / "data")
    runner = CliRunner()
    shards, out = str(tmp_path / "shards"), tmp_path / "out"
    done = runner.invoke(app, ["pack", "custom", "--data", str(tmp_path / "data"), "--out", shards, "--json"])
    assert json.loads(done.stdout)["written"] == 3 * (TRAIN + OTHER)
    options = ["--model", "pixels", "--probe", "knn", "--slice", "glasses=1"]
    done = runner.invoke(app, ["run", "custom", *options, "--data", shards, "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    data = json.loads((out / "result.json").read_text())
    assert (data["task"]["classes"], data["task"]["unit"]) == (["a", "b", "c"], "subject")
    assert data["results"]["knn"]["slices"]["glasses=1"]["count"] == 3


def test_sources_of_a_manifest_are_units_and_files_keep_their_names(tmp_path: Path) -> None:
    MADE["custom"].make(tmp_path / "data")
    table = tmp_path / "data" / "manifest.csv"
    head, *rows = table.read_text().splitlines()
    rows = [f"{row},v{number // 3}" for number, row in enumerate(rows)]
    table.write_text("\n".join([f"{head.replace('subject', 'person')},source", *rows]) + "\n")
    known = benchmark("custom")
    pack_benchmark(known, tmp_path / "data", tmp_path / "shards")
    columns = read_columns(tmp_path / "shards")
    assert set(columns.text("source")) == {f"v{number // 3}" for number in range(len(rows))}
    listed = packed_listing(known, columns)
    assert not listed.problems
    assert {row.path for row in listed.rows} == {row.split(",")[0] for row in rows}
    assert make_task(columns, "label").unit == "source"


def test_a_manifest_that_names_neither_persons_nor_sources_gets_clusters(tmp_path: Path) -> None:
    rows = []
    for number in range(24):
        write_image(tmp_path / f"data/faces/{number}.png", blob(number % 6, number % 3))
        rows.append([f"faces/{number}.png", "train" if number < 12 else "test", "abc"[number % 3]])
    write_table(tmp_path / "data/manifest.csv", ["path", "split", "label"], rows)
    pack_benchmark(benchmark("custom"), tmp_path / "data", tmp_path / "shards")
    columns = read_columns(tmp_path / "shards")
    task = make_task(columns, "label")
    # Six pictures, each there four times and in both parts.
    assert (task.unit, len(np.unique(task.units))) == ("cluster", 6)
    assert set(columns.text("crosses_splits")) == {"1"}
    pack_benchmark(benchmark("custom"), tmp_path / "data", tmp_path / "plain", clusters=False)
    assert make_task(read_columns(tmp_path / "plain"), "label").unit == "sample"


def _labels(shards: Path) -> dict[str, dict[str, Any]]:
    values = read_columns(shards).values
    names = list(values)
    return {
        row[names.index("source")]: dict(zip(names, row, strict=True)) for row in zip(*values.values(), strict=True)
    }


def test_valence_and_arousal_are_packed_where_they_were_given(tmp_path: Path) -> None:
    MADE["affectnet8 arrays"].make(tmp_path / "data")
    pack_benchmark(benchmark("affectnet8"), tmp_path / "data", tmp_path / "shards", clusters=False)
    rows = _labels(tmp_path / "shards")
    row = rows["train_set/images/2.jpg"]
    assert (row["expression"], row["valence"]) == ("sadness", pytest.approx(-0.1))
    assert row["arousal"] is None, "-2 stands for none"
    assert rows["train_set/images/3.jpg"]["arousal"] == pytest.approx(0.5)


def test_seven_classes_leave_contempt_out(tmp_path: Path) -> None:
    MADE["affectnet7 arrays"].make(tmp_path / "data")
    found = examine(benchmark("affectnet7"), tmp_path / "data")
    assert "contempt" not in found.counts["train"]
    assert f"left out, label 7 is no class of this benchmark: {TRAIN + OTHER}" in found.notes


def test_faces_are_cut_out_of_larger_images(tmp_path: Path) -> None:
    MADE["affectnet8 lists"].make(tmp_path / "data")
    pack_benchmark(benchmark("affectnet8"), tmp_path / "data", tmp_path / "shards", clusters=False)
    index = ShardIndex.open(tmp_path / "shards")
    position = index.find("Manually_Annotated_Images_2_0005")
    assert position is not None
    sample = ShardReader(index).read(position)
    pixels = np.array(Image.open(io.BytesIO(sample.members["png"])))
    np.testing.assert_array_equal(pixels, blob(5, 5))
    crop = read_card(tmp_path / "shards").crop
    assert (crop.detector, crop.size) == ("owner's boxes", 48)


def test_a_face_box_outside_of_the_image_is_named() -> None:
    buffer = io.BytesIO()
    Image.fromarray(blob(0, 0)).save(buffer, "png")
    inside = np.array(Image.open(io.BytesIO(cut_face(buffer.getvalue(), (-4, 40, 20, 20), "a.png"))))
    assert inside.shape == (8, 16, 3)
    with pytest.raises(DecodeError, match=r"a\.png: the face box \(50, 0, 5, 5\) holds nothing .* 48x48 pixels"):
        cut_face(buffer.getvalue(), (50, 0, 5, 5), "a.png")


def test_votes_are_joined_to_pixels_by_row_and_kept(tmp_path: Path) -> None:
    MADE["ferplus tables"].make(tmp_path / "data")
    pack_benchmark(benchmark("ferplus"), tmp_path / "data", tmp_path / "shards", clusters=False)
    rows = _labels(tmp_path / "shards")
    assert "fer0000003.png" in rows
    # The row after the one that is no face keeps its own pixels.
    index = ShardIndex.open(tmp_path / "shards")
    position = index.find("fer0000004")
    assert position is not None
    pixels = np.array(Image.open(io.BytesIO(ShardReader(index).read(position).members["png"])))
    np.testing.assert_array_equal(pixels, blob(4, 4, channels=1))
    row = rows["fer0000004.png"]
    assert (row["expression"], row["votes_anger"], row["votes_disgust"]) == ("anger", 8, 2)
    assert row["share_anger"] == 1.0


def test_near_duplicates_across_splits_are_one_unit_and_a_slice(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make_raf(root)
    images = root / "basic/Image/aligned"
    twin = next(images.glob("train_*"))
    other = next(images.glob("test_*"))
    lighter = np.clip(np.array(Image.open(twin)).astype(int) + 3, 0, 255).astype(np.uint8)
    write_image(other, lighter)
    pack_benchmark(benchmark("raf-db"), root, tmp_path / "shards")
    rows = _labels(tmp_path / "shards")
    pair = [rows[path.relative_to(root / "basic").as_posix()] for path in (twin, other)]
    assert pair[0]["cluster"] == pair[1]["cluster"]
    assert [row["crosses_splits"] for row in pair] == [1, 1]
    assert sum(row["crosses_splits"] for row in rows.values()) == 2
    assert len({row["cluster"] for row in rows.values()}) == len(rows) - 1


def test_clusters_of_images() -> None:
    def png(pixels: np.ndarray) -> Callable[[], bytes]:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "png")
        return buffer.getvalue

    def missing() -> bytes:
        raise FileNotFoundError

    first, second = blob(1, 1), blob(2, 2)
    found = near_duplicates(
        [png(second), png(first), missing, png(first), lambda: b"no image", png(second[:, :, :1].repeat(3, 2))]
    )
    assert found.tolist() == [0, 1, 2, 1, 4, 0]
    crosses = crossing(found, ["test", "train", "train", "train", "test", "valid"])
    assert crosses.tolist() == [True, False, False, False, False, True]
    assert near_duplicates([]).tolist() == []


def test_what_is_listed_and_not_there_is_left_out_and_named(tmp_path: Path) -> None:
    make_raf(tmp_path / "data")
    gone = next((tmp_path / "data/basic/Image/aligned").glob("train_*"))
    gone.unlink()
    report = pack_benchmark(benchmark("raf-db"), tmp_path / "data", tmp_path / "shards", resize=24)
    assert report.skipped == [(f"Image/aligned/{gone.name}", "listed and not there")]
    assert any("counts of no known version, see facemae probe doctor raf-db" in note for note in report.notes)
    card = read_card(tmp_path / "shards")
    assert (card.crop.size, card.packed["resize"], card.packed["version"]) == (24, "24", "none known")


def test_packing_stops_at_what_the_doctor_would_name(tmp_path: Path) -> None:
    known = benchmark("raf-db")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="none of its layouts") as caught:
        pack_benchmark(known, tmp_path / "empty", tmp_path / "shards")
    assert "facemae probe doctor raf-db" in str(caught.value)
    assert "EmoLabel/list_patition_label.txt" in str(caught.value)
    make_raf(tmp_path / "data")
    lists = tmp_path / "data/basic/EmoLabel/list_patition_label.txt"
    lists.write_text(lists.read_text() + "train_99999.jpg 9\n")
    with pytest.raises(DataError, match=r"unknown label code '9' \(known: 1, 2, 3, 4, 5, 6, 7\)"):
        pack_benchmark(known, tmp_path / "data", tmp_path / "shards")
    lists.write_text("")
    with pytest.raises(DataError, match=r"lists no images of RAF-DB \(basic\)"):
        pack_benchmark(known, tmp_path / "data", tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
