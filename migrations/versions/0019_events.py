"""Table events."""

from alembic import op

revision = "0019_r0_1"
down_revision = "0018_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS events (
    experiment_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    seq INTEGER NOT NULL,
    event_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    gateway_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    process_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    task_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin,
    type VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    occurred_at DATETIME(6) NOT NULL,
    stored_at DATETIME(6) NOT NULL,
    late SMALLINT NOT NULL,
    document LONGTEXT NOT NULL,
    PRIMARY KEY (experiment_id, seq),
    CONSTRAINT events_event UNIQUE (event_id)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS events")
