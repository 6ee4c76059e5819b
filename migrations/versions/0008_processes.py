"""Table processes."""

from alembic import op

revision = "0008_r0_1"
down_revision = "0007_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS processes (
    id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    experiment_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    gateway_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    part SMALLINT NOT NULL,
    state VARCHAR(24) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state_since DATETIME(6) NOT NULL,
    reason VARCHAR(512) NOT NULL DEFAULT '',
    outcome VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin,
    failure LONGTEXT,
    version INTEGER NOT NULL,
    tasks_total INTEGER NOT NULL DEFAULT '0',
    tasks_open INTEGER NOT NULL DEFAULT '0',
    tasks_failed INTEGER NOT NULL DEFAULT '0',
    trace_context VARCHAR(55) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    snapshot LONGTEXT,
    deadline_at DATETIME(6),
    created_at DATETIME(6) NOT NULL,
    updated_at DATETIME(6) NOT NULL,
    finished_at DATETIME(6),
    PRIMARY KEY (id),
    KEY processes_experiment (experiment_id),
    KEY processes_stale (state, updated_at),
    CONSTRAINT processes_state CHECK (state IN ('CREATED', 'VALIDATED', 'STARTED', 'CANCELING', 'COMPLETED', 'FAILED', 'CANCELED')),
    CONSTRAINT processes_finished CHECK ((state IN ('CANCELED', 'COMPLETED', 'FAILED')) = (finished_at IS NOT NULL)),
    CONSTRAINT processes_counts CHECK (tasks_open >= 0 AND tasks_failed >= 0)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS processes")
