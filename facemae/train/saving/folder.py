"""Where the files of a run lie."""

from dataclasses import dataclass
from pathlib import Path

from facemae.errors import UsageError
from facemae.files import storage_errors


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    It holds::

        recipe.yaml      the resolved recipe
        lease.json       who is writing here
        lease.lock       locked by whoever is; stays when the lease is given back
        quarantine.jsonl samples that had to be replaced
        rewinds.json     the times the run went back, see `facemae.train.saving.rewind`
        terms.json       what a start was granted, see `facemae.train.saving.terms`
        checkpoints/     see `facemae.checkpoint`
        log/             metrics.jsonl, events.jsonl, keys.jsonl, loggers.json, tensorboard/, pictures/
        debug/           what was saved when values stopped being finite

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.root / "recipe.yaml"

    @property
    def lease(self) -> Path:
        """Who is writing here."""
        return self.root / "lease.json"

    @property
    def quarantine(self) -> Path:
        """Samples that had to be replaced."""
        return self.root / "quarantine.jsonl"

    @property
    def rewinds(self) -> Path:
        """The times the run went back."""
        return self.root / "rewinds.json"

    @property
    def terms(self) -> Path:
        """What a start was granted that older checkpoints do not know of."""
        return self.root / "terms.json"

    @property
    def metrics(self) -> Path:
        """One line a log interval."""
        return self.root / "log" / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """One line for everything that happened to the run: start, resume, save, skip, stop."""
        return self.root / "log" / "events.jsonl"

    @property
    def keys(self) -> Path:
        """One line a step with the consumed keys and a digest of their views and masks, where asked for."""
        return self.root / "log" / "keys.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard events."""
        return self.root / "log" / "tensorboard"

    @property
    def identities(self) -> Path:
        """The run's ids with the services that show it, and how far they have come."""
        return self.root / "log" / "loggers.json"

    @property
    def pictures(self) -> Path:
        """Example views, reconstructions and the loss curve."""
        return self.root / "log" / "pictures"

    @property
    def debug(self) -> Path:
        """What was saved when values stopped being finite."""
        return self.root / "debug"

    def create(self) -> None:
        """Make the folder, or accept it where it is a run's already.

        Raises:
            UsageError: It holds something else.
            StorageError: It cannot be made.
        """
        with storage_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            foreign = self._beside_lease()
        if foreign and not self.recipe.exists():
            raise UsageError(
                f"{self.root} is not empty and not a run folder: it holds {', '.join(foreign[:3])}",
                expected="a new or empty folder, or one that an earlier `facemae pretrain` wrote",
                fix="choose another --out",
            )

    def is_bare(self) -> bool:
        """Whether a start has taken the folder and come no further, so that it holds what a lease leaves, no more."""
        return any(self.root.glob("lease.*")) and not self._beside_lease()

    def _beside_lease(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir() if not path.name.startswith((".", "lease.")))

    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.recipe.is_file()
