"""Creates the table of explanations by language models and their ratings."""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "practice_explanations",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("learner", sa.String(80), nullable=False),
        sa.Column("slug", sa.String(80), nullable=False),
        sa.Column("model", sa.String(120), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("withheld", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("helped", sa.Boolean()),
        sa.PrimaryKeyConstraint("number", name="pk_practice_explanations"),
    )
    op.create_index(
        "ix_practice_explanations_learner", "practice_explanations", ["learner", "number"]
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("practice_explanations")
