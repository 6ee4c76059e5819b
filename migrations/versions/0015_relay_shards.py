"""Table relay_shards."""

from alembic import op

revision = "0015_r0_1"
down_revision = "0014_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS relay_shards (
    shard SMALLINT NOT NULL,
    owner VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin,
    until DATETIME(6),
    settled BIGINT NOT NULL,
    PRIMARY KEY (shard)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS relay_shards")
