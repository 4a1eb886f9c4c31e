"""Creates the table of drafts; marks runs of visible tests, and what an explanation is about."""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and the columns."""
    op.create_table(
        "practice_drafts",
        sa.Column("user", sa.String(80), nullable=False),
        sa.Column("slug", sa.String(80), nullable=False),
        sa.Column("tab", sa.String(32), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("saved", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("user", "slug", "tab", name="pk_practice_drafts"),
    )
    op.add_column(
        "practice_submissions",
        sa.Column("visible_only", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column("practice_explanations", sa.Column("submission", sa.String(32)))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("practice_explanations", "submission")
    op.drop_column("practice_submissions", "visible_only")
    op.drop_table("practice_drafts")
