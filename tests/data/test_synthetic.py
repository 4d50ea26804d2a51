"""Procedural faces: determinism, geometry of action units, labels, region maps, packing."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from facemae.data.decode import decode_image
from facemae.data.index import ShardIndex
from facemae.data.reader import ShardReader
from facemae.data.select import metadata
from facemae.data.synthetic import (
    ACTION_UNITS,
    EXPRESSIONS,
    PRESENT,
    Action,
    FaceParams,
    Light,
    Pose,
    Region,
    Scene,
    render,
    sample_params,
)
from facemae.data.synthetic.dataset import make_dataset, subject_splits
from facemae.data.synthetic.scene import BACKGROUNDS, OCCLUSIONS
from facemae.data.synthetic.sheet import contact_sheet
from facemae.data.synthetic.worker import image_split
from facemae.errors import DataError, UsageError

SIZE = 96


def plain(identity: int = 0, action: Action | None = None, scene: Scene | None = None) -> FaceParams:
    """A face without hair, beard and glasses in the way, from the front."""
    params = sample_params(3, identity, 0)
    bare = replace(params.identity, hair_style="bald", beard="none", glasses="none", freckles=0, mole=None, age=0.0)
    return replace(params, identity=bare, action=action or Action(), scene=scene or Scene())


def test_the_same_numbers_give_the_same_bytes() -> None:
    first, again = (render(sample_params(0, 5, 2), 64) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.regions.tobytes() == again.regions.tobytes()
    assert first.labels == again.labels


@pytest.mark.parametrize("other", [(1, 5, 2), (0, 6, 2), (0, 5, 3)])
def test_seed_identity_and_sample_each_change_the_picture(other: tuple[int, int, int]) -> None:
    assert not np.array_equal(render(sample_params(0, 5, 2)).image, render(sample_params(*other)).image)


def test_identity_stays_over_samples() -> None:
    assert sample_params(0, 5, 2).identity == sample_params(0, 5, 9).identity
    assert sample_params(0, 5, 2).identity != sample_params(0, 6, 2).identity


def test_drawing_leaves_no_trace_for_the_next_face() -> None:
    alone = render(sample_params(0, 1, 1)).image
    render(sample_params(0, 2, 1))
    assert np.array_equal(alone, render(sample_params(0, 1, 1)).image)


@pytest.mark.parametrize("size", [32, 48, 64, 112, 224])
def test_sizes_and_types(size: int) -> None:
    picture = render(sample_params(0, 3, 3), size)
    assert picture.image.shape == (size, size, 3)
    assert picture.regions.shape == (size, size)
    assert picture.image.dtype == picture.regions.dtype == np.uint8


UPPER = {1, 2, 4, 5, 43}
CHEEKS = {6, 7, 9}
EYES_AND_BROWS = (Region.LEFT_BROW, Region.RIGHT_BROW, Region.LEFT_EYE, Region.RIGHT_EYE)


@pytest.mark.parametrize("unit", ACTION_UNITS)
def test_an_action_unit_moves_its_part_of_the_face(unit: int) -> None:
    """Change lies where the anatomy says: brows and lids above the nose's middle, lips and chin below."""
    rest = render(plain(), SIZE)
    moved = render(plain(action=Action.of({unit: 1.0})), SIZE)
    change = np.abs(moved.image.astype(float) - rest.image.astype(float)).sum(axis=2)
    assert change.sum() > 500
    rows = np.flatnonzero((rest.regions == Region.NOSE).any(axis=1))
    middle = (rows[0] + rows[-1]) // 2
    above = change[:middle].sum() / change.sum()
    if unit in UPPER:
        assert above > 0.95
    elif unit in CHEEKS:
        assert above > 0.4
    else:
        assert above < 0.1


def _rows(picture: np.ndarray, region: Region) -> np.ndarray:
    return np.flatnonzero((picture == region).any(axis=1))


def _area(units: dict[int, float], *regions: Region) -> int:
    return int(np.isin(render(plain(action=Action.of(units)), SIZE).regions, regions).sum())


def test_lids() -> None:
    eyes = (Region.LEFT_EYE, Region.RIGHT_EYE)
    rest = _area({}, *eyes)
    assert _area({5: 1.0}, *eyes) > rest > _area({7: 1.0}, *eyes) > _area({43: 1.0}, *eyes)


def test_lips() -> None:
    lips = (Region.UPPER_LIP, Region.LOWER_LIP)
    assert _area({24: 1.0}, *lips) < _area({}, *lips)
    assert _area({}, Region.MOUTH) == 0
    assert 0 < _area({25: 1.0}, Region.MOUTH) < _area({26: 1.0}, Region.MOUTH)


