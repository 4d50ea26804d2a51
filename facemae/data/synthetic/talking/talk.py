"""One clip of a talking face: the parameters that its pictures, its sound and its labels are read from."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from facemae.data.synthetic.action_units import ACTION_UNITS, EXPRESSIONS, Action
from facemae.data.synthetic.geometry import SIDES, Projection, corner, mouth, outline
from facemae.data.synthetic.identity import sample_identity
from facemae.data.synthetic.params import FaceParams, Label
from facemae.data.synthetic.scene import Scene, sample_scene
from facemae.data.synthetic.talking.curve import Bump, Circle, Floats
from facemae.data.synthetic.talking.moving import (
    Mouth,
    act,
    blink_level,
    sample_apex,
    sample_blinks,
    sample_bump,
    sample_micro_apex,
    sample_micro_bump,
)
from facemae.data.synthetic.talking.sound import Floats32, Sounding, synthesise
from facemae.data.synthetic.talking.speech import MAX_LAG, Speech, sample_talking
from facemae.errors import UsageError
from facemae.rng import generator

Kind = Literal["talk", "silent", "micro"]
"""Speech with an expression, an expression without speech, or a micro-expression in a still, neutral face."""

KINDS: tuple[Kind, ...] = get_args(Kind)
SHORTEST = 0.8
"""Seconds that a clip has at least."""


@dataclass(frozen=True)
class Talk:
    """One clip, from time 0 to `seconds`.

    Attributes:
        kind: One of `KINDS`.
        seconds: Length.
        rest: Who, and how they are seen, with what the face does at the expression's top.
        expression: When the expression comes and goes.
        head: How the head moves.
        blinks: Middles of blinks, in seconds.
        speech: What is said and how it sounds; None where nobody speaks.
    """

    kind: Kind
    seconds: float
    rest: FaceParams
    expression: Bump
    head: Circle
    blinks: tuple[float, ...] = ()
    speech: Speech | None = None

    @property
    def apex(self) -> Action:
        """What the expression does at its top; what speech does to the mouth is not in it."""
        return self.rest.action

    def at(self, time: float) -> FaceParams:
        """All that decides the picture at a time in seconds; `facemae.data.synthetic.render` draws it."""
        action = act(self.apex, float(self.expression.level(time)), self._mouth(time), blink_level(self.blinks, time))
        yaw, pitch = self.head.at(time)
        pose = self.rest.scene.pose
        # The head also moves a little where it turns to.
        shifted = replace(
            pose,
            yaw=pose.yaw + yaw,
            pitch=pose.pitch + pitch,
            x=pose.x + 0.006 * pose.scale * yaw,
            y=pose.y + 0.006 * pose.scale * pitch,
        )
        return replace(self.rest, action=action, scene=replace(self.rest.scene, pose=shifted))

    def _mouth(self, time: float) -> Mouth | None:
        return None if self.speech is None else self.speech.mouth(time)

    def box(self, time: float) -> tuple[float, float, float, float]:
        """The face's true box, skull to chin and ear to ear: left, top, right, bottom as shares of the frame's side."""
        params = self.at(time)
        contour = Projection(params.scene.pose, 1)(outline(params.identity, params.action), silhouette=True)
        (left, top), (right, bottom) = contour.min(axis=0).tolist(), contour.max(axis=0).tolist()
        return left, top, right, bottom

    def wave(self, rate: int = 16000) -> Floats32:
        """The clip's sound; silence where nobody speaks.

        Args:
            rate: Samples a second, a multiple of 5 from 8000 up. Above 16000 nothing is added above 8 kHz.

        Returns:
            float32 [round(seconds * rate)] within (-1, 1); sample n belongs to time n / rate.

        Raises:
            UsageError: Another rate.
        """
        if rate < 8000 or rate % 5:
            raise UsageError(f"a sound of {rate} Hz", expected="a multiple of 5 from 8000 up")
        if self.speech is None:
            return np.zeros(round(self.seconds * rate), np.float32)
        return synthesise(self._sounding, self.seconds, rate)

    @cached_property
    def _sounding(self) -> Sounding:
        assert self.speech is not None
        return self.speech.sounding(self.seconds, self.expression, self.apex)

    def labels(self, fps: float = 25.0) -> dict[str, Label]:
        """Every label; one that has no meaning for this clip is left out.

        Of any frame: `emotion`, `identity`, action units at the apex (`AU12`, `intensity_AU12`).
        Of the frames' order alone: `circling` (clockwise or anticlockwise), `tempo` (the expression comes suddenly or
        gradually), `rate` (fast or slow speech; also heard). Of the sound alone: `register` (high or low for this
        person), `intonation` (rising or falling). Of both together: `synchronous`.

        Args:
            fps: Frames a second, for `onset_frame`, `apex_frame` and `offset_frame` of a micro-expression: the first
                frame that differs from the resting face, the frame nearest to the apex, the last that differs.
        """
        labels: dict[str, Label] = {
            "kind": self.kind,
            "emotion": self.apex.expression,
            "identity": self.rest.identity.name,
            **self.apex.labels(),
            "speech": int(self.speech is not None),
        }
        curve = self.expression
        if self.apex.expression != "neutral":
            labels |= {name: round(getattr(curve, name), 3) for name in ("onset", "apex", "offset")}
            if self.kind != "micro":
                labels["tempo"] = "sudden" if curve.top - curve.onset < curve.offset - curve.leave else "gradual"
        if self.kind == "micro":
            labels |= {
                "onset_frame": int(np.floor(curve.onset * fps)) + 1,
                "apex_frame": round(curve.apex * fps),
                "offset_frame": int(np.ceil(curve.offset * fps)) - 1,
            }
        if self.head.turn:
            labels["circling"] = "clockwise" if self.head.turn > 0 else "anticlockwise"
        if self.speech is not None:
            labels |= self.speech.labels(self._sounding.mean_pitch(self.seconds))
        return labels

    def curves(self, rate: float = 100.0) -> dict[str, Floats]:
        """What drives the clip, as named curves over time.

        Args:
            rate: Points a second.

        Returns:
            float [n] each: `time` in seconds; `level` of the expression; action units as `AU12`, the stronger side;
            `opening` and `width` of the mouth in face units, as drawn; `rounding`; `yaw` and `nod` in degrees; where
            somebody speaks also `pitch` in Hz, `loudness` (root of the mean square of the wave) and `F1`, `F2`, `F3` in
            Hz, at the time they are heard.
        """
        times = np.arange(int(np.floor(self.seconds * rate + 1e-9))) / rate
        shown = [self.at(time) for time in times.tolist()]
        who = self.rest.identity
        curves: dict[str, Floats] = {"time": times, "level": self.expression.level(times)}
        for unit in (*ACTION_UNITS, 18):
            curves[f"AU{unit:02d}"] = np.array([params.action.level(unit) for params in shown])
        curves["opening"] = np.array([mouth(who, params.action).gap for params in shown])
        left, right = (np.array([corner(who, params.action, side)[0] for params in shown]) for side in SIDES)
        curves["width"] = right - left
        curves["rounding"] = curves["AU18"]
        curves["yaw"] = np.array([params.scene.pose.yaw for params in shown])
        curves["nod"] = np.array([params.scene.pose.pitch for params in shown])
        return curves if self.speech is None else curves | self._sounding.curves(times)


def sample_talk(
    seed: int,
    identity: int,
    sample: int,
    *,
    kind: Kind = "talk",
    emotion: str | None = None,
    seconds: float = 3.0,
    whole: bool = False,
    lag: float = 0.0,
) -> Talk:
    """Draw one clip.

    Args:
        seed: Seed of the data set.
        identity: Number of the person; the same face as in stills.
        sample: Number of this person's clip.
        kind: One of `KINDS`.
        emotion: One of `EXPRESSIONS`; drawn where None, for a micro-expression never `neutral`.
        seconds: Length, from 0.8 up.
        whole: Frame head and shoulders with room around them, as a camera does; otherwise the face fills the frame.
        lag: Seconds by which the sound is late (negative: early), up to 0.8; label `synchronous`.

    Returns:
        The clip: a pure function of the arguments.

    Raises:
        UsageError: An unknown kind or emotion, a micro-expression of `neutral`, a clip too short, or too large a lag.
    """
    _check(kind, emotion, seconds, lag)
    rng = generator(seed, "talking", "clip", identity, sample)
    sudden, clockwise = (bool(coin < 0.5) for coin in rng.uniform(size=2))
    still = kind == "micro"
    draw_apex = sample_micro_apex if still else sample_apex
    expression = sample_micro_bump(rng, seconds) if still else sample_bump(rng, seconds, sudden=sudden)
    head = Circle(
        yaw=float(rng.uniform(6, 10)),
        pitch=float(rng.uniform(4, 7)),
        period=float(rng.uniform(0.65, 1.2)) * min(seconds, 4.0),
        phase=float(rng.uniform(0, 2 * np.pi)),
        turn=1 if clockwise else -1,
    )
    rest = FaceParams(
        seed=seed,
        number=identity,
        sample=sample,
        identity=sample_identity(seed, identity),
        action=draw_apex(seed, identity, sample, emotion),
        scene=_scene(seed, identity, sample, whole),
    )
    return Talk(
        kind=kind,
        seconds=seconds,
        rest=rest,
        expression=expression,
        head=Circle() if still else head,
        blinks=() if still else sample_blinks(rng, seconds),
        speech=sample_talking(rest, expression, seconds, lag) if kind == "talk" else None,
    )


def _check(kind: str, emotion: str | None, seconds: float, lag: float) -> None:
    if kind not in KINDS:
        raise UsageError(f"a clip of kind {kind!r}", expected=f"one of {', '.join(KINDS)}")
    allowed = [name for name in EXPRESSIONS if kind != "micro" or name != "neutral"]
    if emotion is not None and emotion not in allowed:
        raise UsageError(f"a clip of kind {kind} with emotion {emotion!r}", expected=f"one of {', '.join(allowed)}")
    if not np.isfinite(seconds) or seconds < SHORTEST:
        raise UsageError(f"a clip of {seconds} seconds", expected=f"at least {SHORTEST} seconds")
    if not abs(lag) <= MAX_LAG or (lag and kind != "talk"):
        raise UsageError(
            f"a sound {lag} seconds late in a clip of kind {kind}",
            expected=f"from -{MAX_LAG} to {MAX_LAG} seconds where somebody speaks, 0 otherwise",
        )


def _scene(seed: int, identity: int, sample: int, whole: bool) -> Scene:
    """How a clip is taken: as a still, with nothing before the face and the head nearly upright."""
    scene = sample_scene(seed, identity, sample)
    rng = generator(seed, "talking", "scene", identity, sample)
    pose = replace(scene.pose, yaw=0.5 * scene.pose.yaw, pitch=0.4 * scene.pose.pitch)
    scale, x, y = rng.uniform(size=3).tolist()
    if whole:
        pose = replace(pose, scale=0.17 + 0.08 * scale, x=0.36 * (x - 0.5), y=0.16 * (y - 0.5) - 0.02)
    # In the picture a smaller face is not less sharp.
    blur = min(scene.blur, 0.004) * pose.scale / 0.46
    return replace(scene, pose=pose, occlusion="none", blur=blur)
