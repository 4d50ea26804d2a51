"""Which faces of a video become clips, and under which numbers.

A person here is a face followed without a break: whether two of them are the same human being is not known. So a number
says who is meant among the faces at one time, and those at different times may share one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from facemae.data.clips.pieces import Piece, cut_pieces, frames_of
from facemae.data.clips.settings import ClipSettings
from facemae.data.clips.survey import Person, Survey

MOST_PEOPLE = 10
"""Faces at the same time of which clips are made."""

ALONE = 0.5
"""Under `main`, a face is left out that has more prominent ones beside it for more than this share of its time."""

_DROPPED = {
    "short": "detections too short to be a face are left out",
    "seldom": "detections too seldom to be a face are left out",
    "weak": "detections too weak to be a face are left out",
    "covered": "frames in which one face covers another are left out",
}
_TOLD = 3

Range = tuple[int, int]
"""Frames at the stored rate: the first, and the one behind the last."""


@dataclass(frozen=True, eq=False)
class Appearance:
    """One face from its first frame to its last.

    Attributes:
        person: Whose.
        pieces: Its clips, rising in time.
    """

    person: Person
    pieces: list[Piece]


@dataclass
class Choice:
    """What becomes of the faces of a video.

    Attributes:
        numbered: Under each number, the appearances in the order of time; no two of them overlap.
        skipped: Reasons of what is left out as unusable.
        notes: Of what else is left out.
    """

    numbered: list[list[Appearance]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def choose(seen: Survey, settings: ClipSettings) -> Choice:
    """Choose the faces whose clips are made.

    `main` takes, at every moment, the most prominent face that is usable: all are number 0. A less prominent one is
    shortened to the time when it is without a better one, and left out where that is less than `ALONE` of its own.
    `all` takes every face that has fewer than `MOST_PEOPLE` better ones at any one time, and gives it the lowest
    number that no better one has at the same time.

    Args:
        seen: What the first pass found.
        settings: Whom to keep; the least share of frames with a face; shortest and longest clip.
    """
    choice = Choice(notes=[text for kind, text in _DROPPED.items() if any(drop.kind == kind for drop in seen.dropped)])
    if not seen.people:
        choice.skipped.append(_nobody(seen))
        choice.notes = []
    kept: list[tuple[int, Range, Appearance]] = []
    for person, own in _usable(seen, settings, choice):
        number, ranges = (_main if settings.people == "main" else _every)(own, [(k, taken) for k, taken, _ in kept])
        pieces = [(cut, cut_pieces(*cut, seen.fps, settings)) for cut in ranges]
        if not any(cuts for _, cuts in pieces):
            many = f"more than {MOST_PEOPLE} faces at the same time, the least prominent are left out"
            another = "another face at the same time, less prominent, is left out"
            choice.notes.append(another if settings.people == "main" else many)
        kept += [(number, cut, Appearance(person, cuts)) for cut, cuts in pieces if cuts]
    choice.numbered = [[] for _ in range(1 + max((number for number, *_ in kept), default=-1))]
    for number, _, appearance in sorted(kept, key=lambda entry: entry[1]):
        choice.numbered[number].append(appearance)
    return choice


def _cuts_at(person: Person, seen: Survey) -> str:
    """Names the cuts between which a face is, if any."""
    frame = seen.seconds / max(seen.frames, 1)
    begins = [f"behind the cut at {cut:.2f} s" for cut in seen.cuts if abs(cut - person.start) <= frame]
    ends = [f"before the cut at {cut:.2f} s" for cut in seen.cuts if abs(cut - person.stop) <= frame]
    return "".join(f" {text}" for text in [" and ".join(begins[-1:] + ends[:1])] if text)


def _nobody(seen: Survey) -> str:
    cuts = f", with {len(seen.cuts)} cut{'s'[: len(seen.cuts) > 1]} between them" if seen.cuts else ""
    looked = f"{seen.looked} frames looked at{cuts}"
    if not seen.dropped:
        return f"no face in {looked}"
    longest = sorted(seen.dropped, key=lambda drop: -drop.frames)[:_TOLD]
    told = "; ".join(f"from {drop.start:.2f} s on, {drop.reason}" for drop in longest)
    more = f"; {len(seen.dropped) - _TOLD} more" if len(seen.dropped) > _TOLD else ""
    return f"no face that can be followed in {looked} ({told}{more})"


def _usable(seen: Survey, settings: ClipSettings, choice: Choice) -> Iterator[tuple[Person, Range]]:
    for person in seen.people:
        own = frames_of(person, seen.fps, seen.count)
        if person.seen < settings.seen:
            share = f"{person.seen:.0%} of the frames, less than {settings.seen:.0%}"
            choice.skipped.append(f"the face at {person.start:.2f} s is detected in {share}")
        elif not cut_pieces(*own, seen.fps, settings):
            length = f"{person.stop - person.start:.2f} s with a face{_cuts_at(person, seen)}"
            choice.skipped.append(f"{length}, shorter than {settings.shortest:g} s")
        else:
            yield person, own


def _main(own: Range, kept: list[tuple[int, Range]]) -> tuple[int, list[Range]]:
    """Number 0, and what no kept face takes; nothing where that is less than `ALONE`."""
    free = [own]
    for _, (begin, end) in kept:
        free = [
            part
            for first, stop in free
            for part in ((first, min(stop, begin)), (max(first, end), stop))
            if part[0] < part[1]
        ]
    alone = sum(stop - first for first, stop in free)
    return 0, sorted(free) if alone >= ALONE * (own[1] - own[0]) else []


def _every(own: Range, kept: list[tuple[int, Range]]) -> tuple[int, list[Range]]:
    """The lowest number free for all its time, and all of it; nothing where too many kept faces are there at once."""
    beside = [(number, (begin, end)) for number, (begin, end) in kept if begin < own[1] and own[0] < end]
    moments = [own[0], *(begin for _, (begin, _) in beside if begin > own[0])]
    most = max(sum(begin <= moment < end for _, (begin, end) in beside) for moment in moments)
    used = {number for number, _ in beside}
    number = next(number for number in range(len(used) + 1) if number not in used)
    return number, [own] if most < MOST_PEOPLE else []
