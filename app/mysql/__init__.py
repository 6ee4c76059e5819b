"""DOOR: the only place that says SQL; a module is a table, a function a statement."""
