"""Heads on frozen features: each takes `Targets` of any kind and gives scores [M, C]."""
