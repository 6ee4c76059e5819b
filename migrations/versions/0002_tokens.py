"""Table tokens."""

from alembic import op

revision = "0002_r0_1"
down_revision = "0001_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS tokens (
    id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    gateway_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin,
    lookup VARCHAR(12) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    digest VARBINARY(32) NOT NULL,
    key_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name VARCHAR(64) NOT NULL,
    user VARCHAR(128) NOT NULL,
    `role` VARCHAR(16) NOT NULL,
    scopes TEXT NOT NULL,
    expires_at DATETIME(6) NOT NULL,
    revoked_at DATETIME(6),
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT tokens_lookup UNIQUE (lookup),
    KEY tokens_gateway (gateway_id, id)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS tokens")
