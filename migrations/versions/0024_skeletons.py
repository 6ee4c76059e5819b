"""Table skeletons."""

from alembic import op

revision = "0024_r0_1"
down_revision = "0023_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS skeletons (
    experiment_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    due_at DATETIME(6) NOT NULL,
    until DATETIME(6) NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment_id),
    KEY skeletons_due (due_at)
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS skeletons")
