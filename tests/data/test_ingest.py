"""Folders and tables of labels: what is read from them, and what each mistake says."""

import json
from pathlib import Path

import pytest

from facemae.data.ingest.folder import VIDEOS, list_folder
from facemae.data.ingest.labels import read_labels
from facemae.data.metadata import join_tables, metadata_row, metadata_table
from facemae.data.splits import canonical_split
from facemae.errors import DataError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Training", "train"),
        ("VAL", "valid"),
        ("dev", "valid"),
        ("PublicTest", "valid"),
        ("Private_Test", "test"),
        ("holdout", None),
    ],
)
def test_split_names(name: str, expected: str | None) -> None:
    assert canonical_split(name) == expected


def test_missing_label_column_lists_columns_and_nearest(tmp_path: Path) -> None:
    path = table(tmp_path, "path,emotion,valence\na.png,joy,1\n")
    with pytest.raises(DataError, match=r"has no label column 'emotions'") as caught:
        read_labels(path, label_columns=["emotions"])
    assert caught.value.expected == "one of its columns: path, emotion, valence"
    assert caught.value.fix == "did you mean 'emotion'?"
    with pytest.raises(DataError, match="has no subject column 'person'"):
        read_labels(path, subject_column="person")


def test_missing_path_column_lists_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its columns are name, emotion") as caught:
        read_labels(table(tmp_path, "name,emotion\na.png,joy\n"))
    assert "--path-column" in str(caught.value.fix)


def test_only_named_labels_are_kept(tmp_path: Path) -> None:
    path = table(tmp_path, "image;x\n", "other.csv")
    path = table(tmp_path, "image\tjoy\tfear\na.png\t1\t2\n", "labels.tsv")
    assert read_labels(path, label_columns=["fear"]).rows[0].labels == {"fear": 2}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "2", ""], [1, 2, None]),
        (["1", "2.5", "-3e-2"], [1.0, 2.5, -0.03]),
        (["01", "02", "3"], ["01", "02", "3"]),
        (["1", "two", ""], ["1", "two", None]),
        (["nan", "1", "2"], ["nan", "1", "2"]),
    ],
)
def test_numbers_stay_numbers(tmp_path: Path, values: list[str], expected: list[object]) -> None:
    lines = [f"{i}.png,{value}" for i, value in enumerate(values)]
    rows = read_labels(table(tmp_path, "\n".join(["path,x", *lines]))).rows
    assert [row.labels.get("x") for row in rows] == expected
    assert [type(row.labels.get("x")) for row in rows] == [type(value) for value in expected]


def test_unknown_split_lists_what_was_found(tmp_path: Path) -> None:
    path = table(tmp_path, "path,split\na.png,train\nb.png,holdout\nc.png,holdout\n")
    with pytest.raises(DataError, match=r"'holdout' \(2 rows\); found in all: holdout, train") as caught:
        read_labels(path)
    assert "publictest" in str(caught.value.expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,x\na.png,1\na.png,2\n", "lists 1 paths more than once, the first is 'a.png'"),
        ("path,x\na.png\n", "line 2 of .* does not have 2 fields"),
        ("path,x\na.png,1,2\n", "line 2 of .* does not have 2 fields"),
        ("path,x\n,1\n", "a row without a path"),
        ("path,x\n", "lists no images"),
        ("", "lists no images|no column"),
    ],
)
def test_broken_tables(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_labels(table(tmp_path, text))


def test_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"path,x\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="not a readable CSV"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(DataError, match="there is no table of labels"):
        read_labels(tmp_path / "nowhere.csv")


def test_byte_order_mark_and_windows_paths(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    (tmp_path / "labels.csv").write_bytes("\ufeffpath,joy\r\na\\1.png,1\r\n".encode())
    images = list_folder(tmp_path).files
    assert [(image.path, image.labels) for image in images] == [("a/1.png", {"joy": 1})]


def test_split_folders_then_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/joy/1.jpg", "val/fear/2.png", "val/joy/deep/3.webp", ".cache/4.png", "train/joy/notes.txt")
    listing = list_folder(tmp_path)
    found = {image.path: (image.split, image.labels) for image in listing.files}
    assert found == {
        "train/joy/1.jpg": ("train", {"class": "joy"}),
        "val/fear/2.png": ("valid", {"class": "fear"}),
        "val/joy/deep/3.webp": ("valid", {"class": "joy"}),
    }
    assert listing.notes == ["split names read as: val -> valid", "second-level folders are read as the class"]


def test_folders_as_subjects(tmp_path: Path) -> None:
    touch(tmp_path, "n0001/1.jpg", "n0002/2.jpg")
    images = list_folder(tmp_path, folders_are="subject").files
    assert [(image.subject, image.labels) for image in images] == [("n0001", {}), ("n0002", {})]
    images = list_folder(tmp_path, folders_are="nothing").files
    assert [(image.subject, image.labels) for image in images] == [(None, {}), (None, {})]


def test_flat_folder_has_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "sub/2.jpg")
    assert [image.meta() for image in list_folder(tmp_path).files] == [{"path": "1.jpg"}, {"path": "sub/2.jpg"}]


def test_split_folders_beside_others_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "raw/2.jpg")
    with pytest.raises(DataError, match=r"named like splits \(train\) and others \(raw\)"):
        list_folder(tmp_path)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.jpg")
    source = tmp_path / "source"
    source.mkdir()
    (source / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(source)
    assert [image.path for image in list_folder(source).files] == ["train/1.jpg"]


def test_nothing_to_pack(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images to pack") as caught:
        list_folder(tmp_path)
    assert "webp" in str(caught.value.expected)
    touch(tmp_path / "shards", "0.tar")
    with pytest.raises(DataError, match=r"holds no images to pack(.|\n)*packed already: --data .*/shards takes them"):
        list_folder(tmp_path / "shards")
    with pytest.raises(DataError, match="there is no folder"):
        list_folder(tmp_path / "nowhere")
    touch(tmp_path, "a.png")
    table(tmp_path, "path\nfaces/a.png\nfaces/b.png\n")
    with pytest.raises(
        DataError, match=r"none of the 2 images .* it lists faces/a\.png, and there is a\.png"
    ) as caught:
        list_folder(tmp_path)
    assert caught.value.expected == f"paths relative to {tmp_path}"
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="holds no images to pack; none of the 2 listed is there"):
        list_folder(tmp_path)
    (tmp_path / "labels.csv").unlink()
    touch(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"columns were named and .* has no labels\.csv"):
        list_folder(tmp_path, split_column="usage")


@pytest.mark.parametrize(
    "name", ["/etc/a.png", "../a.png", "x/../../a.png", "..", "C:\\faces\\a.png", "\\\\host\\a.png"]
)
def test_a_listed_path_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "faces/b.png", "a.png")
    table(tmp_path / "faces", f"path\nb.png\n{name}\n")
    with pytest.raises(DataError, match="is not inside") as caught:
        list_folder(tmp_path / "faces")
    assert repr(name) in caught.value.found


