"""Shards, their index, and the order, decoding and loading of samples."""
