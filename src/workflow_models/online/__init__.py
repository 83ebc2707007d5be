"""Changing a live PostgreSQL database with Alembic: locks, retries, refusals and operation directives.

Knows nothing of any particular schema. ``run.run()`` is what an ``env.py`` calls; the directives arrive as
``op.…`` through the entry point ``alembic.plugins``, while Alembic itself is being imported: this module
must not need it.
"""

from .errors import MigrationError, UsageError

__all__ = ["MigrationError", "UsageError"]
