"""Table host_watches."""

from alembic import op

revision = "0021_r0_1"
down_revision = "0020_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS host_watches (
    compute_resource_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    owner VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin,
    until DATETIME(6) NOT NULL,
    last_look_at DATETIME(6),
    PRIMARY KEY (compute_resource_id)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS host_watches")
