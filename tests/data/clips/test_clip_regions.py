"""Region maps at packing: cut with the frames, drawn as a template, and what becomes of maps that do not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from facemae.cli import app
from facemae.data.clips.pack import ClipPackReport, pack_videos
from facemae.data.clips.settings import ClipSettings
from facemae.data.material import Material
from facemae.data.pack import pack_folder
from facemae.data.region_template import draw_template
from facemae.data.regions import MEMBER, Region, encode_map, encode_maps
from facemae.data.stats import count_shards
from facemae.data.synthetic import render, sample_params
from facemae.data.synthetic.talking import Film, sample_talk
from facemae.data.synthetic.talking.dataset import make_clips
from facemae.data.synthetic.talking.worker import TalkSettings
from facemae.data.synthetic.worker import encode_jpeg
from facemae.errors import DataError, UsageError
from facemae.faces.crop import cut
from tests.data.clips.films import face, film
from tests.data.clips.test_pack_clips import samples
from tests.data.test_regions import COLOURS

SETTINGS = ClipSettings(size=48, detections=5, regions="files", sound_rate=None)
COUNT = 15


def maps(count: int) -> list[np.ndarray]:
    """Nothing that a face has: a frame is known by where its stripe lies."""
    found = []
    for number in range(count):
        one = np.full((128, 128), Region.SKIN, np.uint8)
        one[:, : 8 * (number % 8) + 30] = Region.HAIR
        one[40:70] = Region.NOSE
        found.append(one)
    return found


def pack(source: Path, out: Path, folder: Path | None = None, **changes: Any) -> ClipPackReport:
    settings = ClipSettings(**{**vars(SETTINGS), **changes})
    return pack_videos(source, out, settings=settings, regions=folder, workers=0)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[ClipPackReport, dict[str, Material]]:
    source = tmp_path_factory.mktemp("mapped") / "videos"
    for name in ("each", "one", "few", "wide", "none"):
        film(source / f"{name}.mp4", [face(0)] * COUNT)
    (source / f"each.{MEMBER}").write_bytes(encode_maps(maps(COUNT)))
    (source / f"one.{MEMBER}").write_bytes(encode_maps(one[::2, ::2] for one in maps(1)))
    (source / f"few.{MEMBER}").write_bytes(encode_maps(maps(COUNT - 1)))
    (source / f"wide.{MEMBER}").write_bytes(encode_maps(one[:64] for one in maps(COUNT)))
    report = pack(source, source.parent / "shards")
    return report, samples(report.out)


def test_maps_are_cut_as_the_frames_are(packed: tuple[ClipPackReport, dict[str, Material]]) -> None:
    sample = packed[1]["each-0-0000"]
    meta = sample.sample.meta
    assert meta["regions"] == {"source": "file"}
    assert meta["clip"]["still"]
    x, y, side = meta["clip"]["box"]
    for number, given in enumerate(maps(COUNT)):
        expected = cut(np.ascontiguousarray(COLOURS[given]), x, y, side, 48)
        found = COLOURS[sample.regions([number])[0]]
        # They differ where the picture's filter mixes two regions.
        assert (np.abs(expected.astype(int) - found).max(axis=-1) > 8).mean() < 0.12
        assert len(np.unique(sample.regions([number]))) == 3


def test_one_map_stands_for_all_frames_whatever_its_resolution(
    packed: tuple[ClipPackReport, dict[str, Material]],
) -> None:
    one, each = packed[1]["one-0-0000"], packed[1]["each-0-0000"]
    np.testing.assert_array_equal(one.regions([0]), one.regions([COUNT - 1]))
    assert (one.regions([0]) != each.regions([0])).mean() < 0.05
    assert one.sample.members[MEMBER].count(b"IEND") == 1


def test_maps_that_do_not_fit_are_left_out_and_named(packed: tuple[ClipPackReport, dict[str, Material]]) -> None:
    report, found = packed
    remarks = dict(report.remarks)
    assert "14 region maps of 15 frames" in remarks["few.mp4"]
    assert "maps of 128 x 64, frames of 128 x 128" in remarks["wide.mp4"]
    assert remarks["none.mp4"] == "no region maps"
    for name in ("few", "wide", "none"):
        assert MEMBER not in found[f"{name}-0-0000"].sample.members
        assert "regions" not in found[f"{name}-0-0000"].sample.meta


def test_a_folder_without_maps_is_refused(tmp_path: Path) -> None:
    film(tmp_path / "videos/a.mp4", [face(0)] * 5)
    with pytest.raises(DataError, match=r"region maps of none of 1 files(?s:.*)a\.region\.png"):
        pack(tmp_path / "videos", tmp_path / "out")
    with pytest.raises(DataError, match="there is no folder"):
        pack(tmp_path / "videos", tmp_path / "out", tmp_path / "nowhere")


def centre(found: np.ndarray, region: Region) -> np.ndarray:
    middle: np.ndarray = np.argwhere(found == region).mean(axis=0) / len(found)
    return middle


def test_a_template_lies_about_where_the_face_is(tmp_path: Path) -> None:
    make_clips(tmp_path / "talk", TalkSettings(count=3, identities=3, size=96, seconds=0.8), workers=1)
    true = samples(pack(tmp_path / "talk", tmp_path / "true").out)
    drawn = samples(pack(tmp_path / "talk", tmp_path / "drawn", regions="template").out)
    assert true.keys() == drawn.keys()
    for key, sample in drawn.items():
        found, expected = sample.regions([3])[0], true[key].regions([3])[0]
        assert sample.sample.meta["regions"] == {"source": "template"}
        np.testing.assert_array_equal(found, draw_template(48, 0.1))
        for region in (Region.LEFT_EYE, Region.RIGHT_EYE, Region.NOSE, Region.LOWER_LIP):
            assert np.abs(centre(found, region) - centre(expected, region)).max() < 0.2, (key, region)
        assert (found == Region.SKIN)[expected == Region.SKIN].mean() > 0.5


def test_talking_faces_have_the_map_of_every_frame(tmp_path: Path) -> None:
    settings = TalkSettings(count=3, identities=3, size=48, seconds=0.8)
    make_clips(tmp_path / "talk", settings, workers=1)
    path, talk = settings.clip(0)
    file = (tmp_path / "talk" / path).with_suffix(f".{MEMBER}")
    assert file.read_bytes() == encode_maps(shot.regions for shot in Film(talk, 48).shots(25))
    # A clip whose maps are gone is drawn again.
    file.unlink()
    assert make_clips(tmp_path / "talk", settings, workers=1).drawn == 1
    assert file.is_file()
    assert sample_talk(0, 0, 0, seconds=0.8).seconds == 0.8


def test_images_take_maps_from_a_folder(tmp_path: Path) -> None:
    for number in range(4):
        picture = render(sample_params(0, number, 0), 32)
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / f"images/{number}.jpg").write_bytes(encode_jpeg(picture.image))
        (tmp_path / "maps").mkdir(exist_ok=True)
        data = encode_map(picture.regions) if number else encode_map(np.full((8, 8), 99, np.uint8))
        if number < 3:
            (tmp_path / f"maps/{number}.{MEMBER}").write_bytes(data)
    report = pack_folder(tmp_path / "images", tmp_path / "out", regions=tmp_path / "maps")
    assert [path for path, _ in report.skipped] == ["0.jpg"]
    assert "holds 99" in report.skipped[0][1]
    assert "1 images have no region map" in report.notes
    # Maps beside the images are no images.
    (tmp_path / f"images/1.{MEMBER}").write_bytes((tmp_path / f"maps/1.{MEMBER}").read_bytes())
    beside = pack_folder(tmp_path / "images", tmp_path / "beside", regions=tmp_path / "images")
    assert (beside.written, count_shards(tmp_path / "beside").regions) == (4, 1)
    found = samples(tmp_path / "out")
    for key in ("1", "2"):
        np.testing.assert_array_equal(found[key].regions([0])[0], render(sample_params(0, int(key), 0), 32).regions)


def test_the_command_knows_maps(tmp_path: Path) -> None:
    film(tmp_path / "videos/a.mp4", [face(0)] * COUNT)
    arguments = ["data", "pack", str(tmp_path / "videos"), "--out", str(tmp_path / "out"), "--regions", "template"]
    assert CliRunner().invoke(app, [*arguments, "--workers", "1"]).exit_code == 0
    (sample,) = samples(tmp_path / "out").values()
    assert sample.regions([0]).shape == (1, 160, 160)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(encode_jpeg(face(0)))
    refused = CliRunner().invoke(
        app, ["data", "pack", str(tmp_path / "images"), "--out", str(tmp_path / "o"), "--regions", "template"]
    )
    assert isinstance(refused.exception, UsageError)
    assert "with a folder of images" in str(refused.exception)
