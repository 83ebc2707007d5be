"""The models as TypeScript, in the shape in which rows come as JSON from PostgreSQL or PostgREST."""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from textwrap import indent
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints
from uuid import UUID

from sqlalchemy.orm import ColumnProperty, Mapper

from workflow_models import Base, WorkflowDefinition, WorkflowExecutionLog

_HEADER = "// Written by `workflow-models typescript` from the models: change those, and run it again."
# JSON has neither dates nor UUIDs, and numbers for every kind of number. A bigint beyond 2^53 would be
# rounded: no sequence gets there.
_NAMES: dict[Any, str] = {
    bool: "boolean",
    datetime: "string",
    dict: "Record<string, unknown>",
    float: "number",
    int: "number",
    list: "unknown[]",
    str: "string",
    UUID: "string",
    Any: "unknown",
    NoneType: "null",
}


def interfaces() -> str:
    """Give an interface for each model, as the text of a module."""
    models = (WorkflowDefinition, WorkflowExecutionLog)
    return "\n".join([_HEADER, *("\n".join(["", *_interface(model.__mapper__)]) for model in models), ""])


def _interface(mapper: Mapper[Any]) -> Iterator[str]:
    table = mapper.local_table
    types = get_type_hints(
        mapper.class_, localns={each.class_.__name__: each.class_ for each in Base.registry.mappers}
    )
    yield from _comment(getattr(table, "comment", None))
    yield f"export interface {mapper.class_.__name__} {{"
    for column in table.columns:
        attribute = mapper.get_property_by_column(column)
        assert isinstance(attribute, ColumnProperty)
        yield from (indent(line, "    ") for line in _comment(column.comment))
        (annotated,) = get_args(types[attribute.key])
        yield f"    {column.name}: {_type(annotated)};"
    yield "}"


def _comment(text: str | None) -> Iterator[str]:
    if text:
        yield f"/** {text.replace('*/', '* /')} */"


def _type(annotated: Any) -> str:
    """Give the TypeScript type of what a model's column is annotated with."""
    if isinstance(annotated, UnionType):
        return " | ".join(map(_type, get_args(annotated)))
    if isinstance(annotated, type) and issubclass(annotated, StrEnum):
        return " | ".join(f"'{member}'" for member in annotated)
    return _NAMES[get_origin(annotated) or annotated]
