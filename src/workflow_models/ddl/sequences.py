"""Sequences that are declared by themselves, and owned by no table."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Column, Connection, Table, text
from sqlalchemy import Sequence as DeclaredSequence
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateSequence
from sqlalchemy.sql.functions import next_value

from . import facts
from .enum_types import PREFIX, printed
from .facts import Facts
from .item import literal, quoted


def sequences_of(tables: Iterable[Table]) -> list[DeclaredSequence]:
    """Give the sequences that server defaults take values of, and no table owns, each once."""
    defaults = (column.server_default for table in tables for column in table.columns)
    calls = (getattr(default, "arg", None) for default in defaults)
    sequences = (call.sequence for call in calls if isinstance(call, next_value))
    return list({(sequence.schema, sequence.name): sequence for sequence in sequences}.values())


def declared_sequences(connection: Connection, sequences: Iterable[DeclaredSequence]) -> Facts:
    """Make sequences in pg_temp, and read them as if they were the real ones."""
    read: Facts = {}
    made = quoted("pg_temp", f"{PREFIX}made")
    for sequence in sequences:
        with connection.begin_nested() as savepoint:
            create_sequence(connection, sequence, made)
            read |= facts.of_sequences(connection, [(sequence.schema, sequence.name, made)])
            savepoint.rollback()
    return read


def create_sequence(connection: Connection, sequence: DeclaredSequence, name: str) -> None:
    """Create a sequence as it is declared, under another name."""
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    statement = str(CreateSequence(sequence).compile(dialect=dialect))
    own = f"CREATE SEQUENCE {quoted(sequence.schema, sequence.name)}"
    options = statement.removeprefix(own)
    connection.exec_driver_sql(f"CREATE SEQUENCE {name}{options}", execution_options={"no_parameters": True})


# Used by a column that is declared to use another one; or, in a schema of ours, by none.
_CALLED_OTHERWISE = text("""
    SELECT name, used FROM (
        SELECT c.relname::text AS name, n.nspname = ANY (CAST(:schemas AS text[])) AS is_ours,
            count(f.oid) AS uses, count(declared.name) > 0 AS used
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
            AND d.classid = 'pg_attrdef'::regclass
        LEFT JOIN pg_attrdef AS f ON f.oid = d.objid
        LEFT JOIN pg_attribute AS a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
        LEFT JOIN jsonb_to_recordset(CAST(:users AS jsonb)) AS declared (relation text, name text)
            ON to_regclass(declared.relation) = f.adrelid AND declared.name = a.attname
        WHERE c.relkind = 'S' AND n.nspname = coalesce(CAST(:schema AS text), current_schema())
            AND c.relname <> ALL (CAST(:others AS text[]))
            AND NOT EXISTS (SELECT FROM pg_depend AS o
                WHERE o.classid = 'pg_class'::regclass AND o.objid = c.oid AND o.deptype IN ('a', 'i'))
        GROUP BY c.relname, n.nspname
    ) AS own WHERE used OR is_ours AND uses = 0
""")


def renamed_sequences(
    connection: Connection,
    sequences: Sequence[DeclaredSequence],
    tables: Sequence[Table],
    schemas: Sequence[str],
) -> Mapping[DeclaredSequence, str]:
    """Give the names of those that are there under another one, where no other could be meant.

    :param schemas: those that are compared as a whole.
    """
    found: dict[DeclaredSequence, str] = {}
    for sequence in sequences:
        name = quoted(sequence.schema, sequence.name)
        if connection.scalar(text("SELECT to_regclass(:name)"), {"name": name}) is not None:
            continue
        users = [
            {"relation": quoted(table.schema, table.name), "name": column.name}
            for table, column in _users(sequence, tables)
        ]
        parameters = {
            "schema": sequence.schema,
            "schemas": list(schemas),
            "users": json.dumps(users),
            "others": [each.name for each in sequences if each.schema == sequence.schema],
        }
        rows = connection.execute(_CALLED_OTHERWISE, parameters).all()
        names = [name for name, used in rows if used] or [name for name, _ in rows]
        (declared,) = declared_sequences(connection, [sequence]).values()
        read = facts.of_sequences(
            connection, [(sequence.schema, name, quoted(sequence.schema, name)) for name in names]
        )
        alike = [fact.name for fact in read.values() if fact.attributes == declared.attributes]
        if len(alike) == 1:
            found[sequence] = alike[0]
    called = list(zip((each.schema for each in found), found.values(), strict=True))
    return {each: name for each, name in found.items() if called.count((each.schema, name)) == 1}


def _users(sequence: DeclaredSequence, tables: Iterable[Table]) -> Iterator[tuple[Table, Column[object]]]:
    """Give the columns that take values of a sequence, in the database or before they are sent to it."""
    for table in tables:
        for column in table.columns:
            call = getattr(column.server_default, "arg", None)
            if column.default is sequence or (isinstance(call, next_value) and call.sequence is sequence):
                yield table, column


def continued(
    declared: Facts,
    found: Facts,
    sequences: Iterable[DeclaredSequence],
    tables: Sequence[Table],
    visible: Sequence[str],
) -> Facts:
    """Let sequences that are missing go on after the values that columns have of them.

    :param visible: the schemas without which PostgreSQL prints names.
    """
    changed: Facts = {}
    for sequence in sequences:
        key = "standalone sequence", sequence.schema or sequence.name, sequence.name
        call = f"nextval({literal(printed(sequence.name, sequence.schema, visible))}::regclass)"
        users = [
            *((quoted(table.schema, table.name), column.name) for table, column in _users(sequence, tables)),
            *(
                (on, name)
                for (kind, on, name), fact in declared.items()
                if kind == "default" and fact.attributes["value"] == call
            ),
        ]
        values = [
            f"SELECT {quoted(name)} FROM {on}"
            for on, name in dict.fromkeys(users)
            if (fact := found.get(("type", on, name))) and fact.attributes["value"] in _INTEGERS
        ]
        if not values:
            continue
        fact = declared[key]
        last = "max" if fact.attributes["increment"] > 0 else "min"
        going_on = (
            f"SELECT setval({literal(quoted(sequence.schema, sequence.name))}, {last}(used)) "
            f"FROM ({' UNION ALL '.join(values)}) AS own (used) "
            f"WHERE used BETWEEN {fact.attributes['minimum']} AND {fact.attributes['maximum']}"
        )
        changed[key] = replace(fact, create=(*fact.create, going_on))
    return changed


_INTEGERS = ("smallint", "integer", "bigint")
