"""Table timers."""

from alembic import op

revision = "0017_r0_1"
down_revision = "0016_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS timers (
    due_at DATETIME(6) NOT NULL,
    id BIGINT NOT NULL AUTO_INCREMENT,
    mid BINARY(16) NOT NULL,
    process_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    topic VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    part SMALLINT NOT NULL,
    k VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    headers VARBINARY(4096) NOT NULL,
    payload MEDIUMBLOB NOT NULL,
    PRIMARY KEY (due_at, id),
    CONSTRAINT timers_id UNIQUE (id),
    KEY timers_process (process_id)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS timers")
