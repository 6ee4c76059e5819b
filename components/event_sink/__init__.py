"""Hands the history to the API server."""
