"""Table outputs."""

from alembic import op

revision = "0013_r0_1"
down_revision = "0012_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS outputs (
    experiment_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name VARCHAR(64) NOT NULL,
    type VARCHAR(16) NOT NULL,
    position SMALLINT NOT NULL,
    state VARCHAR(16) NOT NULL,
    uri VARCHAR(2048),
    size_bytes BIGINT,
    sha256 VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin,
    updated_at DATETIME(6) NOT NULL,
    PRIMARY KEY (experiment_id, name),
    CONSTRAINT outputs_state CHECK (state IN ('EXPECTED', 'STAGED', 'MISSING', 'FAILED')),
    CONSTRAINT outputs_staged CHECK ((state = 'STAGED') = (sha256 IS NOT NULL))
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS outputs")
