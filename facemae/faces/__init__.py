"""Faces in frames: finding them, following them, one steady box for each person, and cutting it out.

    detector = open_detector()
    tracker = Tracker()
    for number, time, frame in frames:
        tracker.add(number, time, detector.detect(frame))
    for track in tracker.finish():
        path = steady_path(track, times, margin=0.2, smoothing=0.4)
        crops = [cut(frame, *box, 160) for frame, box in zip(frames, path)]

This room knows arrays only: where frames come from and where crops go is the business of others.
"""

from facemae.faces.crop import cut
from facemae.faces.detector import Detector, Face, Frame
from facemae.faces.registry import open_detector
from facemae.faces.steady import jitter, share_inside, share_seen, steady_path
from facemae.faces.tracks import Track, Tracker

__all__ = [
    "Detector",
    "Face",
    "Frame",
    "Track",
    "Tracker",
    "cut",
    "jitter",
    "open_detector",
    "share_inside",
    "share_seen",
    "steady_path",
]
