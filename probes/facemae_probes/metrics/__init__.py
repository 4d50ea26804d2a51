"""Metrics by name, with intervals over units, paired tests and slices."""

from facemae_probes.metrics.base import Metric
from facemae_probes.metrics.evaluate import EVALUATED, evaluate, judge
from facemae_probes.metrics.grouping import group_samples
from facemae_probes.metrics.intervals import Interval, interval, intervals
from facemae_probes.metrics.paired import PairedTest, paired_difference, paired_test
from facemae_probes.metrics.registry import METRICS, Measure, find_metric, legal_names, primary, register
from facemae_probes.metrics.slices import Gap, Slice, Slices, slices
from facemae_probes.metrics.thresholds import decide, fit_one_threshold, fit_thresholds

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
    "fit_one_threshold",
    "fit_thresholds",
    "group_samples",
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
