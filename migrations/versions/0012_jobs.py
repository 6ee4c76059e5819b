"""Table jobs."""

from alembic import op

revision = "0012_r0_1"
down_revision = "0011_r0_1"


def upgrade() -> None:
    op.execute(
        """
CREATE TABLE IF NOT EXISTS jobs (
    id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    attempt_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    task_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    process_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    experiment_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    compute_resource_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    epoch INTEGER NOT NULL,
    state VARCHAR(24) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state_since DATETIME(6) NOT NULL,
    reason VARCHAR(512) NOT NULL DEFAULT '',
    scheduler_job_id VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin,
    script_sha256 VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    work_dir VARCHAR(1024) NOT NULL,
    document LONGTEXT NOT NULL,
    exit_code INTEGER,
    submitted_at DATETIME(6),
    wall_time_seconds INTEGER NOT NULL,
    missing_since DATETIME(6),
    evidence LONGTEXT,
    stdout_tail MEDIUMBLOB,
    stderr_tail MEDIUMBLOB,
    captured_at DATETIME(6),
    created_at DATETIME(6) NOT NULL,
    finished_at DATETIME(6),
    PRIMARY KEY (id),
    CONSTRAINT jobs_attempt UNIQUE (attempt_id),
    KEY jobs_experiment (experiment_id),
    KEY jobs_open (state, compute_resource_id),
    CONSTRAINT jobs_state CHECK (state IN ('PREPARED', 'SUBMITTING', 'IN_DOUBT', 'HELD', 'SUBMITTED', 'QUEUED', 'ACTIVE', 'SUSPENDED', 'UNKNOWN', 'NON_CRITICAL_FAIL', 'COMPLETED', 'FAILED', 'CANCELED', 'LOST')),
    CONSTRAINT jobs_finished CHECK ((state IN ('CANCELED', 'COMPLETED', 'FAILED', 'LOST')) = (finished_at IS NOT NULL))
) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin
"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS jobs")
