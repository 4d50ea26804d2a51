"""FER2013: seven expressions, 48-pixel grey faces from the web."""

from facemae_probes.benchmarks import fer_layouts as fer
from facemae_probes.benchmarks.base import Benchmark, Target, Version, per_class

TRAIN = (3995, 436, 4097, 7215, 4830, 3171, 4965)
PUBLIC, PRIVATE = (467, 56, 496, 895, 653, 415, 607), (491, 55, 528, 879, 594, 416, 626)
BOTH = tuple(map(sum, zip(PUBLIC, PRIVATE, strict=True)))

BENCHMARK = Benchmark(
    name="fer2013",
    title="FER2013",
    family="fer",
    targets=(
        Target(
            name="expression",
            kind="classes",
            columns=("expression",),
            classes=fer.CLASSES,
            metric="accuracy",
        ),
    ),
    protocol="official",
    protocol_about="Training is train, PublicTest valid, PrivateTest test",
    unit="cluster",
    slices=("crosses_splits=0",),
    versions=(
        Version(
            name="official",
            counts={"train": 28709, "valid": 3589, "test": 3589},
            classes=per_class(fer.CLASSES, train=TRAIN, valid=PUBLIC, test=PRIVATE),
            source="totals as published; classes as counted in public loaders, and they sum to the published totals",
        ),
        Version(
            name="folders train and test",
            counts={"train": 28709, "test": 7178},
            classes=per_class(fer.CLASSES, train=TRAIN, test=BOTH),
            source="public loaders of the folder form",
            about="test joins PublicTest and PrivateTest: numbers do not compare with those on PrivateTest",
        ),
        Version(
            name="fer2013plus copy",
            counts=fer.COPY_COUNTS,
            classes=per_class(
                fer.CLASSES,
                train=(3986, 439, 4099, 7187, 4780, 3140, 4927),
                valid=(467, 56, 495, 891, 652, 414, 604),
                test=(489, 55, 529, 876, 587, 413, 624),
            ),
            digest="7c874f3543ee1bdef087a7db0f6fda91fd1c130cd4eb9c754a9ddc649ecb6191",
            source=fer.COPY_SOURCE,
            about=fer.COPY_ABOUT,
        ),
    ),
    licence="none given by the authors",
    consent=fer.CONSENT,
    access=fer.ACCESS,
    citation=fer.CITATION,
    layouts=(*fer.TABLES, fer.COPY, fer.CLASS_FOLDERS),
    crop=fer.CROP,
    warnings=fer.WARNINGS,
)
