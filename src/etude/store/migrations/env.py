"""Runs migrations on the connection that `store.engine` provides."""

from alembic import context

from etude.store import papers, practice
from etude.store.base import Base

assert practice.Submission.metadata is papers.Paper.metadata is Base.metadata  # tables are known

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
context.run_migrations()
