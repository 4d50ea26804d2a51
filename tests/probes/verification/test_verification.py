"""Verification: LFW's list is read as it is, nothing is chosen on a tested fold, and intervals name their unit."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve
from typer.testing import CliRunner

from facemae.data.ingest.keys import make_keys
from facemae.data.pack import PackItem, pack_samples
from facemae.data.schema import CropRecipe, DatasetCard, ModelInput
from facemae.errors import ProbeError
from facemae.features.extractor import FeatureExtractor
from facemae.rng import generator
from facemae_probes.commands import app
from facemae_probes.features.sources import EncoderSource, Features, PixelSource, Setting, pixel_input
from facemae_probes.tasks.columns import read_columns
from facemae_probes.verification import read_pairs, verify
from facemae_probes.verification.judging import (
    Answers,
    Units,
    accuracy,
    area,
    best_threshold,
    measures,
    true_accepts,
)
from facemae_probes.verification.pairs import find_samples, persons_in_several_folds

FOLDS, EACH, PERSONS, SIDE = 4, 6, 6, 16
"""Persons are those of a fold."""


def name_of(fold: int, person: int) -> str:
    return f"Person_{'ABCD'[fold]}{person}"


def face(fold: int, person: int, number: int) -> bytes:
    """A texture of the person under noise of the image."""
    own = generator(3, "person", fold, person).integers(60, 180, (SIDE, SIDE))
    noise = generator(3, "image", fold, person, number).integers(0, 60, (SIDE, SIDE))
    buffer = io.BytesIO()
    Image.fromarray((own + noise).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def lfw_list() -> str:
    lines = [f"{FOLDS}\t{EACH}"]
    for fold in range(FOLDS):
        lines += [f"{name_of(fold, person)}\t1\t{2 + person % 2}" for person in range(EACH)]
        lines += [
            f"{name_of(fold, person)}\t1\t{name_of(fold, (person + 1) % PERSONS)}\t{1 + person % 3}"
            for person in range(EACH)
        ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A shard set as packed from LFW's folder, and its list."""
    folder = tmp_path_factory.mktemp("lfw")
    paths, faces = [], []
    for fold in range(FOLDS):
        for person in range(PERSONS):
            for number in (1, 2, 3):
                name = name_of(fold, person)
                paths.append(f"{name}/{name}_{number:04d}.jpg")
                faces.append((face(fold, person, number), {"subject": name}))
    items = [PackItem(key, data, "png", meta) for key, (data, meta) in zip(make_keys(paths), faces, strict=True)]
    card = DatasetCard(name="made", crop=CropRecipe(detector="none", size=SIDE, colour="grey"))
    pack_samples(items, folder / "shards", shard_size=30, card=card)
    (folder / "pairs.txt").write_text(lfw_list())
    return folder / "shards", folder / "pairs.txt"


# --- lists ---------------------------------------------------------------------------------------------------------


def test_the_list_of_lfw(lfw: tuple[Path, Path]) -> None:
    pairs = read_pairs(lfw[1])
    assert (len(pairs), int(pairs.same.sum()), pairs.fold_names) == (48, 24, ("1", "2", "3", "4"))
    assert [pairs.images[i] for i in pairs.rows[0]] == ["Person_A0_0001", "Person_A0_0002"]
    assert [pairs.images[i] for i in pairs.rows[EACH]] == ["Person_A0_0001", "Person_A1_0001"]
    assert pairs.persons[pairs.rows[EACH][1]] == "Person_A1"
    assert pairs.folds.tolist() == sorted(pairs.folds.tolist())
    assert not persons_in_several_folds(pairs, pairs.persons)


