"""Table outbox."""

from alembic import op

revision = "0014_r0_1"
down_revision = "0013_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS outbox (
    shard SMALLINT NOT NULL,
    part SMALLINT NOT NULL,
    id BIGINT NOT NULL AUTO_INCREMENT,
    mid BINARY(16) NOT NULL,
    topic VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    k VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    headers VARBINARY(4096) NOT NULL,
    payload MEDIUMBLOB NOT NULL,
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (shard, part, id),
    CONSTRAINT outbox_id UNIQUE (id)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS outbox")
