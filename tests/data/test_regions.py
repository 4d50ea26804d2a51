"""Region maps: stored as they are, cropped and mirrored with the pixels, and masks that follow them."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from facemae.config import DataConfig, MaskConfig, StreamConfig
from facemae.config.views import Area
from facemae.data.augment import _draw_place, make_clip_view, make_view, place_regions
from facemae.data.loader import build_loader
from facemae.data.masks import draw_mask
from facemae.data.material import Material
from facemae.data.regions import AREAS, MEMBER, Region, RegionMaps, cut_map, encode_map, encode_maps, mirrored
from facemae.data.schema import Batch, ClipSpec, MaskSpec, Sample, StageSpec, ViewSpec
from facemae.data.stats import count_shards
from facemae.data.synthetic import render, sample_params
from facemae.data.verify import verify_shards
from facemae.errors import ConfigError, DecodeError, UsageError
from facemae.rng import generator
from tests.data.test_loader_clips import LONG, SIDE, clip, write

COLOURS = np.stack([np.arange(17) * 15, 255 - np.arange(17) * 15, np.arange(17) * 53 % 256], axis=1).astype(np.uint8)
"""One colour a region, none near another in all channels."""


def drawn(number: int, size: int = 64) -> np.ndarray:
    return render(sample_params(0, number, 0), size).regions


def maps_of(count: int, size: int = 32) -> np.ndarray:
    return np.stack([drawn(number, size) for number in range(count)])


def test_maps_are_stored_one_behind_another_and_read_singly() -> None:
    maps = maps_of(4)
    found = RegionMaps(encode_maps(maps), name="a")
    assert found.count == 4
    np.testing.assert_array_equal(found.read([3, 0, 0]), maps[[3, 0, 0]])
    # Any reader of pictures sees the first.
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(encode_maps(maps), np.uint8), -1), maps[0])


def _file(values: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", values)[1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"no picture", "no PNG"),
        (encode_map(np.zeros((4, 4), np.uint8))[:-4], "cut off"),
        (_file(np.zeros((4, 4), np.uint8)) + b"more", "no PNG"),
        (_file(np.full((4, 4), 17, np.uint8)), "holds 17"),
        (_file(np.zeros((4, 4, 3), np.uint8)), "no grey PNG of 8 bits"),
        (_file(np.zeros((4, 4), np.uint16)), "no grey PNG of 8 bits"),
        (_file(np.zeros((4, 4), np.uint8)) + _file(np.zeros((4, 5), np.uint8)), "several sizes"),
    ],
)
def test_what_is_no_map_is_damage(data: bytes, message: str) -> None:
    def read() -> None:
        maps = RegionMaps(data, name="a")
        maps.read(range(maps.count))

    with pytest.raises(DecodeError, match=message):
        read()


def test_mirrored_maps_exchange_left_and_right() -> None:
    found = drawn(1)
    turned = mirrored(found)
    for region in Region:
        name = region.name
        other = {"LEFT": "RIGHT", "RIGHT": "LEFT"}.get(name.partition("_")[0])
        swapped = Region[f"{other}_{name.partition('_')[2]}"] if other else region
        np.testing.assert_array_equal(turned == swapped, (found == region)[:, ::-1])
    np.testing.assert_array_equal(mirrored(turned), found)


def test_every_region_belongs_to_one_area_and_recipes_know_all() -> None:
    of_areas = [region for parts in AREAS.values() for part in parts for region in part]
    assert sorted(of_areas) == list(Region)
    assert set(AREAS) == set(Area.__args__)  # type: ignore[attr-defined]


def _colour_error(view: np.ndarray, shown: np.ndarray) -> float:
    """Share of the pixels, away from borders between regions, that do not have the colour of their region."""
    kernel = np.ones((5, 5), np.uint8)
    inside = cv2.erode(shown, kernel) == cv2.dilate(shown, kernel)
    wrong = np.abs(view.transpose(1, 2, 0).astype(int) - COLOURS[shown]).max(axis=-1) > 40
    assert inside.mean() > 0.3
    return float(wrong[inside].mean())


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_maps_are_cropped_and_mirrored_with_the_pixels(size: tuple[int, int]) -> None:
    found = cv2.resize(drawn(2, 96), size[::-1], interpolation=cv2.INTER_NEAREST)
    image = COLOURS[found]
    # The map may have another resolution than the picture; left and right are told apart by the colours of the map.
    small = cv2.resize(found, (size[1] // 2 * 2, size[0] // 2 * 2), interpolation=cv2.INTER_NEAREST)
    spec = ViewSpec("main", 48, 3, scale=(0.3, 1.0))
    sides = set()
    for sample in range(30):
        pixels, _ = make_view(image, spec, 0, "faces", 0, sample)
        place = _draw_place(image, spec, 0, ("main", "faces", 0, sample))
        shown = place_regions(small[None], image.shape[:2], 48, place)[0]
        plain = mirrored(shown) if place[1] else shown
        flipped = pixels[..., ::-1] if place[1] else pixels
        assert _colour_error(flipped, plain) < 0.01
        sides.add(place[1])
    assert sides == {False, True}


def test_a_box_beyond_the_border_repeats_it() -> None:
    found = np.arange(16, dtype=np.uint8).reshape(4, 4)
    cut = cut_map(found, (8, 8), (-4.0, 0.0, 8.0, 8.0), 4)
    np.testing.assert_array_equal(cut[:, :2], found[:, :1].repeat(2, 1))
    np.testing.assert_array_equal(cut[:, 2:], found[:, :2])


def looped(spec: MaskSpec, regions: np.ndarray, seed: tuple[Any, ...]) -> list[int]:
    """The mask, patch after patch: no code of facemae but the generator."""
    rng = generator(*seed)
    names = ["background", "skin", "left_eye", "right_eye", "nose", "mouth", "hair"]
    between = [name for name in names if name not in spec.first + spec.last]
    between = [between[place] for place in rng.permutation(len(between))]
    classes = {
        "background": [{0, 11, 12, 13, 16}], "skin": [{1, 14, 15}], "hair": [{2}], "left_eye": [{3}, {5}],
        "right_eye": [{4}, {6}], "nose": [{7}], "mouth": [{8}, {10}, {9}],
    }  # fmt: skip
    rows, columns = spec.grid
    side = regions.shape[1] // rows
    candidates = []
    for step in range(spec.steps):
        taken: set[int] = set()
        for name in [*spec.first, *between, *spec.last]:
            for values in classes[name]:
                if len(taken) * spec.steps >= spec.keep:
                    continue
                for row in range(rows):
                    for column in range(columns):
                        patch = regions[step, row * side : (row + 1) * side, column * side : (column + 1) * side]
                        if any(int(value) in values for value in patch.ravel()):
                            taken.add(row * columns + column)
        candidates += [step * rows * columns + patch for patch in taken]
    noise = rng.random(spec.steps * rows * columns)
    return sorted(sorted(candidates, key=lambda patch: noise[patch])[: spec.keep])


@pytest.mark.parametrize(
    ("first", "last"), [(("background", "skin"), ()), ((), ("skin", "background")), (("nose", "mouth"), ("hair",))]
)
@pytest.mark.parametrize(("steps", "keep"), [(1, 9), (4, 40), (4, 37), (3, 1), (2, 128)])
def test_masks_by_region_equal_loops(first: tuple[str, ...], last: tuple[str, ...], steps: int, keep: int) -> None:
    spec = MaskSpec("region", (8, 8), keep, steps=steps, first=first, last=last)
    for number in range(6):
        regions = np.stack([drawn(number * 5 + step) for step in range(steps)])
        found = draw_mask(spec, generator(1, "mask", number), regions)
        assert found.dtype == np.int64
        assert found.tolist() == looped(spec, regions, (1, "mask", number))


def test_background_and_skin_are_shown_first() -> None:
    found = drawn(0)
    spec = MaskSpec("region", (8, 8), 20, first=("background", "skin"))
    patches = found.reshape(8, 8, 8, 8)
    plain = [0, 1, 11, 12, 13, 14, 15, 16]
    touching = np.isin(patches, plain).any(axis=(1, 3)).ravel()
    hidden_often = np.zeros(64)
    for number in range(50):
        visible = draw_mask(spec, generator(0, number), found[None])
        assert touching[visible].all()
        hidden_often += ~np.isin(np.arange(64), visible)
    face = np.isin(patches, [5, 6, 7, 8, 9, 10]).all(axis=(1, 3)).ravel()
    assert (hidden_often[face] == 50).all()


def test_a_mask_by_region_without_maps_is_refused() -> None:
    with pytest.raises(UsageError, match="2 steps and none"):
        draw_mask(MaskSpec("region", (4, 4), 4, steps=2), generator(0))


def test_a_part_has_one_place() -> None:
    with pytest.raises(ValueError, match="name skin more than once"):
        MaskConfig(kind="region", first=("skin",), last=("skin",))


MASK = MaskSpec("region", (4, 4), 8, steps=2, first=("background", "skin"))
VIEW = ViewSpec("main", SIDE, 3, clip=ClipSpec(4, 0.16), mask=MASK)
STILL = ViewSpec("still", SIDE, 3, mask=MaskSpec("region", (4, 4), 4, copies=2, first=("skin",)))


def members(number: int, *, maps: int | None = LONG) -> dict[str, bytes]:
    data, facts = clip(LONG)
    found = {"mjpeg": data, "json": json.dumps({"clip": facts, "split": "train"}).encode()}
    if maps is None:
        return found
    # The maps of a clip differ from frame to frame.
    return {**found, MEMBER: encode_maps(np.roll(drawn(number), 2 * k, axis=1) for k in range(maps))}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = {f"clip{number}": members(number, maps=1 if number % 3 == 2 else LONG) for number in range(8)}
    return write(tmp_path_factory.mktemp("regions") / "shards", made)


def load(shards: Path, *views: ViewSpec, **changes: Any) -> list[Batch]:
    data = DataConfig(streams=(StreamConfig(name="faces", shards=str(shards)),), lanes=changes.pop("lanes", 2))
    return list(build_loader(data, views or [VIEW], **{"seed": 0, "batch_size": 4, "stop_step": 4, **changes}))


def visible(batches: list[Batch]) -> list[list[Any]]:
    return [[view.visible.tolist() for view in batch.views.values() if view.visible is not None] for batch in batches]


def test_the_loader_masks_by_the_maps_of_the_very_frames(shards: Path) -> None:
    drawn_anew = set()
    for batch in load(shards, VIEW):
        shown = batch.views["main"].visible
        assert shown is not None
        for place, key in enumerate(batch.keys):
            sample = Material(Sample(key, 0, members(int(key[4:]), maps=1 if int(key[4:]) % 3 == 2 else LONG)))
            frames = batch.views["main"].image[place]
            first = [round(float(frame.float().mean()) / 4) for frame in frames[::2]]
            drawn_anew.add(tuple(shown[place].tolist()))
            # The draws of this slot, with the maps of the frames that the view shows.
            expected = [_drawn_by(("faces", epoch, int(key[4:])), sample, first) for epoch in range(2)]
            assert shown[place].tolist() in expected
    assert len(drawn_anew) > 5


def _drawn_by(path: tuple[str, int, int], sample: Material, frames: list[int]) -> list[int]:
    out = np.empty((4, 3, SIDE, SIDE), np.uint8)
    pixels = np.zeros((4, SIDE, SIDE, 3), np.uint8)
    found = make_clip_view(pixels, VIEW, 0, *path, out=out, regions=sample.regions(frames))
    return [] if found is None else found.tolist()


def test_masks_do_not_depend_on_workers_processes_or_where_a_run_begins(shards: Path) -> None:
    whole = load(shards, VIEW, STILL)
    assert visible(whole) == visible(load(shards, VIEW, STILL, workers=2))
    assert visible(whole[2:]) == visible(load(shards, VIEW, STILL, start_step=2))
    halves = [load(shards, VIEW, STILL, rank=rank, world=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert visible(batch.split(2)) == visible([half[step] for half in halves])


def test_shards_without_maps_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    bare = write(tmp_path / "bare", {f"clip{number}": members(number, maps=None) for number in range(4)})
    later = ViewSpec("later", SIDE, 3, stages=(StageSpec(10, SIDE, MASK),))
    for view in (VIEW, later):
        with pytest.raises(ConfigError, match=r"have no region maps(?s:.*)--regions template"):
            load(bare, view)


def test_a_sample_without_a_map_counts_as_damaged(tmp_path: Path) -> None:
    made = {f"clip{number}": members(number, maps=None if number == 1 else LONG) for number in range(8)}
    replaced = [entry for batch in load(write(tmp_path / "some", made)) for entry in batch.replaced]
    assert {entry.requested for entry in replaced} == {"clip1"}
    assert all("has no region map" in entry.reason and entry.used != "clip1" for entry in replaced)
    # To a view that needs none it is as good as any.
    plain = ViewSpec("main", SIDE, 3, clip=ClipSpec(4, 0.16))
    assert not any(batch.replaced for batch in load(tmp_path / "some", plain))


def test_verify_and_stats_know_maps(tmp_path: Path) -> None:
    made = {"good": members(0), "one": members(1, maps=1), "bare": members(2, maps=None), "few": members(3, maps=7)}
    made["broken"] = {**members(4), MEMBER: encode_map(np.full((8, 8), 30, np.uint8))}
    folder = write(tmp_path / "set", made)
    assert count_shards(folder).regions == 4
    assert "with region maps: 4" in count_shards(folder).lines()
    report = verify_shards(folder)
    assert sorted(problem.where for problem in report.problems) == ["broken", "few"]
    assert "7 region maps of 40 frames" in str(report.as_dict())
    assert torch.is_tensor(load(folder, ViewSpec("main", SIDE, 3), lanes=1, batch_size=2)[0].views["main"].image)