def _corner_height(action: Action, *, left: bool) -> float:
    """Mean row of the lips' outermost columns, downwards."""
    regions = render(plain(action=action), SIZE).regions
    rows, columns = np.nonzero(np.isin(regions, (Region.UPPER_LIP, Region.LOWER_LIP)))
    edge = columns.max() - 1 if left else columns.min() + 1
    return float(rows[columns >= edge].mean() if left else rows[columns <= edge].mean())


@pytest.mark.parametrize("left", [True, False])
def test_mouth_corners_rise_and_fall(left: bool) -> None:
    rest = _corner_height(Action(), left=left)
    assert _corner_height(Action.of({12: 1.0}), left=left) < rest - 1
    assert _corner_height(Action.of({15: 1.0}), left=left) > rest + 1


def test_a_one_sided_unit_leaves_the_other_side_alone() -> None:
    action = Action("contempt", {12: 1.0}, {})
    assert _corner_height(action, left=True) < _corner_height(Action(), left=True) - 1
    assert _corner_height(action, left=False) == pytest.approx(_corner_height(Action(), left=False), abs=1)


def test_intensity_is_a_matter_of_degree() -> None:
    rest = render(plain(), SIZE).image.astype(float)
    change = [
        np.abs(render(plain(action=Action.of({12: level})), SIZE).image - rest).sum() for level in (0.0, 0.3, 0.6, 1.0)
    ]
    assert change[0] == 0
    assert change == sorted(change)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_is_its_action_units(expression: str) -> None:
    for sample in range(30):
        params = sample_params(0, 4, sample, expression=expression)
        labels = params.labels()
        assert labels["expression"] == expression
        for unit in EXPRESSIONS[expression]:
            assert labels[f"AU{unit:02d}"] == 1


def test_contempt_is_one_sided() -> None:
    sides = set()
    for sample in range(20):
        action = sample_params(0, 1, sample, expression="contempt").action
        assert (12 in action.left) != (12 in action.right)
        sides.add(12 in action.left)
    assert sides == {True, False}


def test_other_units_act_too_so_that_none_gives_the_expression_away() -> None:
    smiles = [sample_params(0, i, 1, expression="neutral").action.level(12) > 0 for i in range(150)]
    assert 0.02 < np.mean(smiles) < 0.2


def test_labels_are_complete_and_can_be_written() -> None:
    labels = render(sample_params(0, 7, 7)).labels
    for unit in ACTION_UNITS:
        intensity = labels[f"intensity_AU{unit:02d}"]
        assert isinstance(intensity, float)
        assert 0 <= intensity <= 1
        assert labels[f"AU{unit:02d}"] == int(intensity >= PRESENT)
    assert {"expression", "yaw", "pitch", "roll", "light", "occlusion", "glasses", "beard", "hair"} <= set(labels)
    assert json.loads(json.dumps(labels)) == labels


def test_a_region_map_holds_the_parts_of_a_face() -> None:
    away = Scene(pose=Pose(scale=0.32))
    found = set(np.unique(render(plain(action=Action.of({26: 0.8}), scene=away), SIZE).regions).tolist())
    parts = set(Region) - {Region.HAIR, Region.BEARD, Region.GLASSES, Region.OCCLUDER}
    assert parts <= found


def test_left_is_the_subjects_left() -> None:
    regions = render(plain(), SIZE).regions
    left, right = (np.nonzero(regions == side)[1].mean() for side in (Region.LEFT_EYE, Region.RIGHT_EYE))
    assert left > SIZE / 2 > right


@pytest.mark.parametrize("kind", [k for k in OCCLUSIONS if k != "none"])
def test_an_occlusion_hides_part_of_the_face(kind: str) -> None:
    scene = Scene(occlusion=kind)
    clear, hidden = render(plain(), SIZE), render(plain(scene=scene), SIZE)
    covered = hidden.regions == Region.OCCLUDER
    assert covered.mean() > 0.02
    assert hidden.labels["occlusion"] == kind
    assert np.abs(hidden.image.astype(float) - clear.image)[covered].mean() > 10
    assert np.abs(hidden.image.astype(float) - clear.image)[~covered].mean() < 3


