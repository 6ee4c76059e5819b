"""Table dead_letters."""

from alembic import op

revision = "0020_r0_1"
down_revision = "0019_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS dead_letters (
    id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    consumer_group VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    topic VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    part SMALLINT NOT NULL,
    log_offset BIGINT,
    mid BINARY(16) NOT NULL,
    k VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    headers BLOB NOT NULL,
    payload MEDIUMBLOB NOT NULL,
    experiment_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin,
    error_class VARCHAR(64) NOT NULL,
    error_text VARCHAR(2048) NOT NULL,
    tries INTEGER NOT NULL,
    first_seen DATETIME(6) NOT NULL,
    created_at DATETIME(6) NOT NULL,
    settled VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin,
    settled_at DATETIME(6),
    settled_by VARCHAR(128),
    settled_reason VARCHAR(1024),
    PRIMARY KEY (id),
    KEY dead_letters_experiment (experiment_id),
    KEY dead_letters_open (settled, created_at),
    CONSTRAINT dead_letters_settled CHECK (settled IN ('REPLAYED', 'DROPPED'))
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS dead_letters")
