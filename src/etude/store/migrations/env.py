"""Runs migrations on the connection that `store.engine` provides."""

from alembic import context

from etude.store import papers, practice, settings
from etude.store.base import Base

tables = (practice.Submission, papers.Paper, settings.Setting)
assert all(table.metadata is Base.metadata for table in tables)  # they are known

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
context.run_migrations()
