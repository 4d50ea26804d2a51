"""A picture of one clip: frames, curves and spectrogram under each other."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facemae.data.synthetic.talking.film import Film
from facemae.data.synthetic.talking.talk import Talk
from facemae.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FRAMES = 10
_RATE = 16000
_BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "fontsize": 8, "frameon": False}
_TOP_HZ = 5500
_SHOWN = ("kind", "emotion", "tempo", "circling", "rate", "register", "intonation", "pitch", "synchronous")


def draw_sheet(talk: Talk, *, size: int = 128) -> "Figure":
    """Frames, mouth and loudness, action units, pitch, and a spectrogram with the formants, all on one time axis.

    Args:
        talk: The clip.
        size: Side of a frame in pixels.
    """
    from matplotlib.figure import Figure

    speaks = talk.speech is not None
    heights = [1.25, 1.6, 1.6, 1.1, 2.6][: 5 if speaks else 4]
    figure = Figure(figsize=(13, sum(heights) + 1), dpi=90, layout="constrained")
    frames, *axes = figure.subplots(len(heights), 1, height_ratios=heights)
    labels = talk.labels()
    said = ", ".join(f"{name} {labels[name]}" for name in _SHOWN if name in labels)
    figure.suptitle(f"{labels['identity']}: {said}", fontsize=10)
    _draw_frames(frames, talk, size)
    curves = talk.curves()
    _draw_mouth(axes[0], curves)
    _draw_units(axes[1], talk, curves)
    _draw_head(axes[2], curves)
    if speaks:
        _draw_sound(axes[3], talk, curves)
    for axis in axes:
        axis.set_xlim(0, talk.seconds)
    axes[-1].set_xlabel("seconds")
    return figure


def _draw_frames(axis: Any, talk: Talk, size: int) -> None:
    film = Film(talk, size)
    times = (np.arange(_FRAMES) + 0.5) * talk.seconds / _FRAMES
    if talk.kind == "micro":
        curve = talk.expression
        times[_FRAMES // 2] = curve.apex
    axis.imshow(np.concatenate([film.frame(time).image for time in times.tolist()], axis=1))
    axis.set_xticks((np.arange(_FRAMES) + 0.5) * size, [f"{time:.2f} s" for time in times], fontsize=8)
    axis.set_yticks([])


def _draw_mouth(axis: Any, curves: dict[str, Any]) -> None:
    axis.plot(curves["time"], curves["opening"] / 0.35, color="tab:red", label="mouth opening")
    if "loudness" in curves:
        axis.plot(curves["time"], curves["rounding"], color="tab:purple", label="rounding")
        axis.fill_between(curves["time"], curves["loudness"] / 0.3, color="0.8", label="loudness")
    axis.set_ylabel("mouth and sound")
    axis.legend(**_BESIDE)


def _draw_units(axis: Any, talk: Talk, curves: dict[str, Any]) -> None:
    axis.fill_between(curves["time"], curves["level"], color="0.92", label="expression")
    for unit in sorted({*talk.apex.left, *talk.apex.right, *((43,) if talk.blinks else ())}):
        axis.plot(curves["time"], curves[f"AU{unit:02d}"], label=f"AU{unit}", linewidth=1.2)
    axis.set_ylabel("action units")
    axis.legend(**_BESIDE)


def _draw_head(axis: Any, curves: dict[str, Any]) -> None:
    axis.plot(curves["time"], curves["yaw"], label="yaw")
    axis.plot(curves["time"], curves["nod"], label="nod")
    axis.set_ylabel("degrees")
    axis.legend(**_BESIDE)


def _draw_sound(axis: Any, talk: Talk, curves: dict[str, Any]) -> None:
    axis.specgram(talk.wave(_RATE), NFFT=512, noverlap=384, Fs=_RATE, cmap="magma", vmin=-130, vmax=-35)
    for name in ("F1", "F2", "F3"):
        axis.plot(curves["time"], curves[name], color="white", linewidth=0.8, alpha=0.7)
    axis.plot(curves["time"], 10 * curves["pitch"], color="cyan", linewidth=1, label="pitch x 10")
    axis.set_ylim(0, _TOP_HZ)
    axis.set_ylabel("Hz")
    axis.legend(**_BESIDE)


def write_sheet(path: Path, talk: Talk, *, size: int = 128) -> None:
    """Write `draw_sheet` as PNG."""
    figure = draw_sheet(talk, size=size)
    with atomic_write(path) as handle:
        figure.savefig(handle, format="png")
