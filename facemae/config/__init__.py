"""The typed recipe tree: what a pretraining run is made of.

A recipe is a YAML file that fills this tree; `facemae.recipe` reads, merges and prints it. Blocks are grouped by
what they may change: everything except `efficiency`, `log` and `monitor` changes results, and a run that has started
refuses such a change. Five more may change that cannot either: `about`, `checkpoint`, `data.max_damage`,
`optim.max_bad_steps`, `optim.spike.limit`.
Every field carries a docstring; an unknown key is an error that names the nearest known one.
"""

from facemae.config.base import Config, Span, SpanConfig
from facemae.config.beneath import sound_copies, sound_frames
from facemae.config.data import DataConfig, StreamConfig
from facemae.config.fusion import FusionConfig
from facemae.config.model import CriticConfig, DecoderConfig, EncoderConfig, HeadConfig, LabelCounts, ObjectiveConfig
from facemae.config.monitor import MonitorConfig
from facemae.config.recipe import Recipe
from facemae.config.run import CheckpointConfig, EfficiencyConfig, LogConfig, OptimConfig, SpikeConfig
from facemae.config.sounds import MelSettings, SoundConfig, SoundEncoderConfig, SoundMaskConfig
from facemae.config.views import (
    BlurConfig,
    ClipConfig,
    ColourConfig,
    CropConfig,
    MaskConfig,
    MixupConfig,
    NormaliseConfig,
    SolariseConfig,
    StageConfig,
    ViewConfig,
    copy_names,
)

__all__ = [
    "BlurConfig",
    "CheckpointConfig",
    "ClipConfig",
    "ColourConfig",
    "Config",
    "CriticConfig",
    "CropConfig",
    "DataConfig",
    "DecoderConfig",
    "EfficiencyConfig",
    "EncoderConfig",
    "FusionConfig",
    "HeadConfig",
    "LabelCounts",
    "LogConfig",
    "MaskConfig",
    "MelSettings",
    "MixupConfig",
    "MonitorConfig",
    "NormaliseConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "Recipe",
    "SolariseConfig",
    "SoundConfig",
    "SoundEncoderConfig",
    "SoundMaskConfig",
    "Span",
    "SpanConfig",
    "SpikeConfig",
    "StageConfig",
    "StreamConfig",
    "ViewConfig",
    "copy_names",
    "sound_copies",
    "sound_frames",
]
