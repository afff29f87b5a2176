"""Run by Alembic on the connection that `database.upgrade` hands over."""

from alembic import context

from service.persistence.records import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
