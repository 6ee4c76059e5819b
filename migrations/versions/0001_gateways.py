"""Table gateways."""

from alembic import op

revision = "0001_r0_1"
down_revision = None


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS gateways (
    id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL,
    document LONGTEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at DATETIME(6) NOT NULL,
    updated_at DATETIME(6) NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT gateways_name UNIQUE (name),
    CONSTRAINT gateways_state CHECK (state IN ('ACTIVE', 'DEACTIVATED'))
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS gateways")
