"""Table tasks."""

from alembic import op

revision = "0009_r0_1"
down_revision = "0008_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS tasks (
    id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    process_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name VARCHAR(64) NOT NULL,
    type VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    model LONGTEXT,
    state VARCHAR(24) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state_since DATETIME(6) NOT NULL,
    reason VARCHAR(512) NOT NULL DEFAULT '',
    waiting_for INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT '0',
    epoch INTEGER NOT NULL DEFAULT '0',
    burned INTEGER NOT NULL DEFAULT '0',
    doubt_since DATETIME(6),
    next_attempt_at DATETIME(6),
    version INTEGER NOT NULL,
    failure LONGTEXT,
    finished_at DATETIME(6),
    PRIMARY KEY (id),
    CONSTRAINT tasks_name UNIQUE (process_id, name),
    CONSTRAINT tasks_state CHECK (state IN ('CREATED', 'SCHEDULED', 'EXECUTING', 'RETRY_WAIT', 'BLOCKED', 'IN_DOUBT', 'COMPLETED', 'FAILED', 'CANCELED', 'SKIPPED')),
    CONSTRAINT tasks_finished CHECK ((state IN ('CANCELED', 'COMPLETED', 'FAILED', 'SKIPPED')) = (finished_at IS NOT NULL)),
    CONSTRAINT tasks_counts CHECK (waiting_for >= 0 AND attempt >= burned AND burned >= 0)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS tasks")
