"""DOOR: where inputs come from and outputs go to."""
