"""A tiny set in the layout of FER+, and what makes a recipe tiny enough for it."""

import csv
from pathlib import Path

from PIL import Image

from facemae.rng import generator

TINY = (
    "encoder.patch_size=12",
    "objectives.0.decoder.width=16",
    "objectives.0.decoder.depth=1",
    "objectives.0.decoder.heads=2",
    "optim.batch_size=8",
    "optim.total=32 samples",
    "optim.ema=null",
    "checkpoint.every=16 samples",
    "log.every_steps=1",
    "log.loggers=[]",
    "log.keys=true",
    "efficiency.workers=0",
    "efficiency.threads=1",
)
"""Overrides of `fmae_tiny`."""


def write_ferplus(folder: Path) -> Path:
    """72 images in the layout of the set: two classes, told apart by brightness; some duplicates across splits."""
    rows = []
    for i in range(72):
        split = ("train", "train", "train", "valid", "test", "test")[i % 6]
        happy = int(generator(3, "study", i).integers(2))
        pixels = generator(3, "pixels", i).integers(0, 128, size=(48, 48)).astype("uint8") + 100 * happy
        name = f"{split}/f{i:03d}.png"
        (folder / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype("uint8")).save(folder / name)
        rows.append(
            {
                "file": name,
                "split": split,
                "ferplus_majority": ("neutral", "happiness")[happy],
                "ferplus8_valid": int(i % 11 != 0),
                "pixel_md5": f"m{i}",
                "dup_in_other_split": int(i % 7 == 0),
            }
        )
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder
