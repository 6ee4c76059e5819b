"""Walks the graphs; alone writes the state of experiment, process and task after launch."""
