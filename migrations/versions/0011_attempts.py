"""Table attempts."""

from alembic import op

revision = "0011_r0_1"
down_revision = "0010_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS attempts (
    id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    task_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    process_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    number INTEGER NOT NULL,
    state VARCHAR(24) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state_since DATETIME(6) NOT NULL,
    epoch INTEGER NOT NULL,
    owner VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin,
    created_at DATETIME(6) NOT NULL,
    started_at DATETIME(6),
    finished_at DATETIME(6),
    outcome LONGTEXT,
    PRIMARY KEY (id),
    CONSTRAINT attempts_number UNIQUE (task_id, number),
    KEY attempts_owner (owner),
    KEY attempts_process (process_id),
    CONSTRAINT attempts_state CHECK (state IN ('DISPATCHED', 'RUNNING', 'IN_DOUBT', 'SUCCEEDED', 'FAILED', 'CANCELED')),
    CONSTRAINT attempts_finished CHECK ((state IN ('CANCELED', 'FAILED', 'SUCCEEDED')) = (finished_at IS NOT NULL)),
    CONSTRAINT attempts_positive CHECK (number > 0 AND epoch > 0)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS attempts")
