"""Runs migrations on the connection that `store.engine` hands over."""

from alembic import context

import etude.store.practice  # noqa: F401 - its tables
from etude.store.base import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
context.run_migrations()
