"""Frozen feature extraction."""
