"""What a worker process does: say which clip a number means, draw it, and give its row of the table.

Imports no torch, so that workers start at once.
"""

from dataclasses import dataclass, field
from pathlib import Path

import cv2

from facemae.data.synthetic.params import Label
from facemae.data.synthetic.talking.talk import KINDS, Kind, Talk, sample_talk
from facemae.data.synthetic.talking.video import EXTENSION, maps_path, write_clip
from facemae.data.synthetic.worker import image_split
from facemae.errors import UsageError
from facemae.rng import generator


@dataclass(frozen=True)
class TalkSettings:
    """What decides a folder of clips.

    Attributes:
        count: Clips in all, dealt to the persons in turn.
        identities: Persons.
        size: Side of the frames in pixels; even.
        seconds: Length of a clip.
        fps: Frames a second.
        seed: Seed of everything.
        kinds: Share of each kind of clip.
        late: Share of the talking clips whose sound is late or early by 0.3 to 0.8 seconds.
        silent_track: Give clips without speech a track of silence.
        whole: Head and shoulders with room around them; otherwise the face fills the frame.
    """

    count: int = 240
    identities: int = 24
    size: int = 192
    seconds: float = 3.0
    fps: float = 25.0
    seed: int = 0
    kinds: dict[Kind, float] = field(default_factory=lambda: {"talk": 0.7, "silent": 0.2, "micro": 0.1})
    late: float = 0.0
    silent_track: bool = False
    whole: bool = True

    def __post_init__(self) -> None:
        if self.count < self.identities:
            raise UsageError(f"{self.count} clips of {self.identities} identities", expected="at least one of each")
        if self.size < 16 or self.size % 2:
            raise UsageError(f"size {self.size}", expected="an even number of pixels from 16 up")
        if not 1 <= self.fps <= 240:
            raise UsageError(f"{self.fps} frames a second", expected="from 1 to 240")
        if (
            not self.kinds
            or set(self.kinds) - set(KINDS)
            or min(self.kinds.values()) < 0
            or not sum(self.kinds.values())
        ):
            raise UsageError(f"kinds {self.kinds}", expected=f"shares, not all zero, of {', '.join(KINDS)}")
        if not 0 <= self.late <= 1:
            raise UsageError(f"a share {self.late} of late sounds", expected="from 0 to 1")

    def clip(self, number: int) -> tuple[str, Talk]:
        """Path within the folder, and the clip of this number."""
        identity, sample = number % self.identities, number // self.identities
        rng = generator(self.seed, "talking", "deal", identity, sample)
        names = list(self.kinds)
        total = sum(self.kinds.values())
        kind = names[int(rng.choice(len(names), p=[self.kinds[name] / total for name in names]))]
        coin, sign, far = rng.uniform(size=3).tolist()
        lag = (1 if sign < 0.5 else -1) * (0.3 + 0.5 * far) if kind == "talk" and coin < self.late else 0.0
        talk = sample_talk(self.seed, identity, sample, kind=kind, seconds=self.seconds, whole=self.whole, lag=lag)
        name = talk.rest.identity.name
        return f"{name}/{name}_{sample:05d}.{EXTENSION}", talk


def make_clip(out: Path, settings: TalkSettings, splits: list[str], number: int) -> tuple[dict[str, Label], bool]:
    """Draw one clip unless it is there; its row of the table, and whether it was drawn."""
    cv2.setNumThreads(1)
    path, talk = settings.clip(number)
    new = not ((out / path).is_file() and maps_path(out / path).is_file())
    if new:
        write_clip(out / path, talk, size=settings.size, fps=settings.fps, silent_track=settings.silent_track)
    split = splits[talk.rest.number]
    row: dict[str, Label] = {"path": path, "subject": talk.rest.identity.name, "split": split}
    if split == "train":
        row["identity_split"] = image_split(settings.seed, talk.rest.number, talk.rest.sample)
    return row | talk.labels(settings.fps), new
