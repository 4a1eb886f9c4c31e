"""Creates the tables of the practice problems."""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "practice_submissions",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(32), nullable=False),
        sa.Column("learner", sa.String(80), nullable=False),
        sa.Column("slug", sa.String(80), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(40)),
        sa.Column("lease", sa.Double()),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("finished", sa.Double()),
        sa.Column("kind", sa.String(24)),
        sa.Column("verdict", sa.JSON()),
        sa.PrimaryKeyConstraint("number", name="pk_practice_submissions"),
        sa.UniqueConstraint("key", name="uq_practice_submissions_key"),
    )
    op.create_index("ix_practice_submissions_waiting", "practice_submissions", ["state", "number"])
    op.create_index("ix_practice_submissions_learner", "practice_submissions", ["learner"])
    op.create_table(
        "practice_learners",
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_practice_learners"),
    )
    op.create_table(
        "practice_openings",
        sa.Column("learner", sa.String(80), nullable=False),
        sa.Column("slug", sa.String(80), nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("hints", sa.Integer(), nullable=False),
        sa.Column("explained", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("learner", "slug", name="pk_practice_openings"),
    )
    op.create_table(
        "practice_reviews",
        sa.Column("learner", sa.String(80), nullable=False),
        sa.Column("concept", sa.String(80), nullable=False),
        sa.Column("box", sa.Integer(), nullable=False),
        sa.Column("due", sa.String(10), nullable=False),
        sa.Column("right", sa.Integer(), nullable=False),
        sa.Column("wrong", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("learner", "concept", name="pk_practice_reviews"),
    )
    op.create_table(
        "practice_dailies",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("learner", sa.String(80), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("slug", sa.String(80), nullable=False),
        sa.Column("why", sa.String(200), nullable=False),
        sa.Column("solved", sa.Double()),
        sa.PrimaryKeyConstraint("number", name="pk_practice_dailies"),
        sa.UniqueConstraint("learner", "day", name="uq_practice_dailies_learner"),
    )
