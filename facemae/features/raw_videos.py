"""Windows of videos and sound files as they come: faces found, followed and cut out as packing does, and streamed.

A video is read twice, as in packing: the first pass keeps boxes only, the second gives one window after the other. Of
several persons each has such a second pass of its own.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facemae.data.clips.people import choose
from facemae.data.clips.pieces import Piece
from facemae.data.clips.render import cropped, paths
from facemae.data.clips.settings import ClipSettings, People
from facemae.data.clips.sound_track import LONGER
from facemae.data.clips.survey import Survey, survey
from facemae.data.ingest.folder import SOUND_ENDINGS, ending
from facemae.data.preprocess import to_model_input
from facemae.errors import DataError, DecodeError
from facemae.faces.detector import Detector
from facemae.faces.registry import open_detector
from facemae.features.crops import cutting_for
from facemae.features.pixels import to_pixels
from facemae.features.raw_sound import RawSound, Stretch
from facemae.features.weights import LoadedEncoder
from facemae.features.windows import Pictures, Place, Window, Windows, cut_windows, spans
from facemae.sound.source import has_sound
from facemae.video.rate import at_rate
from facemae.video.source import Frame, VideoSource

Note = Callable[[str], None]
"""Told in words what is odd about a file, or left out of it."""


@dataclass(frozen=True)
class MediaFile:
    """A video or a sound.

    Attributes:
        path: Where it lies.
        name: What it is called in the result.
        video: Whether it is a video, by its name; its content decides in the end.
        sound: A separate file with a video's sound; None takes its own.
    """

    path: Path
    name: str
    video: bool = True
    sound: Path | None = None


@dataclass(frozen=True)
class RawMedia:
    """Makes windows of files.

    Attributes:
        model: What they are made for.
        windows: How they are cut.
        settings: How faces are found and cut.
        detector: The opened detector.
    """

    model: LoadedEncoder
    windows: Windows
    settings: ClipSettings
    detector: Detector

    def windows_of(self, file: MediaFile, note: Note) -> Iterator[Window]:
        """The windows of a file: of each face in it one stretch after the other, with the sound beneath.

        Where a video shows no face and the model hears, they are of its sound alone.

        Args:
            file: The file.
            note: Told what is odd.

        Raises:
            DataError: Nothing of the file can be used; of `DecodeError`, nothing of it can be read.
            StorageError: The file cannot be read.
        """
        if not file.video:
            yield from self._sound_alone(file, file.path, note)
            return
        try:
            seen = survey(file.path, self.detector, self.settings)
        except DecodeError as error:
            if not self._only_sound(file):
                raise
            note(f"{error.found.removeprefix(f'{file.path}: ')}; features of its sound alone")
            yield from self._sound_alone(file, file.path, note)
            return
        for text in _remarks(seen):
            note(text)
        choice = choose(seen, self.settings)
        for text in (*choice.skipped, *choice.notes):
            note(text)
        if not choice.numbered:
            yield from self._faceless(file, seen, choice.skipped, note)
            return
        sound = self._sound_of(file, seen, note)
        for number, appearances in enumerate(choice.numbered):
            pieces = [piece for appearance in appearances for piece in appearance.pieces]
            yield from self._person(
                file, seen, number, pieces, paths(seen, appearances, seen.fps, self.settings), sound
            )

    def _person(
        self,
        file: MediaFile,
        seen: Survey,
        number: int,
        pieces: Sequence[Piece],
        boxes: Iterator[tuple[object, Piece, NDArray[np.float64]]],
        sound: RawSound | None,
    ) -> Iterator[Window]:
        """Windows of all stretches of one number."""
        fps, mel = seen.fps, None if self.model.sound is None else self.model.sound.input.mel
        stretches = [(piece.first / fps, (piece.first + piece.count) / fps) for piece in pieces]
        audible = [False] * len(pieces) if sound is None else sound.audible(stretches)
        readers = itertools.repeat(None) if sound is None else sound.walk(stretches)
        with VideoSource(file.path) as source:
            shown = at_rate(source, fps)
            zipped = zip(boxes, stretches, readers, audible, strict=False)
            for part, ((_, piece, own), (start, _), reader, loud) in enumerate(zipped):
                place = Place(file.name, f"{file.name}#{number}.{part}", number, start, piece.count / fps)
                pictures = self._pictures(shown, piece, own, fps, file)
                waves = reader.take if reader is not None and loud else None
                yield from cut_windows(place, self.windows, rate=fps, pictures=pictures, waves=waves, mel=mel)

    def _pictures(
        self, shown: Iterator[tuple[int, Frame]], piece: Piece, boxes: NDArray[np.float64], fps: float, file: MediaFile
    ) -> Pictures:
        """Faces of a stretch; frames are cut as they come, and held as long as a window still wants them."""
        cuts = list(spans(piece.count / fps, self.windows, fps))
        wanted = np.zeros(piece.count, dtype=bool)
        for span in cuts:
            wanted[self.windows.numbers(span.first, fps, piece.count)] = True
        held: dict[int, NDArray[np.uint8]] = {}
        upcoming = iter([*(span.first for span in cuts[1:]), piece.count])
        size, model_input = self.settings.size, self.model.input

        def take(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
            last = int(numbers[-1])
            while last not in held:
                entry = next(shown, None)
                if entry is None:
                    raise DecodeError(
                        f"{file.path}: fewer frames than when its faces were found",
                        expected="a file that does not change while it is read",
                    )
                number, frame = entry[0] - piece.first, entry[1]
                if 0 <= number < piece.count and wanted[number]:
                    face = cropped(frame.image, boxes[number], size)
                    held[number] = to_model_input(to_pixels(face, model_input.channels, file.name), model_input)
            found = np.stack([held[int(number)] for number in numbers])
            keep = next(upcoming)
            for number in [number for number in held if number < keep]:
                del held[number]
            return found

        return take

    def _sound_of(self, file: MediaFile, seen: Survey, note: Note) -> RawSound | None:
        """The sound to cut: the separate one, else the video's own; None where neither can be used or nobody hears."""
        if self.model.sound is None:
            return None
        if file.sound is not None:
            separate = self._track(file.sound, 0.0, None)
            if isinstance(separate, RawSound) and not separate.silent:
                if abs(separate.seconds - seen.seconds) > LONGER:
                    note(f"{file.sound.name} lasts {separate.seconds:.2f} s, the video {seen.seconds:.2f} s")
                return self._told(separate, note)
            reason = separate if isinstance(separate, str) else "a silent track"
            note(f"{file.sound.name}: {reason}; the video's own sound is taken, if it has any")
        own = self._track(file.path, seen.origin, seen.joint)
        if isinstance(own, str):
            note(own)
            return None
        if not own.silent and own.seconds < seen.seconds - LONGER:
            note(f"the sound ends {seen.seconds - own.seconds:.2f} s before the picture; windows behind it have none")
        return self._told(own, note)

    def _track(self, path: Path, origin: float, joint: tuple[int, int] | None) -> RawSound | str:
        """The sound of a file, or why it cannot be used."""
        try:
            return self._opened(path, origin, joint) if has_sound(path) else "no sound"
        except DataError as error:
            return f"the sound is left out: {error.found.removeprefix(f'{path}: ')}"

    @staticmethod
    def _told(sound: RawSound, note: Note) -> RawSound | None:
        for text in sound.notes:
            note(text)
        return None if sound.silent else sound

    def _opened(self, path: Path, origin: float = 0.0, joint: tuple[int, int] | None = None) -> RawSound:
        assert self.model.sound is not None
        heard = self.model.sound.input.mel.rate
        return RawSound(path, origin=origin, rate=self.settings.sound_rate or heard, heard=heard, joint=joint)

    def _only_sound(self, file: MediaFile) -> bool:
        """Whether a file whose name says video has sound that a model may hear."""
        try:
            return self.model.sound is not None and has_sound(file.path)
        except DataError:
            return False

    def _faceless(self, file: MediaFile, seen: Survey, reasons: Sequence[str], note: Note) -> Iterator[Window]:
        sound = self._sound_of(file, seen, note)
        if sound is None:
            raise DataError(f"{file.path}: {'; '.join(reasons)}", expected="a face, or sound and a model that hears")
        note("no face: features of its sound alone")
        yield from self._beneath_nothing(file, sound, min(sound.seconds, seen.seconds))

    def _sound_alone(self, file: MediaFile, path: Path, note: Note) -> Iterator[Window]:
        if self.model.sound is None:
            raise DataError(f"{path}: sound for a model that hears nothing", expected="a model with a sound_encoder")
        sound = self._opened(path)
        if sound.silent:
            raise DataError(f"{path}: a silent track", expected="sound that is louder than -60 dB of full scale")
        for text in sound.notes:
            note(text)
        yield from self._beneath_nothing(file, sound, sound.seconds)

    def _beneath_nothing(self, file: MediaFile, sound: RawSound, seconds: float) -> Iterator[Window]:
        """Windows of a sound without a face, from the file's start."""
        assert self.model.sound is not None
        mel = self.model.sound.input.mel
        whole: Stretch = (0.0, seconds)
        place = Place(file.name, file.name, -1, 0.0, seconds)
        for reader in sound.walk([whole]):
            yield from cut_windows(place, self.windows, rate=mel.rate, waves=reader.take, mel=mel)


