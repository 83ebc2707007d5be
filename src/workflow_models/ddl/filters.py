"""Keeps an autogenerate run to what does not belong to a MetaData."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import MetaData, Table

from .function import Schema
from .item import items_of

IncludeName = Callable[[str | None, str, Mapping[str, str | None]], bool]
IncludeObject = Callable[[Any, str | None, str, bool, Any], bool]


def excluding(metadata: MetaData) -> tuple[IncludeName, IncludeObject]:
    """Give Alembic's ``include_name`` and ``include_object`` for a database that holds more than one's own.

    With them nothing of the MetaData is created, altered or dropped, whether it is among the target's or not.
    """

    def is_theirs(schema: str | None, name: str | None) -> bool:
        return f"{schema}.{name}" in metadata.tables if schema else name in metadata.tables

    def include_name(name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:
        if type_ == "schema":
            return name not in {schema.name for schema in items_of(metadata, Schema)}
        table = name if type_ == "table" else parent_names.get("table_name")
        return not is_theirs(parent_names.get("schema_name"), table)

    def include_object(item: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
        del name, type_, reflected, compare_to
        table = item if isinstance(item, Table) else item.table
        return not is_theirs(table.schema, table.name)

    return include_name, include_object
