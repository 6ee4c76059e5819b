"""Traces, metrics, logs and their propagation."""
