"""The Alembic plugin: what is declared and differs becomes operations of ``alembic revision --autogenerate``.

For the tables of the target metadata it stands in for all of the core's comparisons but whether a
table or a column is there.
"""

import importlib
from typing import Any


def setup(plugin: Any) -> None:
    """Register the comparison; called by Alembic through the entry point ``alembic.plugins``.

    Alembic calls this while it is being imported, so what needs it is imported with the first comparison.
    """
    priorities = importlib.import_module("alembic.util").DispatchPriority
    plugin.add_autogenerate_comparator(_hold, "autogenerate", priority=priorities.FIRST)
    plugin.add_autogenerate_comparator(_compare, "autogenerate", priority=priorities.LAST)
    for target, subgroups in (
        ("table", ("indexes", "foreignkeys", "checkconstraints", "comments")),
        ("column", ("server_default", "comments", "nullable", "types")),
    ):
        for subgroup in subgroups:
            plugin.add_autogenerate_comparator(
                _table_is_ours if target == "table" else _column_is_ours,
                target,
                subgroup,
                priority=priorities.FIRST,
            )


def _hold(autogen_context: Any, upgrade_ops: Any) -> Any:
    return importlib.import_module(".autogenerate", __package__).hold_tables(autogen_context, upgrade_ops)


def _compare(autogen_context: Any, upgrade_ops: Any) -> Any:
    return importlib.import_module(".autogenerate", __package__).compare_declared(
        autogen_context, upgrade_ops
    )


def _table_is_ours(
    autogen_context: Any, modify_ops: Any, schema: Any, name: Any, conn_table: Any, metadata_table: Any
) -> Any:
    return importlib.import_module(".autogenerate", __package__).stop_core(autogen_context, metadata_table)


def _column_is_ours(
    autogen_context: Any,
    alter_column_op: Any,
    schema: Any,
    table_name: Any,
    column_name: Any,
    conn_col: Any,
    metadata_col: Any,
) -> Any:
    table = metadata_col.table
    return importlib.import_module(".autogenerate", __package__).stop_core(autogen_context, table)
