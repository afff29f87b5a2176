"""What needs review is found without reading what does not."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NAME = "ix_diagnoses_needs_review_created_at_id_task"


def upgrade() -> None:
    op.create_index(NAME, "diagnoses", ["needs_review", "created_at", "id", "task"])


def downgrade() -> None:
    op.drop_index(NAME, "diagnoses")
