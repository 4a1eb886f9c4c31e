"""Renames the columns `learner` and `reader` to `user` in all tables.

Each row retains its value, so nothing is merged or lost: both columns had the same default, the
name of the system account.
"""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BY_LEARNER = ("submissions", "openings", "reviews", "dailies", "explanations")
_BY_READER = ("opinions", "tags", "following", "searches")


def upgrade() -> None:
    """Rename columns, and the indexes and constraints named after them."""
    op.drop_index("ix_practice_submissions_learner", "practice_submissions")
    op.drop_index("ix_practice_explanations_learner", "practice_explanations")
    _rename("practice_learners", "name", "user")
    op.rename_table("practice_learners", "practice_profiles")
    _rename_constraint("practice_profiles", "pk_practice_learners", "pk_practice_profiles")
    for table in _BY_LEARNER:
        _rename(f"practice_{table}", "learner", "user")
    for table in _BY_READER:
        _rename(f"papers_{table}", "reader", "user")
    _rename_unique("uq_practice_dailies_learner", "uq_practice_dailies_user", "user")
    op.create_index("ix_practice_submissions_user", "practice_submissions", ["user"])
    op.create_index("ix_practice_explanations_user", "practice_explanations", ["user", "number"])


def downgrade() -> None:
    """Rename them back."""
    op.drop_index("ix_practice_submissions_user", "practice_submissions")
    op.drop_index("ix_practice_explanations_user", "practice_explanations")
    for table in _BY_READER:
        _rename(f"papers_{table}", "user", "reader")
    for table in _BY_LEARNER:
        _rename(f"practice_{table}", "user", "learner")
    _rename_unique("uq_practice_dailies_user", "uq_practice_dailies_learner", "learner")
    op.rename_table("practice_profiles", "practice_learners")
    _rename_constraint("practice_learners", "pk_practice_profiles", "pk_practice_learners")
    _rename("practice_learners", "user", "name")
    op.create_index("ix_practice_submissions_learner", "practice_submissions", ["learner"])
    op.create_index(
        "ix_practice_explanations_learner", "practice_explanations", ["learner", "number"]
    )


def _rename(table: str, old: str, new: str) -> None:
    # A user is a keyword of PostgreSQL, hence the quotes.
    op.execute(f'ALTER TABLE {table} RENAME COLUMN "{old}" TO "{new}"')


def _rename_constraint(table: str, old: str, new: str) -> None:
    # SQLite has no names of primary keys that anything refers to, and cannot change them.
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {old} TO {new}")


def _rename_unique(old: str, new: str, column: str) -> None:
    """Rename the unique constraint of the daily problem; SQLite has to copy the table."""
    if op.get_context().dialect.name == "postgresql":
        _rename_constraint("practice_dailies", old, new)
        return
    with op.batch_alter_table("practice_dailies") as batch:
        batch.drop_constraint(old, type_="unique")
        batch.create_unique_constraint(new, [column, "day"])
