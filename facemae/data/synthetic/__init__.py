"""Procedural faces: a two-dimensional renderer whose every picture comes with all of its labels.

`render(sample_params(seed, identity, sample))` draws one face; `make_dataset` packs thousands into a shard set. No
photograph and no person is behind them, so they can be shared, shown and tested against freely.
"""

from facemae.data.regions import Region
from facemae.data.synthetic.action_units import ACTION_UNITS, EXPRESSIONS, PRESENT, Action, sample_action
from facemae.data.synthetic.draw import Rendered, render
from facemae.data.synthetic.identity import Identity, sample_identity
from facemae.data.synthetic.params import FaceParams, sample_params
from facemae.data.synthetic.scene import Light, Pose, Scene, sample_scene

__all__ = [
    "ACTION_UNITS",
    "EXPRESSIONS",
    "PRESENT",
    "Action",
    "FaceParams",
    "Identity",
    "Light",
    "Pose",
    "Region",
    "Rendered",
    "Scene",
    "render",
    "sample_action",
    "sample_identity",
    "sample_params",
    "sample_scene",
]
