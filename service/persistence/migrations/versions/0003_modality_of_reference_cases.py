"""The modality of a reference case, to be filtered by; empty where it is not known."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "reference_cases",
        sa.Column("modality", sa.String(64), nullable=False, server_default=""),
    )


def downgrade() -> None:
    # Never in batch mode: it drops the table to copy it, and every vector with it (CASCADE).
    op.drop_column("reference_cases", "modality")
