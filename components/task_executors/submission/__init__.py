"""Plug-in."""
