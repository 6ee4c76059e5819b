"""Alembic revisions: one DDL statement each, re-runnable."""