def test_listed_paths_are_compared_in_one_form(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.png", "sub/b.png")
    path = table(tmp_path, "path\n./sub//a.png\nx/../sub\\b.png\n")
    listing = list_folder(tmp_path)
    assert [image.path for image in listing.files] == ["sub/a.png", "sub/b.png"]
    assert listing.skipped == []
    path.write_text("path\nsub/a.png\n./sub/a.png\n")
    with pytest.raises(DataError, match=r"lists 1 paths more than once, the first is 'sub/a\.png'"):
        list_folder(tmp_path)


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than one column 'emotion'"):
        read_labels(table(tmp_path, "path,emotion,votes, emotion\na.png,joy,1,fear\n"))


def test_a_source_is_no_label_and_joins_the_frames_of_a_video(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png", "3.png")
    table(tmp_path, "path,source,joy\n1.png,party,1\n2.png,party,0\n3.png,,1\n")
    files = list_folder(tmp_path).files
    assert [file.meta().get("source") for file in files] == ["party", "party", None]
    assert [file.labels for file in files] == [{"joy": 1}, {"joy": 0}, {"joy": 1}]
    members = [{"json": json.dumps(file.meta()).encode()} for file in files]
    rows = [metadata_row(str(number), each, tmp_path) for number, each in enumerate(members)]
    assert [row["source"] for row in rows] == ["party", "party", "3.png"]
    named = metadata_table(rows)
    assert named["path"].to_pylist() == ["1.png", "2.png", None]

    old = {"path": "4.png", "labels": {"source": "party"}}
    row = metadata_row("k", {"json": json.dumps(old).encode()}, tmp_path)
    assert (row["source"], row["label_source"], "path" in row) == ("4.png", "party", False)
    joined = join_tables([named, metadata_table([row])])
    assert joined["source"].to_pylist() == ["party", "party", "3.png", "4.png"]


def test_a_folder_of_videos_holds_more_than_the_usual_endings(tmp_path: Path) -> None:
    names = (
        "a.mpg",
        "b.M2TS",
        "c.mts",
        "d.vob",
        "e.ogv",
        "f.asf",
        "g.wmv",
        "h.m2v",
        "i.mxf",
        "j.3g2",
        "k.dv",
        "l.mjpeg",
    )
    touch(tmp_path, *names)
    listing = list_folder(tmp_path, media=VIDEOS)
    assert [file.path for file in listing.files] == sorted(names)
    assert listing.notes == []


def test_files_beside_videos_that_end_otherwise_are_counted_and_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.wav", "a.txt", "face.png", "b.dat", "c.dat", "d.xyz", "no.folder/e", ".hidden.dat")
    listing = list_folder(tmp_path, media=VIDEOS)
    assert [file.path for file in listing.files] == ["a.mp4"]
    (note,) = listing.notes
    assert note.startswith("files with unknown endings are not looked at: 2 .dat, 1 .xyz, 1 without, such as b.dat; ")
    table(tmp_path, "path\na.mp4\nb.dat\n")
    assert [file.path for file in list_folder(tmp_path, media=VIDEOS).files] == ["a.mp4", "b.dat"]


def test_a_folder_of_nothing_but_other_endings_says_so(tmp_path: Path) -> None:
    touch(tmp_path, "a.dat")
    with pytest.raises(DataError, match=r"holds no videos to pack; files with unknown endings .*: 1 \.dat"):
        list_folder(tmp_path, media=VIDEOS)
