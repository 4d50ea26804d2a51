"""The frames of a clip, with what they share made once."""

from collections.abc import Iterator

from facemae.data.synthetic.canvas import Pixels
from facemae.data.synthetic.draw import Rendered, Studio
from facemae.data.synthetic.params import FaceParams
from facemae.data.synthetic.talking.talk import Talk


class Film:
    """Draws one clip.

    Args:
        talk: The clip.
        size: Side of the frames in pixels; even.
    """

    def __init__(self, talk: Talk, size: int) -> None:
        self.talk = talk
        self.size = size
        self._studio = Studio(talk.rest, size)
        self._last: tuple[FaceParams, Rendered] | None = None

    def frame(self, time: float) -> Rendered:
        """Picture, region map and the labels of a still at a time in seconds; as `render(talk.at(time), size)`."""
        params = self.talk.at(time)
        # A still face, as around a micro-expression, is drawn once.
        if self._last is None or self._last[0] != params:
            self._last = (params, self._studio.shoot(params))
        return self._last[1]

    def frames(self, fps: float) -> Iterator[Pixels]:
        """uint8 [size, size, 3] of every frame; frame k is at k / fps."""
        for drawn in self.shots(fps):
            yield drawn.image

    def shots(self, fps: float) -> Iterator[Rendered]:
        """Every frame with its region map; frame k is at k / fps."""
        for k in range(frame_count(self.talk.seconds, fps)):
            yield self.frame(k / fps)


def frame_count(seconds: float, fps: float) -> int:
    """Frames of a clip: those that begin before its end."""
    return max(1, round(seconds * fps))
