"""Names of reviewers and subjects of the audit as long as they may be; SQLite has no lengths."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("reviews", "reviewer", type_=sa.String(260))
        op.alter_column("audit_events", "subject", type_=sa.String(256))


def downgrade() -> None:
    """Nothing: wider columns are in no former version's way, and narrower ones might not do."""
