"""The models as a diagram."""

from collections.abc import Iterator

from sqlalchemy import Column, ForeignKeyConstraint, Table
from sqlalchemy.dialects import postgresql

from workflow_models import metadata
from workflow_models.application import organizations

# Mermaid takes one word for a type.
_SHORT = {"timestamp with time zone": "timestamptz"}


def mermaid() -> str:
    """Both tables, and the application's organizations, as a Mermaid `erDiagram`."""
    tables = [organizations, *metadata.sorted_tables]
    lines = [line for table in tables for line in (*_entity(table), *_relations(table))]
    return "\n".join(["erDiagram", *(f"    {line}" for line in lines)])


def _entity(table: Table) -> Iterator[str]:
    yield f"{table.name} {{"
    for column in table.columns:
        yield f"    {_type(column)} {column.name} {_keys(column)}".rstrip()
    yield "}"


def _relations(table: Table) -> Iterator[str]:
    for key in sorted(table.foreign_key_constraints, key=lambda key: str(key.name)):
        yield f'{key.referred_table.name} {_ends(key)} {table.name} : "{", ".join(key.column_keys)}"'


def _ends(key: ForeignKeyConstraint) -> str:
    return "|o--o{" if any(column.nullable for column in key.columns) else "||--o{"


def _type(column: Column[object]) -> str:
    name = column.type.compile(postgresql.dialect()).lower()  # type: ignore[no-untyped-call]
    return _SHORT.get(name, name)


def _keys(column: Column[object]) -> str:
    return ", ".join(
        key for key, is_one in (("PK", column.primary_key), ("FK", bool(column.foreign_keys))) if is_one
    )