def test_yaw_moves_the_nose_and_roll_tilts_the_eyes() -> None:
    def nose(yaw: float) -> float:
        return float(np.nonzero(render(plain(scene=Scene(pose=Pose(yaw=yaw))), SIZE).regions == Region.NOSE)[1].mean())

    assert nose(-25) < nose(0) - 5 < nose(0) + 5 < nose(25)
    tilted = render(plain(scene=Scene(pose=Pose(roll=15))), SIZE).regions
    left, right = (_rows(tilted, side).mean() for side in (Region.LEFT_EYE, Region.RIGHT_EYE))
    assert left > right + 3


def test_light_falls_from_where_the_label_says() -> None:
    for azimuth, name in ((-70.0, "left"), (70.0, "right")):
        scene = Scene(light=Light(azimuth=azimuth, elevation=10, strength=0.7))
        picture = render(plain(scene=scene), SIZE)
        skin = picture.regions == Region.SKIN
        half = np.arange(SIZE) < SIZE // 2
        left = picture.image[skin & half].mean()
        right = picture.image[skin & ~half].mean()
        assert (left > right) == (name == "left")
        assert picture.labels["light"] == name


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_backgrounds_stay_behind_the_person(kind: str) -> None:
    flat, other = (render(plain(scene=Scene(background=b)), SIZE) for b in ("gradient", kind))
    assert np.array_equal(flat.regions, other.regions)
    inside = cv2.erode((flat.regions == Region.SKIN).astype(np.uint8), np.ones((3, 3))) > 0
    assert np.array_equal(flat.image[inside], other.image[inside])


def test_splits_share_no_person_and_persons_have_images_on_both_sides() -> None:
    splits = subject_splits(0, 40)
    assert {name: splits.count(name) for name in ("train", "valid", "test")} == {"train": 28, "valid": 4, "test": 8}
    dealt = [image_split(0, 3, sample) for sample in range(20)]
    assert (dealt.count("train"), dealt.count("valid"), dealt.count("test")) == (14, 2, 4)
    with pytest.raises(UsageError, match="2 identities"):
        subject_splits(0, 2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "faces"
    make_dataset(out, count=60, identities=6, size=48, workers=1, shard_size=25)
    return out


def test_a_packed_sample_has_picture_region_map_and_labels(shards: Path) -> None:
    index = ShardIndex.open(shards)
    reader = ShardReader(index)
    assert len(index) == 60
    assert len(index.shards) == 3
    for i in range(0, 60, 7):
        sample = reader.read(i)
        identity, number = int(sample.key[2:7]), int(sample.key[8:])
        drawn = render(sample_params(0, identity, number), 48)
        assert np.array_equal(decode_image(sample.members["region.png"], channels=1, name="r")[..., 0], drawn.regions)
        image = decode_image(sample.members["jpg"], channels=3, name="i").astype(float)
        assert np.abs(image - drawn.image).mean() < 8
        assert sample.meta["labels"]["expression"] == drawn.labels["expression"]
        assert sample.meta["subject"] == f"id{identity:05d}"


def test_a_packed_set_keeps_persons_apart(shards: Path) -> None:
    table = metadata(ShardIndex.open(shards)).to_pydict()
    by_subject: dict[str, set[str]] = {}
    for subject, split in zip(table["subject"], table["split"], strict=True):
        by_subject.setdefault(subject, set()).add(split)
    assert len(by_subject) == 6
    assert all(len(splits) == 1 for splits in by_subject.values())
    for split, second in zip(table["split"], table["identity_split"], strict=True):
        assert (second is not None) == (split == "train")


def test_the_number_of_workers_changes_nothing(shards: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "two", count=60, identities=6, size=48, workers=2, shard_size=25)
    assert ShardIndex.open(tmp_path / "two").digest == ShardIndex.open(shards).digest


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="5 faces of 10 identities"):
        make_dataset(tmp_path / "a", count=5, identities=10)
    with pytest.raises(UsageError, match="size 63"):
        make_dataset(tmp_path / "b", count=10, identities=5, size=63)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="not a shard set"):
        make_dataset(tmp_path / "mine", count=6, identities=3, size=32, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_contact_sheet_shows_something() -> None:
    sheet = contact_sheet(0, 100, 10, size=48)
    assert sheet.ndim == 3
    assert sheet.std() > 30


def test_the_command(tmp_path: Path) -> None:
    import typer

    from facemae.data.synth_command import register

    app = typer.Typer()
    register(app)
    arguments = [str(tmp_path / "faces"), "--count", "12", "--identities", "4", "--size", "32", "--workers", "1"]
    result = CliRunner().invoke(app, [*arguments, "--sheet", str(tmp_path / "sheet.png"), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["written"] == 12
    assert report["digest"] == ShardIndex.open(tmp_path / "faces").digest
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
