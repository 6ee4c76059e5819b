"""Traces, metrics, logs and their propagation.

Metrics: `catalogue.py` is their table, as data: name, kind, labels with their closed sets, buckets, who emits it, and the question it answers. A test compares it with what a real
Prometheus scraped from all processes. `alerts/` has the rules, docs/runbooks a page for each, `dashboards/` what builds the dashboards.
"""
