"""Alembic's scripts: applied by `database.upgrade`, in the order of `versions/`."""
