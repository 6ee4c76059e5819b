"""Table host_circuits."""

from alembic import op

revision = "0023_r0_1"
down_revision = "0022_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS host_circuits (
    compute_resource_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    credential_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    condition_code VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    since DATETIME(6) NOT NULL,
    detail VARCHAR(512) NOT NULL,
    host_version INTEGER NOT NULL,
    PRIMARY KEY (compute_resource_id, credential_id)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS host_circuits")
