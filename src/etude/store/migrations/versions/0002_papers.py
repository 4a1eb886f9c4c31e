"""Creates the tables of the papers."""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "papers",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("version", sa.Integer()),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("abstract", sa.Text(), nullable=False),
        sa.Column("authors", sa.JSON(), nullable=False),
        sa.Column("categories", sa.JSON(), nullable=False),
        sa.Column("published", sa.Double()),
        sa.Column("updated", sa.Double()),
        sa.Column("comment", sa.Text()),
        sa.Column("journal_ref", sa.Text()),
        sa.Column("doi", sa.Text()),
        sa.Column("licence", sa.Text()),
        sa.Column("datestamp", sa.String(10)),
        sa.Column("announced", sa.String(10), nullable=False),
        sa.Column("replaced", sa.String(10)),
        sa.Column("withdrawn", sa.Boolean()),
        sa.Column("basis", sa.JSON(), nullable=False),
        sa.Column("first_seen", sa.Double(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("summary", sa.Text()),
        sa.Column("summary_by", sa.String(120)),
        sa.PrimaryKeyConstraint("number", name="pk_papers"),
        sa.UniqueConstraint("id", name="uq_papers_id"),
    )
    op.create_index("ix_papers_revision", "papers", ["revision"])
    op.create_index("ix_papers_announced", "papers", ["announced"])
    op.create_table(
        "papers_listings",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("id", "day", name="pk_papers_listings"),
    )
    op.create_index("ix_papers_listings_day", "papers_listings", ["day"])
    op.create_table(
        "papers_opinions",
        sa.Column("reader", sa.String(80), nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("reader", "id", name="pk_papers_opinions"),
    )
    op.create_table(
        "papers_tags",
        sa.Column("reader", sa.String(80), nullable=False),
        sa.Column("tag", sa.String(80), nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("reader", "tag", "id", name="pk_papers_tags"),
    )
    op.create_table(
        "papers_following",
        sa.Column("reader", sa.String(80), nullable=False),
        sa.Column("author", sa.String(200), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("reader", "author", name="pk_papers_following"),
    )
    op.create_table(
        "papers_searches",
        sa.Column("reader", sa.String(80), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("reader", "name", name="pk_papers_searches"),
    )
    op.create_table(
        "papers_marks",
        sa.Column("key", sa.String(80), nullable=False),
        sa.Column("value", sa.JSON()),
        sa.PrimaryKeyConstraint("key", name="pk_papers_marks"),
    )
    op.execute("INSERT INTO papers_marks (key, value) VALUES ('revision', '0')")


def downgrade() -> None:
    """Drop the tables."""
    for table in ("marks", "searches", "following", "tags", "opinions", "listings"):
        op.drop_table(f"papers_{table}")
    op.drop_table("papers")
