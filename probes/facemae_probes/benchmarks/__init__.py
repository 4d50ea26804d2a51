"""Benchmarks: what each measures, how its owner's folder is read, and what it must hold. One file a benchmark."""
