"""Servers for airavata dev and for the tests."""
