"""Measurements of ours against a named baseline, in the same run on the same machine."""
