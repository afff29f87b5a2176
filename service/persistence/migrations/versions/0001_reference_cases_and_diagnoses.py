"""Reference cases, their vectors, and diagnoses."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reference_cases",
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("key", sa.BigInteger(), nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.Column("source", sa.String(500), nullable=False),
        sa.Column("licence", sa.String(200), nullable=False),
        sa.Column("group", sa.String(200), nullable=False),
        sa.Column("image_sha256", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("thumbnail", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_reference_cases"),
        sa.UniqueConstraint("key", name="uq_reference_cases_key"),
        sa.UniqueConstraint("task", "image_sha256", name="uq_reference_cases_task_image_sha256"),
    )
    op.create_index("ix_reference_cases_task_group", "reference_cases", ["task", "group"])
    op.create_table(
        "reference_vectors",
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("specialist", sa.String(64), nullable=False),
        sa.Column("case_id", sa.String(200), nullable=False),
        sa.Column("encoder_sha256", sa.String(64), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("task", "specialist", "case_id", name="pk_reference_vectors"),
        sa.ForeignKeyConstraint(
            ["case_id"],
            ["reference_cases.id"],
            name="fk_reference_vectors_case_id_reference_cases",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_reference_vectors_case_id", "reference_vectors", ["case_id"])
    op.create_table(
        "diagnoses",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("needs_review", sa.Boolean(), nullable=False),
        sa.Column("input_sha256", sa.String(64), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_diagnoses"),
    )
    op.create_index("ix_diagnoses_created_at_id", "diagnoses", ["created_at", "id"])
    op.create_index("ix_diagnoses_task_created_at_id", "diagnoses", ["task", "created_at", "id"])
    op.create_index("ix_diagnoses_input_sha256", "diagnoses", ["input_sha256"])


def downgrade() -> None:
    op.drop_table("diagnoses")
    op.drop_table("reference_vectors")
    op.drop_table("reference_cases")
