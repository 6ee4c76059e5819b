"""Table idempotency."""

from alembic import op

revision = "0005_r0_1"
down_revision = "0004_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS idempotency (
    scope VARBINARY(32) NOT NULL,
    fingerprint VARBINARY(32) NOT NULL,
    status SMALLINT,
    headers LONGTEXT,
    body MEDIUMBLOB,
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (scope),
    KEY idempotency_created (created_at)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS idempotency")
