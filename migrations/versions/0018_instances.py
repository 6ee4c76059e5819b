"""Table instances."""

from alembic import op

revision = "0018_r0_1"
down_revision = "0017_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS instances (
    id VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    component VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    version VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    started_at DATETIME(6) NOT NULL,
    heartbeat_at DATETIME(6) NOT NULL,
    document LONGTEXT NOT NULL,
    PRIMARY KEY (id),
    KEY instances_heartbeat (heartbeat_at)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS instances")
