"""Column processes.trace_keep."""

from alembic import op

revision = "0025_r0_1"
down_revision = "0024_r0_1"


def upgrade() -> None:
    if not _there():
        op.execute("ALTER TABLE processes ADD COLUMN trace_keep VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT ''")


def downgrade() -> None:
    if _there():
        op.execute("ALTER TABLE processes DROP COLUMN trace_keep")


def _there() -> bool:
    """MySQL knows no IF NOT EXISTS for columns, and a run may die between the statement and its note."""
    return bool(op.get_bind().exec_driver_sql("SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'processes' AND column_name = 'trace_keep'").first())
