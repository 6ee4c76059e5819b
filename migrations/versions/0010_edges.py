"""Table edges."""

from alembic import op

revision = "0010_r0_1"
down_revision = "0009_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS edges (
    process_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    from_task VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    to_task VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    on_end VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (from_task, to_task),
    KEY edges_process (process_id),
    KEY edges_to (to_task),
    CONSTRAINT edges_on CHECK (on_end IN ('SUCCESS', 'ENDED'))
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS edges")
