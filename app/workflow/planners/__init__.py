"""Planners: experiment → tasks and edges."""
