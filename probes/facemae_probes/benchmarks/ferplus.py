"""FER+: the images of FER2013 with ten votes each; the majority, or their distribution."""

from facemae_probes.benchmarks import fer_layouts as fer
from facemae_probes.benchmarks.base import Benchmark, Published, Target, Version, per_class
from facemae_probes.benchmarks.ferplus_layouts import LAYOUTS, SHARES
from facemae_probes.benchmarks.votes import CLASSES

BENCHMARK = Benchmark(
    name="ferplus",
    title="FER+",
    family="fer",
    targets=(
        Target(
            name="majority",
            kind="classes",
            columns=("expression",),
            classes=CLASSES,
            metric="accuracy",
        ),
        Target(
            name="distribution",
            kind="distribution",
            columns=SHARES,
            classes=CLASSES,
            metric="cross_entropy",
        ),
    ),
    protocol="official",
    protocol_about="that of FER2013; majority by the authors' rule: single votes dropped, more than half needed",
    unit="cluster",
    slices=("crosses_splits=0",),
    versions=(
        Version(
            name="official",
            counts={"train": 25060, "valid": 3199, "test": 3153},
            classes=per_class(
                CLASSES,
                train=(8740, 7287, 3149, 3014, 2100, 119, 532, 119),
                test=(1090, 893, 396, 384, 273, 18, 83, 16),
            ),
            source="counted in fer2013new.csv by the authors' rule; classes of train in public code, with the same sum",
        ),
        Version(
            name="fer2013plus copy",
            counts={"train": 25045, "valid": 3191, "test": 3137},
            classes=per_class(
                CLASSES,
                train=(8733, 7284, 3136, 3022, 2098, 116, 536, 120),
                valid=(1180, 862, 411, 348, 289, 25, 60, 16),
                test=(1083, 892, 394, 382, 269, 16, 86, 15),
            ),
            digest="c8c5b73ce61d0795ed0fe332029edc3212336cc22058ada5cb033d14189103f6",
            source=fer.COPY_SOURCE,
            about=fer.COPY_ABOUT,
        ),
    ),
    licence="images: none given by the authors of FER2013; votes: MIT",
    consent=fer.CONSENT,
    access=f"votes: fer2013new.csv from github.com/microsoft/FERPlus; images: {fer.ACCESS}",
    citation="Emad Barsoum, Cha Zhang, Cristian Canton Ferrer, Zhengyou Zhang. Training Deep Networks for Facial "
    f"Expression Recognition with Crowd-Sourced Label Distribution. ICMI 2016. Images: {fer.CITATION}",
    published=(
        Published(
            system="HOG and logistic regression",
            value=61.2,
            metric="accuracy",
            protocol="test of the fer2013plus copy; nothing chosen on test",
            source="published with that copy",
        ),
    ),
    layouts=LAYOUTS,
    crop=fer.CROP,
    warnings=fer.WARNINGS,
)
