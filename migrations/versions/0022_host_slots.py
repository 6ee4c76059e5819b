"""Table host_slots."""

from alembic import op

revision = "0022_r0_1"
down_revision = "0021_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS host_slots (
    host VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    n SMALLINT NOT NULL,
    owner VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin,
    until DATETIME(6) NOT NULL,
    PRIMARY KEY (host, n),
    KEY host_slots_owner (owner)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS host_slots")