def raw_media(
    model: LoadedEncoder, windows: Windows, detector: str, people: People
) -> tuple[RawMedia, tuple[str, ...]]:
    """Open the detector; the second is what the model's crop recipe does not say (`facemae.features.crops.Cutting`)."""
    heard = None if model.sound is None else model.sound.input.mel.rate
    side = model.input.image_size
    cutting = cutting_for(model.crop, side=side, sound_rate=heard, detector=detector, people=people)
    return RawMedia(model, windows, cutting.settings, open_detector(detector)), cutting.unknown


def open_file(
    path: Path | str,
    model: LoadedEncoder,
    windows: Windows,
    sound: Path | str | None,
    people: People,
    detector: str,
    note: Note,
) -> Iterator[Window]:
    """Windows of one file; see `facemae.features.clips.ClipExtractor.of_file`."""
    raw, unknown = raw_media(model, windows, detector, people)
    if unknown:
        note(f"how the model's faces were cut is unknown in {', '.join(unknown)}: as packing usually does")
    video = ending(Path(path).name) not in SOUND_ENDINGS
    yield from raw.windows_of(MediaFile(Path(path), str(path), video, None if sound is None else Path(sound)), note)


def _remarks(seen: Survey) -> Iterator[str]:
    """What is odd about the pictures."""
    if seen.damage:
        yield seen.damage
    if seen.repaired:
        yield f"time stamps of {seen.repaired} frames repaired"
    if seen.info.interlaced:
        yield "interlaced: its fields are not separated"
