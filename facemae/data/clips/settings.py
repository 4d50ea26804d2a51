"""How clips are made of videos."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from facemae.data.schema import CropRecipe
from facemae.errors import UsageError
from facemae.video.store import Storage

People = Literal["main", "all"]
Regions = Literal["none", "template", "files"]
INTERPOLATION: Literal["bilinear"] = "bilinear"


@dataclass(frozen=True)
class ClipSettings:
    """How faces are found and cut, and what is stored.

    Attributes:
        size: Side of the stored frames in pixels.
        fps: Frames a second of the stored clips; None keeps each video's average rate.
        detector: See `facemae.faces.registry.open_detector`.
        detections: How many times a second faces are looked for; between them boxes are interpolated.
        margin: Added on each side of the detected box, as a share of its longer side.
        smoothing: Seconds over which the box is steadied; see `facemae.faces.steady.steady_path`.
        people: `main` keeps the most prominent face at every moment, `all` each; see `facemae.data.clips.people`.
        seen: Least share of the looked-at frames in which a kept face is detected, from its first to its last.
        shortest: Shorter clips are left out, in seconds.
        longest: Longer ones are cut into equal pieces of at most this, in seconds; bounds memory and sample size.
        sound_rate: Samples a second of the stored sound, mono; None stores no sound.
        storage: How frames are encoded.
        regions: Where region maps come from: `none` stores none, `template` is an average face where the detector's
            box says that one is, `files` are maps of the whole videos.
    """

    size: int = 160
    fps: float | None = 25.0
    detector: str = "default"
    detections: float = 10.0
    margin: float = 0.1
    smoothing: float = 1.0
    people: People = "main"
    seen: float = 0.5
    shortest: float = 0.5
    longest: float = 30.0
    sound_rate: int | None = 16_000
    storage: Storage = field(default_factory=Storage)
    regions: Regions = "none"

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "size": (1, 8192),
            "fps": (0.01, 1000),
            "detections": (0.01, 1000),
            "margin": (-0.49, 9.99),
            "smoothing": (0, 3600),
            "seen": (0, 1),
            "shortest": (0, 86_400),
            "longest": (0.01, 86_400),
            "sound_rate": (1000, 384_000),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            # Not a number is within no limits.
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} {value}", expected=f"{low:g} to {high:g}")
        if self.shortest > self.longest:
            raise UsageError(f"shortest {self.shortest} s, longest {self.longest} s", expected="shortest <= longest")
        if self.storage.kind == "mp4" and self.size % 2:
            raise UsageError(f"size {self.size} stored as mp4", expected="an even size: its colour has half of it")

    def crop_recipe(self, detector: str) -> CropRecipe:
        """What the card and every sample say of the crop.

        Args:
            detector: The name that the opened detector gives itself.
        """
        return CropRecipe(
            detector=detector,
            margin=f"{self.margin:g} of the longer side of the box, on each side",
            alignment="none",
            size=self.size,
            colour="rgb",
            interpolation=INTERPOLATION,
            smoothing=f"{self.smoothing:g} s, looked for {self.detections:g} times a second",
            fps=self.fps,
            sound_rate=self.sound_rate,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a digest and a card."""
        return asdict(self)
