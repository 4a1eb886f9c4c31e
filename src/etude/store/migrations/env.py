"""Runs migrations on the connection that `store.engine` hands over."""

from alembic import context

from etude.store import practice
from etude.store.base import Base

assert practice.Submission.metadata is Base.metadata  # its tables are known

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
context.run_migrations()
