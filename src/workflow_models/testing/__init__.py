"""For the tests of services: a migrated database for each test, and whether a query leaks.

The fixtures of the pytest plugin, `workflow_models_pytest`, are made of these. Needs the extra
``workflow-models[pytest]``.
"""

from workflow_models.testing.databases import Database, Databases, TestingError, serve
from workflow_models.testing.isolation import assert_invisible, async_assert_invisible
from workflow_models.testing.rows import Rows

__all__ = [
    "Database",
    "Databases",
    "Rows",
    "TestingError",
    "assert_invisible",
    "async_assert_invisible",
    "serve",
]
