"""Table credentials."""

from alembic import op

revision = "0004_r0_1"
down_revision = "0003_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS credentials (
    id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    gateway_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    owner VARCHAR(128) NOT NULL,
    name VARCHAR(64) NOT NULL,
    kind VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    public_key TEXT,
    fingerprint VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin,
    sealed BLOB NOT NULL,
    expires_at DATETIME(6),
    last_used_at DATETIME(6),
    version INTEGER NOT NULL,
    created_at DATETIME(6) NOT NULL,
    deleted_at DATETIME(6),
    PRIMARY KEY (id),
    CONSTRAINT credentials_name UNIQUE (gateway_id, name),
    KEY credentials_created (gateway_id, created_at, id)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS credentials")
