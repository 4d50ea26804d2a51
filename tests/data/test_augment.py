"""Views: drawn from the sample alone, with torchvision's distribution of crops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from facemae.data.augment import make_clip_view, make_view, planes, random_box
from facemae.data.preprocess import part_box, resize
from facemae.data.schema import WHOLE, MaskSpec, Part, PhotometricSpec, ViewSpec
from facemae.rng import generator

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 48, 3)).astype(np.uint8)
SPEC = ViewSpec("main", 32, 3, mask=MaskSpec("random", (4, 4), 4))


def test_a_view_repeats_and_each_part_of_its_path_changes_it() -> None:
    path = {"seed": 0, "stream": "faces", "epoch": 1, "sample": 7}
    first, visible = make_view(IMAGE, SPEC, **path)  # type: ignore[arg-type]
    again, visible_again = make_view(IMAGE, SPEC, **path)  # type: ignore[arg-type]
    assert first.shape == (3, 32, 32)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert visible is not None
    assert visible_again is not None
    assert visible.tolist() == visible_again.tolist()
    for name, value in {"seed": 1, "stream": "x", "epoch": 2, "sample": 8}.items():
        other, _ = make_view(IMAGE, SPEC, **{**path, name: value})  # type: ignore[arg-type]
        assert not np.array_equal(first, other)


def test_half_of_the_views_are_mirrored() -> None:
    spec = ViewSpec("main", 32, 3, crop="resize")
    plain, mirrored = planes(resize(IMAGE, 32)), planes(resize(IMAGE, 32), mirror=True)
    flips = 0
    for sample in range(400):
        view, visible = make_view(IMAGE, spec, 0, "faces", 0, sample)
        assert visible is None
        flipped = np.array_equal(view, mirrored)
        assert flipped or np.array_equal(view, plain)
        flips += flipped
    assert abs(flips - 200) < 50


def test_flip_off_never_mirrors() -> None:
    spec = ViewSpec("main", 32, 3, crop="resize", flip=False)
    expected = resize(IMAGE, 32).transpose(2, 0, 1)
    for sample in range(20):
        np.testing.assert_array_equal(make_view(IMAGE, spec, 0, "faces", 0, sample)[0], expected)


PART = (0.25, 0.5, 0.75, 1.0)


def test_a_part_is_all_that_a_view_sees() -> None:
    whole = ViewSpec("main", 32, 3, crop="resize", flip=False, part=PART)
    inside = np.ascontiguousarray(IMAGE[30:60, 12:36])
    np.testing.assert_array_equal(make_view(IMAGE, whole, 0, "faces", 0, 1)[0], planes(resize(inside, 32)))
    # Random crops are those of the part alone, drawn alike.
    cropped = ViewSpec("main", 32, 3, part=PART)
    for sample in range(20):
        expected, _ = make_view(inside, replace(cropped, part=(0, 0, 1, 1)), 0, "faces", 0, sample)
        np.testing.assert_array_equal(make_view(IMAGE, cropped, 0, "faces", 0, sample)[0], expected)


def test_the_smallest_part_has_a_pixel() -> None:
    assert part_box((0.0, 0.0, 0.001, 0.001), 48, 60) == (0, 0, 1, 1)
    assert part_box((0.999, 0.999, 1.0, 1.0), 48, 60) == (47, 59, 1, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_planes(channels: int, mirror: bool) -> None:
    image = IMAGE[:, :, :channels]
    expected = (image[:, ::-1] if mirror else image).transpose(2, 0, 1)
    found = planes(np.ascontiguousarray(image), mirror=mirror)
    np.testing.assert_array_equal(found, expected)
    assert found.flags["C_CONTIGUOUS"]


def test_boxes_have_torchvisions_distribution() -> None:
    from torchvision.transforms import RandomResizedCrop

    scale, ratio = (0.2, 1.0), (0.75, 4 / 3)
    rng = generator(0, "boxes")
    ours = np.array([random_box(200, 150, scale, ratio, rng) for _ in range(4000)])
    torch.manual_seed(0)
    image = Image.new("L", (200, 150))
    drawn = [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(4000)]
    theirs = np.array([(left, top, width, height) for top, left, height, width in drawn])
    assert (ours[:, 0] + ours[:, 2]).max() <= 200
    assert (ours[:, 1] + ours[:, 3]).max() <= 150
    assert ours.min() >= 0
    error = ours.std(0) / np.sqrt(4000)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 6 * error).all()
    assert np.allclose(ours.std(0), theirs.std(0), rtol=0.08)


@pytest.mark.parametrize(("width", "height", "expected"), [(300, 10, (143, 0, 13, 10)), (10, 300, (0, 143, 10, 13))])
def test_an_image_too_narrow_for_any_draw_gives_its_centre(
    width: int, height: int, expected: tuple[int, int, int, int]
) -> None:
    assert random_box(width, height, (0.9, 1.0), (0.75, 4 / 3), generator(0)) == expected


def test_several_masks_are_drawn_for_one_crop_and_the_first_is_the_only_one_of_a_view_with_one() -> None:
    assert SPEC.mask is not None
    several = replace(SPEC, mask=replace(SPEC.mask, copies=3))
    for sample in range(10):
        pixels, visible = make_view(IMAGE, SPEC, 0, "faces", 0, sample)
        same, masks = make_view(IMAGE, several, 0, "faces", 0, sample)
        np.testing.assert_array_equal(pixels, same)
        assert visible is not None
        assert masks is not None
        assert masks.shape == (3, 4)
        np.testing.assert_array_equal(masks[0], visible)
        assert len({tuple(mask) for mask in masks.tolist()}) == 3 or sample  # two of them may be equal by chance


@pytest.mark.parametrize("size", [32, 24])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("part", [WHOLE, PART])
@pytest.mark.parametrize("crop", ["resize", "random_resized"])
def test_each_frame_of_a_clip_is_what_a_view_of_it_alone_would_be(
    size: int, channels: int, part: Part, crop: str
) -> None:
    colour = PhotometricSpec(colour=0.8, brightness=(0.5, 1.5), contrast=(0.5, 1.5), blur=0.5, solarise=0.2)
    frames = np.random.default_rng(1).integers(0, 256, (5, 32, 32, channels)).astype(np.uint8)
    for sample, interpolation in enumerate(("bilinear", "bicubic") * 4):
        spec = ViewSpec("main", size, channels, crop=crop, part=part, interpolation=interpolation, photometric=colour)
        out = np.empty((5, channels, size, size), np.uint8)
        assert make_clip_view(frames, spec, 0, "faces", 0, sample, out=out) is None
        for frame, found in zip(frames, out, strict=True):
            np.testing.assert_array_equal(found, make_view(frame, spec, 0, "faces", 0, sample)[0])


def test_copies_of_a_view_differ() -> None:
    made = [make_view(IMAGE, replace(SPEC, name=f"main/{copy}"), 0, "faces", 0, 0) for copy in range(4)]
    assert len({pixels.tobytes() for pixels, _ in made}) == 4
    assert len({visible.tobytes() for _, visible in made if visible is not None}) == 4
