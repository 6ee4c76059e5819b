"""FACE: HTTP."""
