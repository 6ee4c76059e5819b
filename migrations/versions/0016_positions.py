"""Table positions."""

from alembic import op

revision = "0016_r0_1"
down_revision = "0015_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS positions (
    consumer_group VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    topic VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    part SMALLINT NOT NULL,
    topic_uuid VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    next_offset BIGINT NOT NULL,
    owner VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin,
    owner_epoch BIGINT NOT NULL,
    PRIMARY KEY (consumer_group, topic, part)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS positions")
