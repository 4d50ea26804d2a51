"""Where a run's numbers, events and pictures go beside its own files."""

from facemae.train.record.loggers.base import Logger, LoggerRun, Loggers

__all__ = ["Logger", "LoggerRun", "Loggers"]