@pytest.mark.parametrize("above", ["", "lfw/", "lfw_funneled/"])
def test_images_are_found_under_the_keys_packing_gives_them(lfw: tuple[Path, Path], above: str) -> None:
    pairs = read_pairs(lfw[1])
    files = [f"{above}{person}/{image}.jpg" for person, image in zip(pairs.persons, pairs.images, strict=True)]
    keys = ["unrelated", *make_keys(files)]
    assert find_samples(pairs, keys).tolist() == list(range(1, len(keys)))
    assert find_samples(pairs, list(pairs.images)).tolist() == list(range(len(pairs.images)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("300\nA 1 2\n", "does not begin with two numbers but with '300'"),
        ("2\t1\nA\t1\t2\nA\t1\tB\t1\nA\t1\t2\n", "has 3 pairs"),
        ("2 1\nA 1 2\nA 1 B\nC 1 2\nC 1 D 1\n", "line 3: 'A 1 B'"),
        ("2 1\nA 1 x\nA 1 B 1\nC 1 2\nC 1 D 1\n", "line 2: 'A 1 x'"),
        ("2 1\nA 1 1\nA 1 B 1\nC 1 2\nC 1 D 1\n", "line 2: A_0001 twice"),
        ("1 1\nA 1 2\nA 1 B 1\n", "has 1 folds"),
    ],
)
def test_what_is_wrong_with_a_list_of_lfw_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(ProbeError) as caught:
        read_pairs(tmp_path / "pairs.txt")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first,second,same\na,b,1\n", "has no column fold"),
        ("first,second,same,fold\na,b,maybe,1\n", "line 2: a,b,maybe,1"),
        ("first,second,same,fold\na,b,1,1\na,c,0,1\na,d,1,2\n", "fold 2 of"),
        (
            "first,second,same,fold\na,b,1,1\na,c,0,1\nd,e,1,2\nc,a,0,2\n",
            "line 5: the pair c, a of fold 2 is in fold 1 too (line 3)",
        ),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(ProbeError) as caught:
        read_pairs(tmp_path / "pairs.csv")
    assert message in str(caught.value)


