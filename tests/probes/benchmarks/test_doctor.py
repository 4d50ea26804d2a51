"""The doctor names each thing that is missing or wrong, and ends with 1."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from facemae.data.ingest.labels import normal_path
from facemae.data.pack import pack_folder
from facemae.errors import DataError
from facemae_probes.benchmarks.base import Benchmark, Version
from facemae_probes.benchmarks.counts import compare
from facemae_probes.benchmarks.doctor import Diagnosis, examine
from facemae_probes.benchmarks.packing import pack_benchmark
from facemae_probes.benchmarks.registry import benchmark
from facemae_probes.commands import app
from tests.probes.benchmarks.conftest import (
    MADE,
    TRAIN,
    blob,
    make_affectnet_arrays,
    make_affectnet_lists,
    make_plus_tables,
    make_raf,
    write_image,
)

Know = Callable[..., Benchmark]
LIST = "basic/EmoLabel/list_patition_label.txt"


def told(found: Diagnosis) -> str:
    """All that is wrong, as it is printed."""
    assert not found.sound
    return "\n".join(line for line in found.lines() if line.startswith("wrong"))


@pytest.fixture
def raf(tmp_path: Path, know: Know) -> Path:
    """A made RAF-DB whose counts are those of the only known version."""
    know("raf-db", ("train", "test"))
    make_raf(tmp_path / "raf")
    return tmp_path / "raf"


def test_a_sound_copy_ends_with_0(raf: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "raf-db", "--data", str(raf)])
    assert done.exit_code == 0
    assert "version: made" in done.output
    assert "nothing is wrong" in done.output
    done = CliRunner().invoke(app, ["doctor", "raf-db", "--data", str(raf / "basic"), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["version"] == "made"


def test_a_missing_list_is_named(raf: Path) -> None:
    (raf / LIST).unlink()
    done = CliRunner().invoke(app, ["doctor", "raf-db", "--data", str(raf), "--json"])
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["sound"] is False
    assert found["problems"][0]["examples"] == ["EmoLabel/list_patition_label.txt"]
    assert "wrong (missing): the layout is \"the owner's folder" in told(examine(benchmark("raf-db"), raf))


def test_a_folder_of_something_else_lists_the_layouts(tmp_path: Path) -> None:
    found = examine(benchmark("fer2013"), tmp_path)
    assert "has none of the known layouts of FER2013" in told(found)
    assert "[icml_face_data.csv]" in told(found)
    with pytest.raises(DataError, match="there is no folder") as caught:
        examine(benchmark("fer2013"), tmp_path / "nothing")
    assert "Kaggle" in str(caught.value.fix)


def test_wrong_counts_are_told_by_split_and_class(raf: Path) -> None:
    lines = (raf / LIST).read_text().splitlines()
    (raf / LIST).write_text("\n".join(lines[1:]))
    (raf / "basic/Image/aligned/train_00000_aligned.jpg").unlink()
    text = told(examine(benchmark("raf-db"), raf))
    assert "against the nearest, made" in text
    assert f"train: {7 * TRAIN - 1} samples, expected {7 * TRAIN}" in text
    assert f"train, surprise: {TRAIN - 1} samples, expected {TRAIN}" in text
    assert "fear" not in text


def test_an_unknown_label_is_named(raf: Path) -> None:
    text = (raf / LIST).read_text().replace("train_00000.jpg 1", "train_00000.jpg 8")
    (raf / LIST).write_text(text + "a line\n")
    said = told(examine(benchmark("raf-db"), raf))
    assert "unknown label code '8' (known: 1, 2, 3, 4, 5, 6, 7): Image/aligned/train_00000_aligned.jpg" in said
    assert "unknown split" in said, "'a' is no split"


def test_absent_and_unlisted_images_are_counted(raf: Path) -> None:
    images = sorted((raf / "basic/Image/aligned").glob("train_*"))
    for image in images[:7]:
        image.unlink()
    shutil.copy(images[8], images[8].with_name("stray.jpg"))
    text = told(examine(benchmark("raf-db"), raf))
    assert "images that are listed and not there: Image/aligned/train_00000_aligned.jpg" in text
    assert "and 2 more" in text
    assert "images that are there and not listed: Image/aligned/stray.jpg" in text


def test_unreadable_images_are_found_in_a_sample_or_all(raf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = raf / "basic/Image/aligned/train_00001_aligned.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    monkeypatch.setattr("facemae_probes.benchmarks.doctor.SAMPLED", 2)
    assert examine(benchmark("raf-db"), raf).sound, "only the first and last were decoded"
    found = examine(benchmark("raf-db"), raf, decode_all=True)
    assert "images that do not decode: Image/aligned/train_00001_aligned.jpg (" in told(found)


def test_lines_listed_twice_and_malformed_ones(raf: Path) -> None:
    (raf / LIST).write_text((raf / LIST).read_text() + "train_00000.jpg 1\ntrain_00000.jpg\n")
    text = told(examine(benchmark("raf-db"), raf))
    assert "images are listed more than once: Image/aligned/train_00000_aligned.jpg" in text
    assert "are not `NAME CODE`: line 44: train_00000.jpg" in text


def test_equal_images_in_different_splits_are_a_note(raf: Path) -> None:
    images = raf / "basic/Image/aligned"
    shutil.copy(images / "train_00000_aligned.jpg", images / "test_00030_aligned.jpg")
    done = CliRunner().invoke(app, ["doctor", "raf-db", "--data", str(raf), "--duplicates"])
    assert done.exit_code == 0
    assert "note: 1 groups of equal images in more than one split" in done.output
    shutil.copy(images / "train_00001_aligned.jpg", images / "test_00030_aligned.jpg")
    shutil.copy(images / "train_00002_aligned.jpg", images / "train_00001_aligned.jpg")
    assert "no equal images in different splits" in examine(benchmark("raf-db"), raf, duplicates=True).notes


def test_annotations_that_cannot_be_read(tmp_path: Path) -> None:
    make_affectnet_arrays(tmp_path)
    (tmp_path / "train_set/annotations/3_exp.npy").write_bytes(b"nothing")
    np.save(tmp_path / "train_set/annotations/4_exp.npy", np.array("11"))
    text = told(examine(benchmark("affectnet8"), tmp_path))
    assert "annotation files that cannot be read: train_set/annotations/3_exp.npy" in text
    assert "unknown label code '11' (known: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10): train_set/images/4.jpg" in text


def test_tables_that_do_not_belong_together(tmp_path: Path) -> None:
    make_plus_tables(tmp_path)
    votes = tmp_path / "fer2013new.csv"
    lines = votes.read_text().splitlines()
    votes.write_text("\n".join(lines[:-1]))
    assert "they are joined by row" in told(examine(benchmark("ferplus"), tmp_path))
    votes.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    text = told(examine(benchmark("ferplus"), tmp_path))
    assert "rows whose usage differs between fer2013new.csv and fer2013.csv" in text
    assert "row 0: PrivateTest, Training" in text
    votes.write_text("\n".join([lines[0].replace("fear", "dread"), *lines[1:]]))
    assert "fer2013new.csv has no column fear" in told(examine(benchmark("ferplus"), tmp_path))
    votes.write_text("")
    assert "fer2013new.csv is empty" in told(examine(benchmark("ferplus"), tmp_path))


def test_pixels_that_are_no_face(tmp_path: Path) -> None:
    MADE["fer2013 table"].make(tmp_path)
    path = tmp_path / "fer2013.csv"
    with path.open(newline="") as handle:
        rows = list(csv.reader(handle))
    rows[1][1], rows[2][1], rows[3][0] = "1 2 3", "300 " * 2304, "7"
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    text = told(examine(benchmark("fer2013"), tmp_path))
    assert "rows of fer2013.csv without 2304 pixels in 0 … 255: row 0, row 1" in text
    assert "unknown label code '7'" in text


def test_a_strange_class_folder(tmp_path: Path) -> None:
    MADE["fer2013 folders"].make(tmp_path)
    (tmp_path / "train/sad").rename(tmp_path / "train/sadly")
    text = told(examine(benchmark("fer2013"), tmp_path))
    assert "unknown label code 'sadly' (known: angry, disgust, fear, happy, sad, surprise, neutral)" in text


def test_a_manifest_without_labels_or_splits(tmp_path: Path) -> None:
    MADE["custom"].make(tmp_path)
    path = tmp_path / "manifest.csv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace(",train,", ",,")
    lines[-1] = lines[-1].replace(",c,", ",,")
    path.write_text("\n".join(lines))
    text = told(examine(benchmark("custom"), tmp_path))
    assert "rows of manifest.csv without a split: faces/0.png" in text
    assert "rows of manifest.csv without a value in the column label: faces/17.png" in text
    path.write_text("\n".join([*lines, lines[2]]))
    assert "wrong (unreadable list)" in told(examine(benchmark("custom"), tmp_path))


def test_shards_of_another_benchmark_or_of_none(tmp_path: Path, raf: Path) -> None:
    pack_benchmark(benchmark("raf-db"), raf, tmp_path / "shards", clusters=False)
    text = told(examine(benchmark("fer2013"), tmp_path / "shards"))
    assert "the shards were packed as raf-db, not as fer2013" in text
    pack_folder(raf / "basic/Image", tmp_path / "plain")
    text = told(examine(benchmark("raf-db"), tmp_path / "plain"))
    assert "lack columns that facemae probe pack raf-db makes: expression" in text


def test_labels_in_shards_that_the_benchmark_does_not_know(tmp_path: Path, raf: Path, know: Know) -> None:
    pack_benchmark(benchmark("raf-db"), raf, tmp_path / "shards", clusters=False)
    known = benchmark("raf-db")
    headline = known.headline.model_copy(update={"classes": known.headline.classes[1:]})
    fewer = known.model_copy(update={"targets": (headline,), "versions": ()})
    assert "unknown label code 'surprise' (known: fear, " in told(examine(fewer, tmp_path / "shards"))


def test_the_nearest_version_is_named_and_a_digest_tells_lists_of_equal_counts_apart() -> None:
    one = Version(name="one", counts={"train": 4, "test": 2}, digest="d1", source="s")
    two = Version(name="two", counts={"train": 9, "test": 2}, source="s")
    four: dict[str, dict[str, int]] = {"train": {"a": 4}, "test": {"a": 1, "b": 1}}
    assert compare(four, "d1", (two, one)).exact
    other = compare(four, "d2", (two, one))
    assert (other.version, other.exact) == (one, False)
    assert other.differences == ("counts are those expected, the list is another: digest d2, not d1",)
    more = compare({**four, "valid": {"a": 3}}, "d1", (two, one))
    assert more.differences == ("valid: 3 samples, expected 0",)
    assert compare({"train": {"a": 8}, "test": {"a": 2}}, "x", (one, two)).version == two
    assert compare(four, "d1", ()).version is None


def test_annotations_that_are_missing_or_out_of_range_are_named(tmp_path: Path) -> None:
    make_affectnet_arrays(tmp_path / "arrays")
    notes = tmp_path / "arrays/train_set/annotations"
    (notes / "3_val.npy").unlink()
    (notes / "4_aro.npy").unlink()
    np.save(notes / "5_aro.npy", np.array("7.5"))
    np.save(notes / "6_val.npy", np.array("nan"))
    text = told(examine(benchmark("affectnet8"), tmp_path / "arrays"))
    assert "wrong (missing annotation): images without an annotation file of valence: train_set/images/3.jpg" in text
    assert "images without an annotation file of arousal: train_set/images/4.jpg" in text
    assert "wrong (out of range): valence or arousal outside of -1 … 1, where -2 alone means none" in text
    assert "train_set/images/5.jpg, arousal 7.5" in text
    assert "train_set/images/6.jpg, valence nan" in text
    with pytest.raises(DataError, match="images without an annotation file of valence"):
        pack_benchmark(benchmark("affectnet8"), tmp_path / "arrays", tmp_path / "shards")
    # Of images that the benchmark leaves out, nothing is asked.
    for number in (3, 4, 5, 6):
        np.save(notes / f"{number}_exp.npy", np.array("9"))
    assert "valence" not in told(examine(benchmark("affectnet8"), tmp_path / "arrays"))
    make_affectnet_lists(tmp_path / "lists")
    path = tmp_path / "lists/Manually_Annotated_file_lists/training.csv"
    first, second, third, *rest = path.read_text().splitlines()
    wrong = [second.replace(",0.25,-0.5", ",0.25,-1.5"), third.replace(",10,6,", ",inf,6,")]
    path.write_text("\n".join([first, *wrong, *rest]))
    text = told(examine(benchmark("affectnet8"), tmp_path / "lists"))
    assert "0/0000.png, arousal -1.5" in text
    assert "lines of training.csv with a number that is none: line 3" in text


def test_shards_that_lack_the_columns_of_a_further_target(tmp_path: Path, know: Know) -> None:
    know("affectnet8", ("train", "test"))
    make_affectnet_arrays(tmp_path / "data")
    for file in (tmp_path / "data").glob("*/annotations/*_aro.npy"):
        np.save(file, np.array("-2"))
    pack_benchmark(benchmark("affectnet8"), tmp_path / "data", tmp_path / "shards", clusters=False)
    found = examine(benchmark("affectnet8"), tmp_path / "shards")
    assert "lack columns that facemae probe pack affectnet8 makes: arousal" in told(found)
    assert found.version == "made", "the headline is judged all the same"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY\x01\x00", b"nothing"])
def test_no_annotation_file_stops_the_doctor(tmp_path: Path, content: bytes) -> None:
    make_affectnet_arrays(tmp_path)
    (tmp_path / "train_set/annotations/3_aro.npy").write_bytes(content)
    text = told(examine(benchmark("affectnet8"), tmp_path))
    assert "annotation files that cannot be read: train_set/annotations/3_aro.npy: " in text


def test_a_list_in_another_encoding_is_named(raf: Path) -> None:
    (raf / LIST).write_bytes((raf / LIST).read_bytes() + "é.jpg 1\n".encode("latin-1"))
    text = told(examine(benchmark("raf-db"), raf))
    assert "wrong (unreadable list): list_patition_label.txt is not a readable text" in text
    assert "UTF-8" in text


def test_images_outside_of_the_named_folder_are_not_read(tmp_path: Path, raf: Path) -> None:
    write_image(tmp_path / "secret.png", blob(0, 0))
    root = tmp_path / "custom"
    MADE["custom"].make(root)
    path, absolute = root / "manifest.csv", str(tmp_path / "secret.png")
    plain = path.read_text()
    for outside in ("../secret.png", "faces/../../secret.png", "..\\secret.png", absolute):
        path.write_text(plain.replace("faces/0.png", outside))
        text = told(examine(benchmark("custom"), root))
        assert "wrong (outside path): images are listed that are not inside the named folder: " in text
        assert normal_path(outside) in text
        with pytest.raises(DataError, match="are not inside the named folder"):
            pack_benchmark(benchmark("custom"), root, tmp_path / "shards")
    path.write_text(plain.replace("faces/0.png", "faces/../faces/./0.png"))
    assert examine(benchmark("custom"), root).sound
    write_image(raf.parent / "train_out_aligned.jpg", blob(0, 0))
    (raf / LIST).write_text((raf / LIST).read_text() + "../../../../train_out.jpg 1\n")
    assert "(outside path)" in told(examine(benchmark("raf-db"), raf))


def test_what_is_missing_is_that_of_the_layout_that_is_nearest(tmp_path: Path) -> None:
    MADE["fer2013 folders"].make(tmp_path)
    (tmp_path / "train/angry").rename(tmp_path / "train/Anger2")
    text = told(examine(benchmark("fer2013"), tmp_path))
    assert "the layout is 'folders train/CLASS and test/CLASS'" in text
    assert text.endswith(": train/angry")
