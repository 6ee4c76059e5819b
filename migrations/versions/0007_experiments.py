"""Table experiments."""

from alembic import op

revision = "0007_r0_1"
down_revision = "0006_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS experiments (
    id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    gateway_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    project_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    owner VARCHAR(128) NOT NULL,
    name VARCHAR(200) NOT NULL,
    application_interface_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    deployment_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin,
    compute_resource_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin,
    document LONGTEXT NOT NULL,
    state VARCHAR(24) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state_since DATETIME(6) NOT NULL,
    reason VARCHAR(512) NOT NULL DEFAULT '',
    outcome VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin,
    failure LONGTEXT,
    process_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin,
    trace_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin,
    deadline_at DATETIME(6),
    version INTEGER NOT NULL,
    created_at DATETIME(6) NOT NULL,
    updated_at DATETIME(6) NOT NULL,
    launched_at DATETIME(6),
    finished_at DATETIME(6),
    deleted_at DATETIME(6),
    PRIMARY KEY (id),
    KEY experiments_created (gateway_id, created_at, id),
    KEY experiments_finished (finished_at),
    KEY experiments_project (project_id, state),
    KEY experiments_state (gateway_id, state, created_at, id),
    CONSTRAINT experiments_state CHECK (state IN ('CREATED', 'VALIDATED', 'LAUNCHED', 'EXECUTING', 'CANCELING', 'COMPLETED', 'FAILED', 'CANCELED')),
    CONSTRAINT experiments_finished CHECK ((state IN ('CANCELED', 'COMPLETED', 'FAILED')) = (finished_at IS NOT NULL)),
    CONSTRAINT experiments_outcome CHECK ((outcome IS NULL) = (finished_at IS NULL))
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS experiments")
