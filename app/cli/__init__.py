"""FACE: the command line, airavata."""
