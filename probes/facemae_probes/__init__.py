"""Probes that measure a frozen encoder."""
