"""Learning from few labelled samples: so many a class, or a share of the training units, drawn several times."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from facemae.errors import ProbeError
from facemae.rng import generator
from facemae_probes.protocols.base import Fold, Inner, Protocol, Rows, Samples, Splits
from facemae_probes.protocols.draw import inner_folds
from facemae_probes.protocols.official import official_parts

INNER = 5


@dataclass(frozen=True)
class FewShot(Protocol):
    """Few training samples; test as the owner has it. Nothing but the drawn samples is used for choosing.

    Attributes:
        shots: Samples a class, or a share of the training units where below 1.
        draws: How often samples are drawn; the result is the mean over draws.
    """

    form: ClassVar[str] = "few-shot:N or few-shot:P%"
    shots: float = 5
    draws: int = 10

    @property
    def name(self) -> str:
        """`few-shot:N` or `few-shot:P%`."""
        return f"few-shot:{100 * self.shots:g}%" if self.shots < 1 else f"few-shot:{self.shots:g}"

    def split(self, samples: Samples) -> Splits:
        """A repeat for each draw.

        Raises:
            ProbeError: The labels have no classes, or a part is missing.
        """
        if self.shots >= 1 and not self._classes(samples):
            raise ProbeError(
                f"{self.name} of labels of kind {samples.targets.kind}, which have no classes to draw so many of",
                expected="classes, or a share of the training units",
                fix="--protocol few-shot:1%",
            )
        train, valid, test = official_parts(samples)
        every = np.sort(np.concatenate([train, valid]))
        pool = every[~np.isin(samples.units[every], samples.units[test])]
        if not self._teaches(samples, pool):
            raise ProbeError(
                f"{len(pool)} training samples whose {samples.unit} is not in test too",
                expected="two classes of them, or two samples of labels without classes",
            )
        warnings = [
            f"{len(every) - len(pool)} training samples whose {samples.unit} is in test are never drawn"
        ] if len(pool) < len(every) else []  # fmt: skip
        repeats, short = [], set()
        for draw in range(self.draws):
            drawn, missing = self._draw(pool, samples, draw)
            short |= missing
            repeats.append((Fold(f"draw {draw}", drawn, test, self._inner(drawn, samples, draw), refit=True),))
        size = f"{100 * self.shots:g} % of the training units" if self.shots < 1 else f"{self.shots:g} a class"
        first = "" if self.shots < 1 else f", one sample a unit ({samples.unit}) first"
        about = f"{size}, drawn {self.draws} times{first}; the mean over draws, whose interval is over test units"
        return Splits(
            self.name,
            about,
            self._chosen_on(),
            tuple(repeats),
            drawn_from=np.sort(np.concatenate([every, test])),
            warnings=(*warnings, *_short(short, self.shots)),
        )

    def _draw(self, pool: Rows, samples: Samples, draw: int) -> tuple[Rows, set[str]]:
        rng = generator(samples.seed, "protocol", "few-shot", f"{self.shots:g}", draw)
        if self.shots < 1:
            known = rng.permutation(np.unique(samples.units[pool]))
            count = max(2, round(self.shots * len(known)))
            # A draw of one class teaches nothing: it is made larger, unit by unit.
            while True:
                rows = pool[np.isin(samples.units[pool], known[:count])]
                if self._teaches(samples, rows):
                    return rows, set()
                count += 1
        classes, chosen, missing = samples.targets.majority(), [], set()
        for number, name in enumerate(samples.targets.names):
            rows = rng.permutation(pool[classes[pool] == number])
            # Different units first: two frames of one person are not two samples.
            _, first = np.unique(samples.units[rows], return_index=True)
            rows = np.concatenate([rows[np.sort(first)], np.delete(rows, first)])[: int(self.shots)]
            missing |= {name} if len(rows) < self.shots else set()
            chosen.append(rows)
        return np.sort(np.concatenate(chosen)), missing

    def _inner(self, rows: Rows, samples: Samples, draw: int) -> tuple[Inner, ...]:
        count = INNER if self.shots < 1 else min(INNER, int(self.shots))
        ways = inner_folds(rows, samples.units, samples.targets, count, samples.seed, "few-shot", str(draw))
        # What was fitted on one class, or on one sample, judges nothing.
        return tuple(way for way in ways if self._teaches(samples, way.fit))

    @staticmethod
    def _classes(samples: Samples) -> bool:
        return samples.targets.kind in ("classes", "distribution")

    def _teaches(self, samples: Samples, rows: Rows) -> bool:
        """Whether there is something to tell apart: two classes, or two samples of other labels."""
        return len(rows if not self._classes(samples) else np.unique(samples.targets.majority()[rows])) > 1

    def _chosen_on(self) -> str:
        if self.shots == 1:
            return (
                "nothing: one sample a class leaves none to choose on; taken are the last layer with the first of its "
                "poolings, the middle strength, the fewest neighbours, all epochs"
            )
        return "the drawn samples only, cross-validated"


def _short(names: set[str], shots: float) -> list[str]:
    return [f"fewer than {shots:g} training samples of {', '.join(sorted(names))}"] if names else []
