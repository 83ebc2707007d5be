"""Declared enum types, some of which the database lacks, or has with other values.

For these, one of pg_temp under a name of its own stands in what is made to be read, and is printed as what it
stands for.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import ARRAY, Connection, Enum, Table, TypeDecorator
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from . import facts
from .expression import outside_of_texts
from .facts import Facts, reworded
from .item import identifier, literal, quoted

PREFIX = "declared_object_"
# With the schema of what it belongs to, or with its own.
# Where it is named a second time, a number follows.
_PRINTED = re.compile(rf'(?:(?:[\w$]+|"(?:[^"]|"")+")\.)?\b({PREFIX}\d+)(?P<again>_\d+)?\b(?P<column>\.)?')


def enums_of(tables: Iterable[Table]) -> list[Enum]:
    """Give the enum types that columns have, each once."""
    found = (enum_in(column.type) for table in tables for column in table.columns)
    return list({(enum.schema, enum.name): enum for enum in found if enum is not None}.values())


_dialect = postgresql.dialect()  # type: ignore[no-untyped-call]


def native(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Give what PostgreSQL has for a type, whatever it is wrapped in."""
    own = type_.dialect_impl(_dialect)
    return native(own.impl_instance) if isinstance(own, TypeDecorator) else own


def enum_in(type_: TypeEngine[Any]) -> Enum | None:
    """Give the enum type that a type is, or the items of an array are."""
    own = native(type_)
    if isinstance(own, ARRAY):
        return enum_in(own.item_type)
    return own if isinstance(own, Enum) and own.native_enum and own.name else None


def printed(name: str, schema: str | None, visible: Sequence[str]) -> str:
    """Give a name as PostgreSQL prints it."""
    return quoted(None if schema in visible else schema, name)


def rewritten_by(sql: str, rewrites: Iterable[tuple[str, str]]) -> str:
    """Change SQL by patterns; what is ``kept`` of a match stays in front."""
    for pattern, instead in rewrites:
        sql = re.sub(pattern, partial(_instead, instead), sql, flags=re.DOTALL)
    return sql


def _instead(instead: str, found: re.Match[str]) -> str:
    return found.groupdict().get("kept", "") + instead


def named(read: Facts, real: Mapping[str, tuple[str, str | None]], visible: Sequence[str]) -> Facts:
    """Give facts with the names of what others stand for.

    :param real: the name and the schema of each, by that of what stands for it.
    :param visible: the schemas without which PostgreSQL prints names.
    """

    def instead(found: re.Match[str]) -> str:
        name, schema = real[found[1]]
        if found["again"]:
            return quoted(name + found["again"]) + (found["column"] or "")
        # In front of a column PostgreSQL names the table alone.
        return quoted(name) + "." if found["column"] else printed(name, schema, visible)

    return reworded(read, lambda words: _PRINTED.sub(instead, words)) if real else read


class EnumTypes:
    """The types of pg_temp that stand for others.

    :param visible: the schemas without which types are named and printed.
    """

    def __init__(self, connection: Connection, enums: Sequence[Enum], visible: Sequence[str]) -> None:
        self.real: dict[str, tuple[str, str | None]] = {}
        self._visible = visible
        self._used: dict[tuple[str | None, str | None], str] = {}
        self._in_expressions: list[tuple[str, str]] = []
        self._in_signatures: list[tuple[str, str]] = []
        found, _ = facts.of_enums(connection, enums) if enums else ({}, [])
        for enum in enums:
            ((key, declared),) = facts.of_declared_enums([enum]).items()
            if key not in found or found[key].attributes != declared.attributes:
                self._make(connection, enum)

    def __bool__(self) -> bool:
        return bool(self.real)

    def _make(self, connection: Connection, enum: Enum) -> None:
        name = f"{PREFIX}{len(self.real)}"
        self.real[name] = str(enum.name), enum.schema
        substitute = self._used[enum.schema, enum.name] = quoted("pg_temp", name)
        connection.exec_driver_sql(
            f"CREATE TYPE {substitute} AS ENUM ({', '.join(map(literal, enum.enums))})",
            execution_options={"no_parameters": True},
        )
        schemas = "|".join(map(identifier, [enum.schema] if enum.schema else self._visible))
        qualified = rf"(?:(?:{schemas})\s*\.\s*)"
        optional = "?" if enum.schema is None or enum.schema in self._visible else ""
        called = rf"{qualified}{optional}{identifier(str(enum.name))}"
        self._in_expressions += [
            (rf'(?<=::)\s*{called}(?![\w$"])', substitute),
            (rf"(?i:\bAS\s+){called}(?=\s*\))", f"AS {substitute}"),
        ]
        # Behind the name of an argument, or by itself.
        self._in_signatures.append(
            (
                rf"(?P<kept>(?:^|[\w$\"(,]\s+|[(,])){called}(?=\s*(?:$|[\[,)=]|(?i:DEFAULT)\b))",
                substitute,
            )
        )

    def used_for(self, enum: Enum) -> str | None:
        """Give what stands for a declared type; None where nothing does."""
        return self._used.get((enum.schema, enum.name))

    def in_expressions(self, sql: str) -> str:
        """Give SQL that uses them where it names those that they stand for."""
        return rewritten_by(sql, self._in_expressions)

    def in_signature(self, sql: str) -> str:
        """Give the arguments or the result of a function, which may have them."""
        return outside_of_texts(
            sql, lambda part: self.in_expressions(rewritten_by(part, self._in_signatures))
        )

    def facts(self, read: Facts) -> Facts:
        """Give facts with the names that are declared."""
        return named(read, self.real, self._visible)
