"""Where a run's numbers, events and pictures go beside its own files."""

from facemae.train.loggers.base import Logger, LoggerRun, Loggers

__all__ = ["Logger", "LoggerRun", "Loggers"]
