"""Run tasks; one generic entry point serves every task type."""
