"""Table catalogue."""

from alembic import op

revision = "0003_r0_1"
down_revision = "0002_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS catalogue (
    id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    gateway_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    kind VARCHAR(24) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name VARCHAR(192) NOT NULL,
    document LONGTEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at DATETIME(6) NOT NULL,
    updated_at DATETIME(6) NOT NULL,
    deleted_at DATETIME(6),
    PRIMARY KEY (id),
    CONSTRAINT catalogue_name UNIQUE (gateway_id, kind, name),
    KEY catalogue_created (gateway_id, kind, created_at, id)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS catalogue")
