"""Makes what is declared, to read it: on clones in pg_temp, in a transaction that is rolled back.

Nothing stronger than ACCESS SHARE is taken on a real table, and nothing stays. PostgreSQL prints both
sides, under one search_path.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, MetaData, Table, text

from . import facts
from .compare import Difference, differences
from .facts import Fact, Facts
from .function import Function, Schema
from .item import MetaDataItem, TableItem, execute, items_of, quoted

_TEMPORARY = "pg_temp"


def managed_tables(metadata: MetaData | Sequence[MetaData]) -> list[Table]:
    """Give the tables that are compared: those of each MetaData that declares any item, sorted."""
    collections = [metadata] if isinstance(metadata, MetaData) else metadata
    return [table for each in collections if _declares_items(each) for table in each.sorted_tables]


def compare(connection: Connection, metadata: MetaData | Sequence[MetaData]) -> list[Difference]:
    """Compare what is declared with the database that a connection is to.

    :param connection: may be in a transaction; it is left as it was.
    :raises DeclarationError: when PostgreSQL refuses an item.
    """
    collections = [metadata] if isinstance(metadata, MetaData) else metadata
    with connection.begin_nested() as savepoint:
        connection.exec_driver_sql("SELECT set_config('search_path', current_schema() || ', pg_temp', true)")
        found = _found(connection, collections)
        declared = _declared(connection, collections)
        savepoint.rollback()
    return [
        difference
        for difference in differences(declared, found)
        if not _belongs_to_core(difference, declared, found)
    ]


def _declares_items(metadata: MetaData) -> bool:
    return any(items_of(metadata, MetaDataItem)) or any(
        True for table in metadata.tables.values() for _ in items_of(table, TableItem)
    )


def _schemas(collections: Sequence[MetaData]) -> list[str]:
    """Give the schemas that are compared as a whole."""
    return [schema.name for metadata in collections for schema in items_of(metadata, Schema)]


def _found(connection: Connection, collections: Sequence[MetaData]) -> Facts:
    found: Facts = {}
    schemas = _schemas(collections)
    for table in managed_tables(collections):
        oid = connection.scalar(text("SELECT to_regclass(:name)::oid"), {"name": _name(table)})
        if oid is not None:
            found |= facts.of_relation(connection, oid, _name(table), schemas)
    for schema in schemas:
        oid = connection.scalar(text("SELECT to_regnamespace(:name)::oid"), {"name": quoted(schema)})
        if oid is not None:
            found |= facts.of_schema(connection, schema)
            found |= facts.of_functions(connection, oid, schema)
    return found


def _declared(connection: Connection, collections: Sequence[MetaData]) -> Facts:
    declared: Facts = {}
    for metadata in collections:
        for schema in items_of(metadata, Schema):
            declared |= dict(_of_schema(connection, schema))
        _make_missing(connection, metadata)
        declared |= _of_functions(connection, metadata)
    tables = managed_tables(collections)
    clones = connection.execution_options(
        schema_translate_map={table.schema: _TEMPORARY for table in (*tables, *_referenced(tables))}
    )
    try:
        for table in (*_referenced(tables), *tables):
            table.create(clones, checkfirst=False)
        for table in tables:
            oid = connection.scalar(
                text("SELECT to_regclass(:name)::oid"), {"name": quoted(_TEMPORARY, table.name)}
            )
            assert oid is not None
            read = facts.of_relation(connection, oid, _name(table), _schemas(collections))
            declared |= {key: fact for key, fact in read.items() if key[0] != "persistence"}
            persistence = Fact("persistence", _name(table), "", {"value": "logged"}, (), ())
            declared[persistence.key] = persistence
    finally:
        connection.execution_options(schema_translate_map={})
    return declared


def _of_schema(connection: Connection, schema: Schema) -> Iterator[tuple[tuple[str, str, str], Fact]]:
    """Give the facts of a declared schema, which cannot be cloned."""
    name = quoted(schema.name)
    statements = schema.statements(schema.name)
    fact = Fact("schema", schema.name, "", {}, tuple(statements[:1]), ())
    yield fact.key, fact
    roles = connection.scalars(
        text("SELECT rolname FROM pg_roles WHERE rolname = ANY (:roles)"), {"roles": list(schema.usage)}
    )
    for role in roles:
        grant, revoke = (
            f"{verb} USAGE ON SCHEMA {name} {direction} {quoted(role)}"
            for verb, direction in (("GRANT", "TO"), ("REVOKE", "FROM"))
        )
        fact = Fact("grant", schema.name, f"{quoted(role)}: USAGE", {"grantable": False}, (grant,), (revoke,))
        yield fact.key, fact


def _make_missing(connection: Connection, metadata: MetaData) -> None:
    """Make the schemas and functions that policies and triggers call, under their names, where missing."""
    for schema in items_of(metadata, Schema):
        if not connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": quoted(schema.name)}):
            execute(connection, schema.statements(schema.name), f"Schema {schema.name!r}")
    for function in items_of(metadata, Function):
        there = connection.scalar(
            text(
                "SELECT count(*) FROM pg_proc WHERE proname = :name "
                "AND pronamespace = to_regnamespace(:schema)::oid"
            ),
            {"name": function.name, "schema": quoted(function.schema)},
        )
        if not there:
            execute(connection, function.statements(function.schema), f"Function {function.name!r}")


def _of_functions(connection: Connection, metadata: MetaData) -> Facts:
    declared: Facts = {}
    functions: list[Function] = [f for f in items_of(metadata, Function) if not f.if_missing]
    for schema in dict.fromkeys(function.schema for function in functions):
        with connection.begin_nested() as savepoint:
            for function in functions:
                if function.schema == schema:
                    statements = function.statements(_TEMPORARY)
                    execute(connection, statements, f"Function {function.schema}.{function.name}")
            oid = connection.scalar(text("SELECT pg_my_temp_schema()"))
            assert oid is not None
            declared |= facts.of_functions(connection, oid, schema)
            savepoint.rollback()
    return declared


def _referenced(tables: Sequence[Table]) -> list[Table]:
    """Give the tables of others that foreign keys go to, so that clones can have those keys."""
    return list(
        dict.fromkeys(
            key.column.table
            for table in tables
            for key in table.foreign_keys
            if key.column.table not in tables
        )
    )


def _belongs_to_core(difference: Difference, declared: Facts, found: Facts) -> bool:
    """Tell whether Alembic's core has the difference already: with a table or column that it adds or drops."""
    kind, on, name = difference.fact.key
    if kind in ("default", "comment", "storage", "compression", "statistics target"):
        return ("default", on, name) not in declared or ("default", on, name) not in found
    if ("persistence", on, "") in found or kind in ("schema", "function"):
        return False
    return kind in ("constraint", "table comment", "persistence", "replica identity", "sequence")


def _name(table: Table) -> str:
    return quoted(table.schema, table.name)
