"""Draft reports, and answers to questions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("reports", "answers"):
        op.create_table(
            name,
            sa.Column("id", sa.String(64), nullable=False),
            sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("task", sa.String(64), nullable=False),
            sa.Column("needs_review", sa.Boolean(), nullable=False),
            sa.Column("input_sha256", sa.String(64), nullable=False),
            sa.Column("document", sa.JSON(), nullable=False),
            sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
        )
        for column in ("created_at", "input_sha256"):
            op.create_index(f"ix_{name}_{column}", name, [column])


def downgrade() -> None:
    op.drop_table("answers")
    op.drop_table("reports")
