"""RAF-DB, single-label subset: seven basic expressions of faces from the web."""

from pathlib import Path

from facemae.data.schema import CropRecipe
from facemae_probes.benchmarks.base import Benchmark, Layout, Published, Target, Version, class_codes, per_class
from facemae_probes.benchmarks.listing import Listing, text_lines

CLASSES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
LIST, IMAGES = "EmoLabel/list_patition_label.txt", "Image/aligned"


def _read(root: Path) -> Listing:
    """Lines `train_00001.jpg 5`; the aligned image of it is `train_00001_aligned.jpg`."""
    listing = Listing(class_codes(CLASSES, first=1), folders=(IMAGES,))
    for number, line in text_lines(root / LIST):
        name, _, code = line.partition(" ")
        if not code.strip():
            listing.problem("malformed line", f"lines of {LIST} are not `NAME CODE`", f"line {number}: {line}")
            continue
        stem = name.rpartition(".")[0] or name
        listing.add(f"{IMAGES}/{stem}_aligned.jpg", stem.partition("_")[0], code.strip())
    return listing


BENCHMARK = Benchmark(
    name="raf-db",
    title="RAF-DB (basic)",
    family="fer",
    targets=(
        Target(
            name="expression",
            kind="classes",
            columns=("expression",),
            classes=CLASSES,
            metric="accuracy",
        ),
    ),
    protocol="official",
    unit="cluster",
    slices=("crosses_splits=0",),
    versions=(
        Version(
            name="official",
            counts={"train": 12271, "test": 3068},
            classes=per_class(
                CLASSES,
                train=(1290, 281, 717, 4772, 1982, 705, 2524),
                test=(329, 74, 160, 1185, 478, 162, 680),
            ),
            source="totals as published; classes as counted in public loaders, and they sum to the totals",
        ),
    ),
    licence="non-commercial research only, on the owner's terms",
    consent="unknown; images were collected from the web",
    access="ask the owner (W. Deng, Beijing University of Posts and Telecommunications) from an academic address; "
    "unpack `basic`, the single-label subset, with EmoLabel and Image/aligned",
    citation="Shan Li, Weihong Deng, JunPing Du. Reliable Crowdsourcing and Deep Locality-Preserving Learning for "
    "Expression Recognition in the Wild. CVPR 2017.",
    published=tuple(
        Published(system=system, value=value, metric="accuracy", protocol=protocol, source=source)
        for system, value, protocol, source in (
            ("FMAE ViT-L", 93.09, "official test; best epoch on test", "FMAE-IAT repository"),
            ("LA-Net", 91.78, "official test; choice not stated", "table of the FMAE-IAT paper"),
        )
    ),
    layouts=(
        Layout(
            name="the owner's folder `basic`: EmoLabel and Image/aligned",
            needs=(LIST, IMAGES),
            roots=(".", "basic"),
            read=_read,
            sources=("github.com/zczcwh/POSTER, data_preprocessing/dataset_raf.py", "github.com/yaoing/DAN, rafdb.py"),
        ),
    ),
    crop=CropRecipe(detector="owner's", margin="unknown", alignment="owner's (Image/aligned)", colour="rgb"),
    warnings=("RAF-DB names no subjects: near-duplicate images are the units, and one person may be in several",),
)
