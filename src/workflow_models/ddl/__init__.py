"""PostgreSQL objects as SQLAlchemy schema items, and their comparison with a database.

``RowSecurity``, ``Policy``, ``Trigger``, ``Grant``, ``Statistics``, ``StorageParameters`` and
``ColumnOptions`` stand in ``__table_args__`` beside ``Index``; ``Role``, ``Schema``, ``Function`` and
``GrantOn`` belong to a ``MetaData``.
``MetaData.create_all()`` creates them too. Needs only SQLAlchemy; ``plugin`` is for Alembic.
"""

from .function import Function, Role, Schema
from .grant import Grant, GrantOn
from .item import DeclarationError
from .policy import Policy, RowSecurity
from .statistics import Statistics
from .storage import ColumnOptions, StorageParameters
from .trigger import Trigger

__all__ = [
    "ColumnOptions",
    "DeclarationError",
    "Function",
    "Grant",
    "GrantOn",
    "Policy",
    "Role",
    "RowSecurity",
    "Schema",
    "Statistics",
    "StorageParameters",
    "Trigger",
]
