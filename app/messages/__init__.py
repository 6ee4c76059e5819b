"""PURE: what travels."""
