"""Table audit."""

from alembic import op

revision = "0006_r0_1"
down_revision = "0005_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS audit (
    id BIGINT NOT NULL AUTO_INCREMENT,
    gateway_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin,
    user VARCHAR(128) NOT NULL,
    action VARCHAR(128) NOT NULL,
    subject VARCHAR(128) NOT NULL,
    reason VARCHAR(1024),
    request_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    at DATETIME(6) NOT NULL,
    PRIMARY KEY (id),
    KEY audit_at (at)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS audit")
