"""AffectNet with seven expressions: contempt is left out. Valence and arousal as in affectnet8."""

from facemae.data.schema import CropRecipe
from facemae_probes.benchmarks.affectnet8 import CODES, TRAIN
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
from facemae_probes.benchmarks.base import Benchmark, Published, Target, Version, per_class

SEVEN = CLASSES[:7]

BENCHMARK = Benchmark(
    name="affectnet7",
    title="AffectNet, 7 classes",
    family="fer",
    targets=(
        Target(
            name="expression",
            kind="classes",
            columns=("expression",),
            classes=SEVEN,
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
            name="283,901 / 3,500",
            counts={"train": 283901, "test": 3500},
            classes=per_class(SEVEN, train=TRAIN[:7], test=(500,) * 7),
            source="classes as counted in public loaders; affectnet8 without its 3,750 images of contempt",
            about="some published test lists are shorter: that of S4D has 3,267 images",
        ),
    ),
    licence=LICENCE,
    consent=CONSENT,
    access=ACCESS,
    citation=CITATION,
    published=tuple(
        Published(system=system, value=value, metric="accuracy", protocol=protocol, source=source)
        for system, value, protocol, source in (
            ("HSEmotion b2_8_best", 66.51, "validation list; choice not stated", "HSEmotion repository"),
            ("HSEmotion b2_7", 66.34, "validation list; choice not stated", "HSEmotion repository"),
        )
    ),
    layouts=layouts({**CODES, "7": None}),
    crop=CropRecipe(detector="owner's", alignment="none", colour="rgb"),
    warnings=WARNINGS,
)