def test_missing_images_are_named(lfw: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(lfw_list().replace("Person_B2", "Nobody"))
    with pytest.raises(ProbeError, match=r"of \d+ images in pairs\.txt are not in the shard set, such as Nobody_0001"):
        verify(lfw[0], PixelSource(pixel_input(lfw[0])), tmp_path / "pairs.txt")


# --- numbers -------------------------------------------------------------------------------------------------------


def test_the_threshold_has_the_most_right_answers_and_lies_in_the_middle() -> None:
    similarities = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    assert best_threshold(similarities, np.array([0, 0, 0, 1, 1, 1], dtype=bool)) == pytest.approx((0.5, 1.0))
    assert best_threshold(similarities, np.ones(6, dtype=bool)) == pytest.approx((-0.9, 1.0))
    assert best_threshold(similarities, np.zeros(6, dtype=bool)) == pytest.approx((1.9, 1.0))
    for seed in range(20):
        rng = generator(seed, "threshold")
        scores, same = rng.integers(0, 12, 40) / 12, rng.integers(0, 2, 40).astype(bool)
        threshold, share = best_threshold(scores, same)
        assert share == np.mean((scores >= threshold) == same)
        assert share == max(np.mean((scores >= cut) == same) for cut in np.linspace(-0.04, 1.04, 400))


def answers(seed: int, count: int = 400) -> Answers:
    rng = generator(seed, "answers")
    same = rng.integers(0, 2, count).astype(bool)
    return Answers(np.round(rng.normal(same, 1.0), 1), same, np.repeat(np.arange(4), count // 4))


def test_areas_and_true_accepts_are_those_of_scikit_learn() -> None:
    for seed in range(5):
        found = answers(seed)
        counts = generator(seed, "weights").integers(0, 3, (400, 3)).astype(np.float64)
        for column in (0, 1, 2):
            drawn = np.repeat(np.arange(400), counts[:, column].astype(int))
            scores, truth = found.margins[drawn], found.same[drawn]
            assert area(found, counts)[column] == pytest.approx(roc_auc_score(truth, scores))
            false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
            for rate in (0.01, 0.05, 0.2):
                assert true_accepts(rate)(found, counts)[column] == pytest.approx(true[false <= rate + 1e-12].max())
        assert accuracy(found, np.ones((400, 1)))[0] == pytest.approx(found.by_fold().mean())


def test_pairs_of_a_person_are_drawn_together() -> None:
    units = Units("person", np.array([0, 0, 1]), np.array([0, 1, 2]), 3)
    assert units.weights(np.array([[2.0, 0.0], [3.0, 1.0], [1.0, 2.0]])).tolist() == [[2, 0], [6, 0], [3, 2]]
    # Copies of a pair tell nothing new: intervals over persons do not shrink as those over pairs would.
    rng = generator(1, "copies")
    same = np.tile([True, False], 60)
    margins, people = rng.normal(same, 1.0), np.repeat(np.arange(30), 4)
    other = np.where(same, people, (people + 1) % 30)
    folds = np.arange(120) % 4

    def width(times: int) -> float:
        given = Answers(np.tile(margins, times), np.tile(same, times), np.tile(folds, times))
        of = Units("person", np.tile(people, times), np.tile(other, times), 30)
        found = measures(given, of, replicates=300, seed=0)["accuracy"]
        return float(found["high"] - found["low"])

    assert width(8) == pytest.approx(width(1))


def test_a_rate_without_enough_pairs_is_not_told() -> None:
    units = Units("fold", np.zeros(400, dtype=np.int64), np.zeros(400, dtype=np.int64), 1)
    found = measures(answers(0), units, replicates=10, seed=0)
    assert found["tar@far=0.001"]["value"] is None
    assert "3000 pairs of different persons are needed" in found["tar@far=0.001"]["reason"]
    # One unit has no spread.
    assert found["accuracy"]["low"] is None


# --- the whole -----------------------------------------------------------------------------------------------------


def test_persons_are_told_apart_and_the_result_says_how(lfw: tuple[Path, Path]) -> None:
    result = verify(lfw[0], PixelSource(pixel_input(lfw[0])), lfw[1], replicates=200)
    json.dumps(result)
    assert result["accuracy"]["mean"] == 1.0
    assert result["measures"]["auc"]["value"] == 1.0
    assert len(result["accuracy"]["folds"]) == FOLDS
    assert result["pairs"]["persons"] == FOLDS * PERSONS
    assert (result["interval"]["unit"], result["interval"]["units"]) == ("person", FOLDS * PERSONS)
    assert "product of their draws" in result["interval"]["how"]
    assert "image-restricted" in result["protocol"]
    assert result["warnings"] == []


class Planted:
    """Setting 0 tells persons apart but in one fold, setting 1 in this fold alone; features are made of the pixels."""

    name = "planted"

    def __init__(self, fold: int) -> None:
        self.input = ModelInput(image_size=SIDE, channels=1, mean=(0.5,), std=(0.5,))
        self.fold = fold
        self._known = {self._mark(fold, person): (fold, person) for fold in range(FOLDS) for person in range(PERSONS)}

    def _mark(self, fold: int, person: int) -> bytes:
        return generator(3, "person", fold, person).integers(60, 180, (SIDE, SIDE)).astype(np.uint8).tobytes()

    def identity(self) -> dict[str, str]:
        return {"kind": f"planted {self.fold}"}

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def settings(self, layers: Sequence[int] | None, poolings: Sequence[str] | None) -> list[Setting]:
        return [Setting(0, "mean"), Setting(1, "mean")]

    def compute(self, images: np.ndarray[Any, Any], wanted: Sequence[Setting]) -> dict[Setting, Features]:
        flat = images.reshape(len(images), -1).astype(np.float32)
        own = np.stack([np.frombuffer(mark, np.uint8) for mark in self._known]).astype(np.float32)
        nearest = np.abs(flat[:, None] - 30 - own[None]).sum(axis=2).argmin(axis=1)
        facts = list(self._known.values())
        rows = {}
        for setting in wanted:
            out = np.zeros((len(images), 2 + len(facts)), dtype=np.float32)
            for row, place in enumerate(nearest.tolist()):
                good = (facts[place][0] == self.fold) == (setting.layer == 1)
                # Where it is no good, whether two images are alike is a matter of chance.
                out[row, 2 + place if good else int(flat[row].sum()) % 2] = 1
            rows[setting] = out
        return rows


def test_nothing_is_chosen_on_the_tested_fold(lfw: tuple[Path, Path]) -> None:
    result = verify(lfw[0], Planted(2), lfw[1], replicates=20)
    folds = result["accuracy"]["folds"]
    # Setting 1 would be perfect in the third fold; who looks at the others takes 0.
    assert [fold["layer"] for fold in folds] == [0] * FOLDS
    assert [fold["accuracy"] == 1.0 for fold in folds] == [True, True, False, True]
    values = np.array([fold["accuracy"] for fold in folds])
    assert result["accuracy"]["standard_error"] == pytest.approx(values.std(ddof=1) / 2)


def test_a_csv_and_persons_in_several_folds(lfw: tuple[Path, Path], tmp_path: Path) -> None:
    key = {
        fold: [make_keys([f"{name_of(fold, p)}/{name_of(fold, p)}_0001.jpg"])[0] for p in range(3)] for fold in (0, 1)
    }
    second = [make_keys([f"{name_of(0, p)}/{name_of(0, p)}_0002.jpg"])[0] for p in range(3)]
    lines = ["first,second,same,fold"]
    lines += [f"{key[0][0]},{second[0]},1,one", f"{key[0][0]},{key[0][1]},0,one"]
    lines += [f"{key[0][2]},{second[2]},1,two", f"{key[0][1]},{key[1][1]},0,two"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    result = verify(lfw[0], PixelSource(pixel_input(lfw[0])), tmp_path / "pairs.csv", replicates=20)
    assert result["pairs"]["layout"] == "csv"
    assert [fold["fold"] for fold in result["accuracy"]["folds"]] == ["one", "two"]
    (warning,) = result["warnings"]
    assert warning.startswith("1 persons are in several folds (Person_A1)")
    lines[-1] = f"{key[0][1]},{key[1][1]},1,two"
    lines.append(f"{key[0][0]},{key[0][2]},0,two")
    (tmp_path / "false.csv").write_text("\n".join(lines) + "\n")
    false = verify(lfw[0], PixelSource(pixel_input(lfw[0])), tmp_path / "false.csv", replicates=20)
    assert any(text.startswith("1 pairs are labelled otherwise") for text in false["warnings"])


def test_images_of_nobody_known_in_several_folds(tmp_path: Path) -> None:
    items = [PackItem(f"f{n}", face(0, n // 2, n), "png", {}) for n in range(8)]
    pack_samples(items, tmp_path / "shards", card=DatasetCard(name="made", crop=CropRecipe(detector="none", size=SIDE)))
    lines = ["first,second,same,fold", "f0,f1,1,a", "f1,f2,0,a", "f4,f5,1,b", "f5,f7,0,b"]

    def warned() -> list[str]:
        (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
        shards = tmp_path / "shards"
        result = verify(shards, PixelSource(pixel_input(shards)), tmp_path / "pairs.csv", replicates=20)
        return [text for text in result["warnings"] if "several folds" in text]

    assert not warned()
    lines.append("f1,f4,0,b")
    (text,) = warned()
    assert text.startswith("1 images are in several folds (f1): folds are not independent")


def test_a_csv_may_name_paths(lfw: tuple[Path, Path], tmp_path: Path) -> None:
    files = {
        (fold, p, n): f"{name_of(fold, p)}/{name_of(fold, p)}_000{n}.jpg"
        for fold in (0, 1)
        for p in (0, 1)
        for n in (1, 2)
    }
    named = {place: make_keys([file])[0] for place, file in files.items()}
    wanted = []
    for number, names in enumerate((named, files)):
        lines = ["first,second,same,fold"]
        for fold in (0, 1):
            lines += [
                f"{names[fold, 0, 1]},{names[fold, 0, 2]},1,{fold}",
                f"{names[fold, 0, 1]},{names[fold, 1, 1]},0,{fold}",
            ]
        (tmp_path / f"{number}.csv").write_text("\n".join(lines) + "\n")
        found = read_pairs(tmp_path / f"{number}.csv")
        keys = [str(key) for key in read_columns(lfw[0]).values["key"]]
        wanted.append(find_samples(found, keys).tolist())
    assert wanted[0] == wanted[1]
    with pytest.raises(ProbeError, match="paths relative to the folder that was packed"):
        find_samples(found, ["other"])


def test_where_persons_are_not_known_folds_are_the_units(tmp_path: Path) -> None:
    items = [PackItem(f"i{n}", face(0, n // 2, n % 2), "png", {}) for n in range(8)]
    card = DatasetCard(name="made", crop=CropRecipe(detector="none", size=SIDE, colour="grey"))
    pack_samples(items, tmp_path / "shards", shard_size=8, card=card)
    lines = ["first,second,same,fold", "i0,i1,1,a", "i0,i2,0,a", "i4,i5,1,b", "i4,i6,0,b"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    source = PixelSource(pixel_input(tmp_path / "shards"))
    result = verify(tmp_path / "shards", source, tmp_path / "pairs.csv", replicates=20)
    assert (result["interval"]["unit"], result["interval"]["units"]) == ("fold", 2)
    assert result["pairs"]["persons"] is None


def test_layers_and_poolings_of_an_encoder_are_chosen_among(
    lfw: tuple[Path, Path], tiny_extractor: FeatureExtractor, tmp_path: Path
) -> None:
    source = EncoderSource(tiny_extractor)
    given: dict[str, Any] = {"layers": (0, 5), "poolings": ("mean", "cls"), "cache": tmp_path, "replicates": 20}
    result = verify(lfw[0], source, lfw[1], **given)
    assert len(result["settings"]) == 4
    assert len(list(tmp_path.glob("*.npy"))) == 4
    again = verify(lfw[0], source, lfw[1], **given)
    assert {**again, "duration_s": 0} == {**result, "duration_s": 0}


def test_the_command(lfw: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ["verify", "--data", str(lfw[0]), "--pairs", str(lfw[1]), "--model", "pixels", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "accuracy 1.0000 ± 0.0000 (mean and standard error of 4 folds)" in done.output
    assert "tar@far=0.01: not told, 300 pairs of different persons are needed, there are 24" in done.output
    assert "bootstrap over 24 persons" in done.output
    result = json.loads((tmp_path / "verification.json").read_text())
    assert result["accuracy"]["mean"] == 1.0
