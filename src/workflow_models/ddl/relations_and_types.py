"""What clones use: enum types, sequences, and each other where their tables are not as declared.

The real ones, since functions and expressions name them; where one is missing, or has other values, one of
pg_temp under a name of its own stands for it, and is printed as what it stands for.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, Enum, Table, text
from sqlalchemy import Sequence as DeclaredSequence

from .enum_types import PREFIX, EnumTypes, enum_in, enums_of, named, rewritten_by
from .expression import outside_of_texts
from .facts import Facts
from .item import identifier, literal, quoted, rewritten
from .sequences import create_sequence, sequences_of

# What is called without its schema, and is no clone.
_VISIBLE = text("""
    SELECT EXISTS (SELECT FROM pg_class WHERE relname = ANY (CAST(:names AS text[]))
        AND relnamespace <> pg_my_temp_schema() AND pg_table_is_visible(oid))
""")


def _rename(connection: Connection, clone: str, name: str) -> None:
    connection.exec_driver_sql(
        f"ALTER TABLE {quoted('pg_temp', clone)} RENAME TO {quoted(name)}",
        execution_options={"no_parameters": True},
    )


class RelationsAndTypes:
    """What statements that make clones use in the place of what they name.

    :param visible: the schemas without which PostgreSQL prints names.
    :param types: what stands for enum types.
    """

    def __init__(
        self, connection: Connection, tables: Sequence[Table], visible: Sequence[str], types: EnumTypes
    ) -> None:
        self._visible = visible
        self._types = types
        self._rewrites: list[tuple[str, str]] = []
        self._read: list[tuple[str, str]] = []
        self._real = dict(types.real)
        for enum in enums_of(tables):
            self._use_enum(enum, tables)
        for sequence in sequences_of(tables):
            self._use_sequence(connection, sequence)

    def _use_enum(self, enum: Enum, tables: Iterable[Table]) -> None:
        name = str(enum.name)
        own = re.escape(quoted("pg_temp", name)) + r'(?![\w$"])'
        # All that are needed are there before a table could create one.
        self._rewrites.append((rf"\s*CREATE TYPE {own}.*", "SELECT"))
        # Of one name there may be several, and a table may be called the same.
        in_columns = [
            rf"(?P<kept>CREATE TABLE {re.escape(quoted('pg_temp', table.name))} \(.*?"
            rf"\n\t{re.escape(quoted(column.name))} ){own}"
            for table in tables
            for column in table.columns
            if (type_ := enum_in(column.type)) and (type_.name, type_.schema) == (name, enum.schema)
        ]
        instead = self._types.used_for(enum) or quoted(enum.schema, name)
        self._rewrites += [(pattern, instead) for pattern in in_columns]

    def _use_sequence(self, connection: Connection, sequence: DeclaredSequence) -> None:
        name = quoted(sequence.schema, sequence.name)
        if connection.scalar(text("SELECT to_regclass(:name)"), {"name": name}) is None:
            name = self._substitute(sequence.name, sequence.schema)
            create_sequence(connection, sequence, name)
        self._rewrites.append((re.escape(literal(quoted("pg_temp", sequence.name))), literal(name)))

    def _substitute(self, name: str, schema: str | None) -> str:
        substitute = f"{PREFIX}{len(self._real)}"
        self._real[substitute] = name, schema
        return quoted("pg_temp", substitute)

    @contextmanager
    def clones_are_read(
        self, connection: Connection, tables: Mapping[Table, str], clones: Mapping[str, Table]
    ) -> Iterator[None]:
        """Let what names tables mean their clones.

        :param tables: those that are missing, or have other columns, with the names of their clones.
        :param clones: the tables that all clones stand for, by their names.
        """
        for table, clone in tables.items():
            schemas = [table.schema] if table.schema else self._visible
            called = rf"(?:{'|'.join(map(identifier, schemas))})\s*\.\s*{identifier(table.name)}"
            self._read.append((rf'(?<![\w$".]){called}(?![\w$"])(?!\s*\()', quoted("pg_temp", clone)))
        path = connection.scalar(text("SELECT current_setting('search_path')"))
        change = text("SELECT set_config('search_path', :path, true)")
        hidden = [name for name, table in clones.items() if not self._is_visible(table)]
        by_name = any(map(self._is_visible, tables)) and not connection.scalar(_VISIBLE, {"names": hidden})
        connection.execute(change, {"path": f"pg_temp, {path}" if by_name else path})
        yield
        connection.execute(change, {"path": path})
        self._read.clear()

    def _is_visible(self, table: Table) -> bool:
        return table.schema is None or table.schema in self._visible

    @contextmanager
    def clones_are_told(
        self, connection: Connection, clones: Mapping[str, Table]
    ) -> Iterator[Mapping[str, str]]:
        """Let PostgreSQL print names of clones that no real table has; gives them.

        :param clones: the tables that they stand for, by their names.
        """
        others = {name: f"{PREFIX}{len(self._real) + place}" for place, name in enumerate(clones)}
        self._real |= {others[name]: (table.name, table.schema) for name, table in clones.items()}
        for name, other in others.items():
            _rename(connection, name, other)
        yield others
        for name, other in others.items():
            _rename(connection, other, name)

    @contextmanager
    def used(self, connection: Connection) -> Iterator[None]:
        """Let all statements use them."""
        with rewritten(connection, self._using):
            yield

    def _using(self, sql: str) -> str:
        sql = self._types.in_expressions(rewritten_by(sql, self._rewrites))
        return outside_of_texts(sql, lambda part: rewritten_by(part, self._read)) if self._read else sql

    def facts(self, read: Facts) -> Facts:
        """Give facts with the names that are declared."""
        return named(read, self._real, self._visible)
