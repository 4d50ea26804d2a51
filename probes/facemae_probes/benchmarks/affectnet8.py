"""AffectNet with eight expressions, valence and arousal."""

from facemae.data.schema import CropRecipe
from facemae_probes.benchmarks.affectnet_layouts import (
    ACCESS,
    CITATION,
    CLASSES,
    CONSENT,
    LICENCE,
    PROTOCOL,
    VALENCE_AROUSAL,
    WARNINGS,
    layouts,
)
from facemae_probes.benchmarks.base import Benchmark, Published, Target, Version, class_codes, per_class

TRAIN = (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750)
CODES = {**class_codes(CLASSES), "8": None, "9": None, "10": None}
"""8 is none of them, 9 uncertain, 10 no face."""

BENCHMARK = Benchmark(
    name="affectnet8",
    title="AffectNet, 8 classes",
    family="fer",
    targets=(
        Target(
            name="expression",
            kind="classes",
            columns=("expression",),
            classes=CLASSES,
            metric="accuracy",
        ),
        VALENCE_AROUSAL,
    ),
    protocol="official",
    protocol_about=PROTOCOL,
    unit="cluster",
    slices=("crosses_splits=0",),
    versions=(
        Version(
            name="287,651 / 3,999",
            counts={"train": 287651, "test": 3999},
            classes=per_class(CLASSES, train=TRAIN),
            source="counts used by FMAE-IAT; classes of train as counted in public loaders, and they sum to the total",
            about="the usual count of the form with one annotation file an image",
        ),
        Version(
            name="287,651 / 4,000",
            counts={"train": 287651, "test": 4000},
            classes=per_class(CLASSES, train=TRAIN, test=(500,) * 8),
            source="public loaders of the lists training.csv and validation.csv",
        ),
    ),
    licence=LICENCE,
    consent=CONSENT,
    access=ACCESS,
    citation=CITATION,
    published=tuple(
        Published(system=system, value=value, metric="accuracy", protocol=protocol, source=source)
        for system, value, protocol, source in (
            ("FMAE ViT-L", 65.00, "validation list; best epoch on it", "FMAE-IAT repository"),
            ("LA-Net", 64.54, "validation list; choice not stated", "table of the FMAE-IAT paper"),
            ("HSEmotion b2_8_best", 63.125, "validation list; choice not stated", "HSEmotion repository"),
        )
    ),
    layouts=layouts(CODES),
    crop=CropRecipe(detector="owner's", alignment="none", colour="rgb"),
    warnings=WARNINGS,
)
