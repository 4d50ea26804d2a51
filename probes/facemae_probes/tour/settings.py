"""What the quickstart does, and where it puts things."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facemae.errors import UsageError
from facemae.files import storage_errors, write_text


@dataclass(frozen=True)
class Settings:
    """Sizes of the tour. The defaults take about three and a half minutes on two cores.

    Attributes:
        count: Faces to draw.
        identities: Persons among them.
        size: Side of the pictures in pixels.
        samples: Faces the encoder sees in pretraining.
        batch: Faces in one step.
        layers: Encoder blocks that are probed, and `poolings` of their tokens.
        strengths: L2 path of the linear probe.
        replicates: Bootstrap replicates of the intervals.
        seed: Seed of everything.
        recipe: Further changes to the recipe.
    """

    count: int = 4000
    identities: int = 160
    size: int = 64
    samples: int = 100_000
    batch: int = 128
    layers: tuple[int, ...] = (-1, -3)
    poolings: tuple[str, ...] = ("mean", "grid3")
    strengths: tuple[float, ...] = (0.1, 0.01, 0.001)
    replicates: int = 1000
    seed: int = 0
    recipe: tuple[str, ...] = ()

    def overrides(self, shards: Path) -> list[str]:
        """Changes to the recipe `fmae_tiny`: a smaller encoder, so that two minutes are worth dozens of epochs."""
        return [
            # It is no fmae_tiny, and must not be taken for one.
            "name=quickstart",
            f"data.streams.0.shards={json.dumps(str(shards))}",
            "data.streams.0.where.split=train",
            f"seed={self.seed}",
            f"optim.batch_size={self.batch}",
            f"optim.total={self.samples} samples",
            f"optim.ema={self.samples // 20} samples",
            "encoder.name=test_vit",
            "encoder.patch_size=8",
            "objectives.0.decoder.width=64",
            # Normalised patches make noise of flat skin the main thing to predict; pixels show features sooner.
            "objectives.0.target=pixels",
            "views.main.crop.scale=[0.8, 1.0]",
            "optim.base_lr=4e-3",
            # So small a model gains nothing from a second thread; the loader has the other core.
            "efficiency.threads=1",
            "checkpoint.every=25 percent",
            "log.pictures=50 percent",
            "log.every_steps=25",
            "log.loggers=[]",
            *self.recipe,
        ]


@dataclass(frozen=True)
class Places:
    """Files of one tour.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def shards(self) -> Path:
        """The faces."""
        return self.root / "faces"

    @property
    def sheet(self) -> Path:
        """The contact sheet."""
        return self.root / "faces.png"

    @property
    def run(self) -> Path:
        """The pretraining run."""
        return self.root / "run"

    @property
    def probes(self) -> Path:
        """Results of the probes."""
        return self.root / "probes"

    @property
    def features(self) -> Path:
        """The extracted features."""
        return self.root / "features.npz"

    @property
    def summary(self) -> Path:
        """Everything in numbers."""
        return self.root / "summary.json"

    @property
    def page(self) -> Path:
        """Everything to look at."""
        return self.root / "report.html"


class Journal:
    """`tour.json`: the settings and the steps that are done, so that the same command continues.

    Args:
        places: The folder's files.
        settings: What this tour does.

    Raises:
        UsageError: The folder holds something else, or a tour with other settings.
    """

    def __init__(self, places: Places, settings: Settings) -> None:
        self._path = places.root / "tour.json"
        wanted = json.loads(json.dumps(asdict(settings)))
        with storage_errors(places.root):
            places.root.mkdir(parents=True, exist_ok=True)
            old: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}
            # A name with a dot in front is what a killed write leaves behind; nothing is lost by ignoring it.
            strange = not old and any(not path.name.startswith(".") for path in places.root.iterdir())
        if strange:
            raise UsageError(
                f"{places.root} is not empty and no quickstart's folder",
                expected="a new folder, or the one of an earlier quickstart",
                fix="facemae quickstart ANOTHER_DIR",
            )
        if old and old["settings"] != wanted:
            changed = [key for key in wanted if old["settings"].get(key) != wanted[key]]
            raise UsageError(
                f"{places.root} holds a quickstart with other settings: {', '.join(changed)}",
                expected="; ".join(f"{key} {old['settings'].get(key)}" for key in changed),
                fix="facemae quickstart ANOTHER_DIR, or the settings of the first time",
            )
        self.steps: dict[str, dict[str, Any]] = old.get("steps", {})
        self._spent: dict[str, float] = old.get("spent", {})
        self._settings = wanted
        self._write()

    def spend(self, step: str, seconds: float) -> None:
        """Note time that went into a step, whether it got done or was interrupted."""
        self._spent[step] = round(self._spent.get(step, 0.0) + seconds, 2)
        self._write()

    def finish(self, step: str, facts: dict[str, Any]) -> None:
        """Note that a step is done; its `seconds` are what was spent on it in all starts."""
        self.steps[step] = {"seconds": self._spent.get(step, 0.0), **facts}
        self._write()

    def _write(self) -> None:
        journal = {"settings": self._settings, "steps": self.steps, "spent": self._spent}
        write_text(self._path, json.dumps(journal, indent=1) + "\n")
