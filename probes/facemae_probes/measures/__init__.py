"""Metrics by name, with intervals over units, paired tests and slices."""

from facemae_probes.measures.base import Metric
from facemae_probes.measures.evaluate import EVALUATED, evaluate, judge
from facemae_probes.measures.grouping import group_samples
from facemae_probes.measures.intervals import Interval, interval, intervals
from facemae_probes.measures.paired import PairedTest, holm, paired_difference, paired_test
from facemae_probes.measures.registry import METRICS, Measure, find_metric, legal_names, primary, register
from facemae_probes.measures.slices import Gap, Slice, Slices, slices
from facemae_probes.measures.thresholds import decide, fit_thresholds

__all__ = [
    "EVALUATED",
    "METRICS",
    "Gap",
    "Interval",
    "Measure",
    "Metric",
    "PairedTest",
    "Slice",
    "Slices",
    "decide",
    "evaluate",
    "find_metric",
    "fit_thresholds",
    "group_samples",
    "holm",
    "interval",
    "intervals",
    "judge",
    "legal_names",
    "paired_difference",
    "paired_test",
    "primary",
    "register",
    "slices",
]
