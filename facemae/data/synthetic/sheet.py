"""Pictures to look at: a contact sheet of faces with their region maps and what they show."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from facemae.data.regions import Region
from facemae.data.synthetic.action_units import ACTION_UNITS, EXPRESSIONS, Action
from facemae.data.synthetic.canvas import Pixels
from facemae.data.synthetic.draw import render
from facemae.data.synthetic.params import sample_params
from facemae.data.synthetic.scene import Scene
from facemae.data.synthetic.worker import encode_png
from facemae.files import atomic_write

_REGION_COLOURS = np.array(
    [
        (24, 24, 28),
        (222, 184, 150),
        (92, 64, 46),
        (140, 190, 110),
        (90, 150, 80),
        (100, 160, 220),
        (70, 120, 190),
        (236, 150, 90),
        (214, 70, 90),
        (240, 110, 130),
        (110, 20, 40),
        (200, 140, 180),
        (180, 140, 110),
        (90, 90, 130),
        (60, 44, 34),
        (150, 150, 60),
        (240, 240, 240),
    ],
    dtype=np.uint8,
)
assert len(_REGION_COLOURS) == len(Region)


def colour_regions(regions: npt.NDArray[np.uint8]) -> Pixels:
    """A region map [H, W] as a picture [H, W, 3]."""
    return np.asarray(_REGION_COLOURS[regions])


def tile(pictures: list[list[Pixels]], captions: list[list[str]]) -> Pixels:
    """Rows of equal pictures as one, each with its caption below."""
    side = pictures[0][0].shape[0]
    rows = []
    for row, texts in zip(pictures, captions, strict=True):
        line: Pixels = np.full((side + 16, side * len(row), 3), 255, np.uint8)
        for place, (picture, text) in enumerate(zip(row, texts, strict=True)):
            line[:side, place * side : (place + 1) * side] = picture
            where = (place * side + 3, side + 12)
            cv2.putText(line, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (30, 30, 30), 1, cv2.LINE_AA)
        rows.append(line)
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows])


def contact_sheet(seed: int, count: int, identities: int, size: int = 112) -> Pixels:
    """Faces as the data set holds them, two rows of region maps, every expression and every action unit at full.

    Args:
        seed: Seed of the data set.
        count: Faces in it.
        identities: Persons in it.
        size: Side of one face on the sheet.
    """
    columns = 10
    numbers = [(k % identities, k // identities % max(1, count // identities)) for k in range(4 * columns)]
    drawn = [render(sample_params(seed, *number), size) for number in numbers]
    faces = [face.image for face in drawn]
    names = [str(face.labels["expression"]) for face in drawn]
    pictures = [faces[k : k + columns] for k in range(0, 4 * columns, columns)]
    captions = [names[k : k + columns] for k in range(0, 4 * columns, columns)]
    pictures.append([colour_regions(face.regions) for face in drawn[3 * columns :]])
    captions.append(["region map"] * columns)
    for person in range(2):
        pictures.append([_posed(seed, person, _prototype(name), size) for name in EXPRESSIONS])
        captions.append(list(EXPRESSIONS))
    units = list(ACTION_UNITS)
    for start in range(0, len(units), columns):
        part = units[start : start + columns]
        pictures.append([_posed(seed, 2, Action.of({unit: 1.0}), size) for unit in part])
        captions.append([f"AU{unit} {ACTION_UNITS[unit]}"[:18] for unit in part])
    return tile(pictures, captions)


def _prototype(expression: str) -> Action:
    units = dict.fromkeys(EXPRESSIONS[expression], 0.9)
    return Action(expression, units, {}) if expression == "contempt" else Action.of(units, expression)


def _posed(seed: int, identity: int, action: Action, size: int) -> Pixels:
    """A face seen from the front in even light."""
    return render(replace(sample_params(seed, identity, 0), action=action, scene=Scene()), size).image


def write_sheet(path: Path, *, seed: int, count: int, identities: int) -> None:
    """Write `contact_sheet` as PNG."""
    with atomic_write(path) as handle:
        handle.write(encode_png(contact_sheet(seed, count, identities)))
