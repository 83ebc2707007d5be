"""Makes what is declared, to read it: on clones in pg_temp, in a transaction that is rolled back.

Nothing stronger than ACCESS SHARE is taken on a real table, and nothing stays. PostgreSQL prints both
sides, under one search_path.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    ForeignKeyConstraint,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    TextClause,
    UniqueConstraint,
    text,
)
from sqlalchemy import Sequence as DeclaredSequence
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import AddConstraint
from sqlalchemy.sql.ddl import SchemaGenerator, sort_tables

from . import dependencies, facts
from .compare import Difference, differences
from .dependencies import Key
from .enum_types import EnumTypes, enums_of, printed
from .expression import ends_in_comment, fault
from .facts import COLUMN_KINDS, Fact, Facts, Target
from .function import Function, Schema
from .grant import GrantOn
from .item import DeclarationError, MetaDataItem, create_items, items_of, literal, quoted, rewritten, roles
from .order import Comparison, needs_dependencies
from .relations_and_types import RelationsAndTypes
from .sequences import continued, declared_sequences, renamed_sequences, sequences_of
from .substitutes import Substitutes
from .substitutes import read as read_functions

_Item = TypeVar("_Item", bound=MetaDataItem)

_TEMPORARY = "pg_temp"
_PATIENCE = "5s"
_LOCK_NOT_AVAILABLE = "55P03"
_WRONG_KIND = "42809"
# A table, a column, a type.
_MISSING = ("42P01", "42703", "42704")
_NOT_PERMITTED = "42501"
# A table that is missing is created with these.
_WITH_TABLE = (
    *COLUMN_KINDS,
    "primary key",
    "unique constraint",
    "exclusion constraint",
    "check constraint",
    "foreign key",
    "table comment",
    "replica identity",
    "clustering",
    "persistence",
    "relation kind",
    "sequence",
    "identity sequence",
    "sequence persistence",
)


class ComparisonError(Exception):
    """A database in which nothing can be compared; says why, and what would help."""


def managed_tables(metadata: MetaData | Sequence[MetaData]) -> list[Table]:
    """Give the tables that are compared, those that others refer to first, also from another MetaData."""
    tables = [table for each in _collections(metadata) for table in each.tables.values()]
    tables.sort(key=lambda table: str(table.key))
    return list(sort_tables(tables))


def is_managed(table: Table, metadata: MetaData | Sequence[MetaData]) -> bool:
    """Tell whether a table is one of those that are compared."""
    return any(each.tables.get(table.key) is table for each in _collections(metadata))


def print_alike(connection: Connection) -> None:
    """Let PostgreSQL print names for the rest of the transaction as statements here write them."""
    connection.exec_driver_sql("SET LOCAL quote_all_identifiers = off")


def set_path(connection: Connection, schemas: Iterable[str]) -> None:
    """Let names be looked for in these schemas, until the transaction ends."""
    path = ", ".join(map(quoted, schemas))
    connection.execute(text("SELECT set_config('search_path', :path, true)"), {"path": path})


_HOMES_OF = text("""
    SELECT DISTINCT nspname::text FROM unnest(CAST(:names AS text[])) AS name
    LEFT JOIN pg_class ON pg_class.oid = to_regclass(quote_ident(name))
    LEFT JOIN pg_namespace AS n ON n.oid = relnamespace
""")


def homes(connection: Connection, tables: Iterable[Table]) -> list[str]:
    """Give the schemas of the path in which tables are that are declared without one, or would be created."""
    visible = visible_schemas(connection)
    declared = {table.schema for table in tables}
    others = [schema for schema in visible if schema not in declared]
    names = [table.name for table in tables if table.schema is None]
    found = set(connection.scalars(_HOMES_OF, {"names": names}))
    if None in found:
        found |= set(others[:1])
    return [schema for schema in visible if schema in found]


def compare(
    connection: Connection,
    metadata: MetaData | Sequence[MetaData],
    *,
    include: Callable[[Table], bool] = lambda table: True,
    known: Sequence[str] = (),
) -> list[Difference]:
    """Give what differs between what is declared and a database; ``comparison()`` says the rest."""
    return list(comparison(connection, metadata, include=include, known=known).differences)


def comparison(
    connection: Connection,
    metadata: MetaData | Sequence[MetaData],
    *,
    include: Callable[[Table], bool] = lambda table: True,
    known: Sequence[str] = (),
    dropped: Sequence[Table] = (),
) -> Comparison:
    """Compare what is declared with the database that a connection is to.

    :param connection: may be in a transaction; it is left as it was.
    :param include: which tables are compared. Of a MetaData none of whose tables are, nothing else is either.
    :param known: tables that may be in declared schemas besides those, as Alembic's version table.
    :param dropped: tables of the database that are not compared, but read, since they will be dropped.
    :raises ComparisonError: on a standby, in a read-only transaction, without TEMPORARY privilege, or where
        the catalogs cannot be read.
    :raises DeclarationError: when PostgreSQL refuses an item.
    """
    collections = [
        each for each in _collections(metadata) if not each.tables or any(map(include, each.sorted_tables))
    ]
    tables = [table for table in managed_tables(collections) if include(table)]
    _refuse_unless_clones_can_be_made(connection)
    found: Facts = {}
    with _explained(connection, tables, found), connection.begin_nested() as savepoint:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
        # To compile the queries of the catalogs takes ten times as long as to run them.
        connection.exec_driver_sql("SET LOCAL jit = off")
        print_alike(connection)
        # A foreign key of a clone to itself is validated, under policies of which off would make an error.
        connection.exec_driver_sql("SET LOCAL row_security = on")
        # What is declared hides what others call the same, and is printed without its schema.
        ours = {*homes(connection, tables), *_schemas(collections), *(table.schema for table in tables)}
        path = sorted(visible_schemas(connection), key=lambda schema: schema not in ours)
        # pg_temp last: a clone is never found where the real table is.
        set_path(connection, [*path, _TEMPORARY])
        visible = visible_schemas(connection)
        sequences = _sequences(collections, tables)
        renamed = renamed_sequences(connection, sequences, tables, _schemas(collections))
        # The core reports what it will drop.
        found |= _found(connection, collections, tables, [*known, *map(_name, dropped)], renamed, visible)
        with connection.begin_nested() as made:
            declared, rewriting = _declared(connection, collections, tables, known, found, visible)
            made.rollback()
        standalone = {
            printed(name, each.schema, visible)
            for each in sequences
            for name in (each.name, renamed.get(each, each.name))
        }
        declared |= continued(declared, found, sequences, tables, visible)
        declared, found = (_without_sequences(standalone, each) for each in (declared, found))
        _expect_one_owner(connection, declared, found)
        differing = list(_reported(declared, found))
        uses = []
        columns_go = any(key[0] == "type" and key not in declared for key in found)
        if columns_go or needs_dependencies(differing):
            uses = dependencies.read(connection, _targets(connection, tables, visible), _schemas(collections))
        lost = _on_dropped(connection, dropped, visible)
        savepoint.rollback()
    return Comparison(differing, declared, found, uses, rewriting, lost)


@contextmanager
def _explained(connection: Connection, tables: Sequence[Table], found: Facts) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, DeclarationError) as error:
        cause = error if isinstance(error, DBAPIError) else error.__cause__
        if _sqlstate(cause) == _LOCK_NOT_AVAILABLE:
            holders = _holders(connection)
            raise ComparisonError(
                f"a lock could not be had within {_PATIENCE}, since "
                f"{'; '.join(holders) or 'somebody alters what is compared'}; "
                "nothing was changed: run it again once that is done."
            ) from error
        if isinstance(error, DeclarationError):
            if _UNDECLARED_COLUMN.search(str(error)):
                raise DeclarationError(f"{error}\nNo column of that name is declared there.") from cause
            missing = next(_missing(str(error), tables, found), None)
            if missing is None or _sqlstate(cause) not in _MISSING:
                raise
            raise DeclarationError(
                f"{error}\n{missing} is declared, and not there yet: leave out what reads it in the "
                "revision that adds it, upgrade, and declare that then."
            ) from cause
        raise ComparisonError(f"the database refused to be read: {error.orig}") from error


# An item on a clone, which has all columns that are declared.
_UNDECLARED_COLUMN = re.compile(r'column "(?:[^"]|"")*" of relation "')


def _missing(message: str, tables: Iterable[Table], found: Facts) -> Iterator[str]:
    """Give the declared tables and columns that a message names, and that are not there."""
    for table in tables:
        for column in table.columns:
            if ("type", _name(table), column.name) in found:
                continue
            of_table = rf'"(?:\w+\.)?{re.escape(table.fullname)}(?:\[\])?"'
            if re.search(rf"(?:relation|type) {of_table}", message):
                yield table.fullname
            of_column = rf'(?:"{re.escape(column.name)}"|(?:\w+\.)?{re.escape(column.name)})'
            if re.search(rf"column {of_column} ", message):
                yield f"{table.fullname}.{column.name}"


def _sqlstate(error: BaseException | None) -> str | None:
    state: str | None = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state


def hold(connection: Connection, relations: Iterable[str]) -> None:
    """Take ACCESS SHARE on the tables that there are, for this transaction: what reads them waits no more.

    :param relations: the tables, as statements say them.
    :raises ComparisonError: when somebody has one for himself for too long.
    """
    for name in relations:
        try:
            with connection.begin_nested():
                before, _, oid = connection.execute(_PATIENTLY, {"name": name, "patience": _PATIENCE}).one()
                if oid is not None:
                    connection.exec_driver_sql(
                        f"LOCK TABLE {name} IN ACCESS SHARE MODE", execution_options={"no_parameters": True}
                    )
                connection.execute(
                    text("SELECT set_config('lock_timeout', :before, true)"), {"before": before}
                )
        except DBAPIError as error:
            if _sqlstate(error) == _LOCK_NOT_AVAILABLE:
                holders = _holders(connection, name)
                raise ComparisonError(
                    f"{'; '.join(holders) or f'somebody had {name} under ACCESS EXCLUSIVE'}, for more than "
                    f"{_PATIENCE}; run it again once that is done."
                ) from error
            # Of a foreign table nothing else can be said than that it is one.
            if _sqlstate(error) not in (_NOT_PERMITTED, _WRONG_KIND):
                raise


_PATIENTLY = text("""
    SELECT current_setting('lock_timeout'), set_config('lock_timeout', :patience, true), to_regclass(:name)
""")

# A reader waits for both, for the one that waits too.
_HELD = """
    FROM pg_locks JOIN pg_class ON pg_class.oid = relation AND relkind IN ('r', 'p', 'v', 'm', 'f')
    WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode = 'AccessExclusiveLock' AND pid <> pg_backend_pid() AND relpersistence <> 't'
        AND oid >= 16384
"""
_HOLDERS = text(f"""
    SELECT 'pid ' || pid || CASE WHEN granted THEN ' has ' ELSE ' waits to have ' END || oid::regclass
        || ' under ACCESS EXCLUSIVE'
    {_HELD} AND (oid = to_regclass(:name) OR CAST(:name AS text) IS NULL)
    ORDER BY granted DESC, pid, oid::regclass::text
""")
_ARE_HELD = text(f"""
    SELECT DISTINCT (SELECT nspname::text FROM pg_namespace WHERE oid = relnamespace), relname::text
    {_HELD}
""")


def held_by_others(connection: Connection) -> Sequence[tuple[str, str]]:
    """Give the schema and the name of all tables that somebody has for himself at the moment."""
    return [(schema, name) for schema, name in connection.execute(_ARE_HELD)]


def _holders(connection: Connection, name: str | None = None) -> Sequence[str]:
    """Say who has tables for himself, or waits to have them.

    :param name: of the table that is asked for; None for all.
    """
    return connection.scalars(_HOLDERS, {"name": name}).all()


def _collections(metadata: MetaData | Sequence[MetaData]) -> Sequence[MetaData]:
    return [metadata] if isinstance(metadata, MetaData) else metadata


def _refuse_unless_clones_can_be_made(connection: Connection) -> None:
    standby, read_only, temporary, database, user = connection.execute(
        text(
            "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', "
            "has_database_privilege(current_database(), 'TEMPORARY'), current_database(), current_user"
        )
    ).one()
    if standby:
        raise ComparisonError(
            "this server is a standby, and declared objects are compared on temporary clones: "
            "compare with the primary."
        )
    if read_only:
        raise ComparisonError(
            "the transaction is read-only, and declared objects are compared on temporary clones: "
            "compare in one that may write; it is rolled back."
        )
    if not temporary:
        raise ComparisonError(
            f"{user} may not create temporary tables, on which declared objects are compared: "
            f"GRANT TEMPORARY ON DATABASE {quoted(database)} TO {quoted(user)};"
        )


_CLOSED = text("""
    SELECT nspname::text, current_user::text FROM pg_namespace
    WHERE nspname = ANY (CAST(:names AS text[])) AND NOT has_schema_privilege(oid, 'USAGE') ORDER BY 1
""")


def refuse_closed_schemas(connection: Connection, tables: Iterable[Table]) -> None:
    """See to it that names of declared tables can be looked up.

    :raises ComparisonError: when the role may not look into the schema of one.
    """
    names = sorted({table.schema for table in tables if table.schema})
    for schema, user in connection.execute(_CLOSED, {"names": names}):
        raise ComparisonError(
            f"{user} may not look into the schema {schema}, whoever owns what is in it: "
            f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(user)};"
        )


def _items(collections: Iterable[MetaData], kind: type[_Item]) -> list[_Item]:
    return [item for metadata in collections for item in items_of(metadata, kind)]


def _schemas(collections: Sequence[MetaData]) -> list[str]:
    """Give the schemas that are compared as a whole."""
    return [schema.name for schema in _items(collections, Schema)]


_OIDS = text("""
    SELECT name, to_regclass(name)::oid FROM unnest(CAST(:names AS text[])) AS name
    WHERE to_regclass(name) IS NOT NULL
""")


def _oids(connection: Connection, relations: Iterable[str]) -> dict[str, int]:
    """Give the oids of those relations that there are, by the names that statements say."""
    names = list(relations)
    return dict(connection.execute(_OIDS, {"names": names}).all()) if names else {}


def qualified(connection: Connection, relation: str) -> str | None:
    """Give the name of a relation with the schema that it is in; None where there is none."""
    row = connection.execute(_QUALIFIED, {"name": relation}).one_or_none()
    return quoted(*row) if row else None


_QUALIFIED = text("""
    SELECT nspname::text, relname::text FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace
    WHERE pg_class.oid = to_regclass(:name)
""")


def _found(
    connection: Connection,
    collections: Sequence[MetaData],
    tables: Sequence[Table],
    known: Sequence[str],
    renamed: Mapping[DeclaredSequence, str],
    visible: Sequence[str],
) -> Facts:
    """Read what there is.

    :param renamed: how declared sequences are called.
    :param visible: the schemas without which PostgreSQL prints names.
    """
    found: Facts = {}
    schemas = _schemas(collections)
    there = _targets(connection, tables, visible)
    found |= facts.of_relations(connection, there, schemas, {})
    of_enums, types = facts.of_enums(connection, enums_of(tables), schemas)
    found |= of_enums
    sequences = _sequences(collections, tables)
    called = {
        quoted(each.schema, each.name): quoted(each.schema, renamed.get(each, each.name))
        for each in sequences
    }
    found |= facts.of_sequences(
        connection,
        [
            (each.schema, renamed.get(each, each.name), name)
            for each, name in zip(sequences, called.values(), strict=True)
        ],
    )
    granted_on = [quoted(grant.schema, grant.table) for grant in _items(collections, GrantOn)]
    granted = [
        Target(oid, name)
        for name, oid in _oids(connection, dict.fromkeys([*granted_on, *called.values()])).items()
    ]
    declared_names = {name: declared for declared, name in called.items()}
    for fact in facts.of_privileges(connection, granted).values():
        fact = replace(fact, on=declared_names.get(fact.on, fact.on))
        found[fact.key] = fact
    oids = [*_oids(connection, [*known, *called.values()]).values()]
    oids += [target.oid for target in (*there, *granted)]
    functions = _items(collections, Function)
    for schema in dict.fromkeys([*schemas, *(function.schema for function in functions)]):
        oid = connection.scalar(text("SELECT to_regnamespace(:name)::oid"), {"name": quoted(schema)})
        if oid is not None and schema in schemas:
            found |= facts.of_schema(connection, schema, oids, types)
            found |= facts.of_functions(connection, oid, schema)
        elif oid is not None:
            ours = [each.name for each in functions if each.schema == schema and not each.if_missing]
            found |= facts.of_functions(connection, oid, schema, ours)
    bodies = [function.body for function in functions]
    return found | (facts.of_settings(connection, bodies) if collections else {})


def _targets(
    connection: Connection, tables: Sequence[Table], visible: Sequence[str], schema: str | None = None
) -> list[Target]:
    """Give those of the tables that there are.

    :param schema: where to look for them instead of their own.
    """
    looked_for = {quoted(schema or table.schema, table.name): table for table in tables}
    return [
        Target(oid, _name(looked_for[name]), _printed_schema(looked_for[name], visible))
        for name, oid in _oids(connection, looked_for).items()
    ]


def _declared(
    connection: Connection,
    collections: Sequence[MetaData],
    tables: Sequence[Table],
    known: Sequence[str],
    found: Facts,
    visible: Sequence[str],
) -> tuple[Facts, Collection[Key]]:
    """Give what is declared, and the missing columns for which a table that is there is rewritten."""
    declared: Facts = {}
    for schema in _items(collections, Schema):
        declared |= _of_schema(connection, schema)
    sequences = _sequences(collections, tables)
    # The version table, and the sequences, are there at the latest when a revision runs.
    known = [*known, *(quoted(each.schema, each.name) for each in sequences)]
    grants = {grant: quoted(grant.schema, grant.table) for grant in _items(collections, GrantOn)}
    there = {*known, *_oids(connection, grants.values())}
    for grant, name in grants.items():
        if name in there:
            granted = _granted(connection, name, f"TABLE {name}", grant.privileges, grant.to)
            declared |= {fact.key: fact for fact in granted}
    lacking = [table for table in tables if not _columns_are_there(table, found)]
    types = EnumTypes(connection, enums_of(tables), visible)
    functions, substitutes = read_functions(
        connection, _items(collections, Function), found, visible, types, tables_stand=not lacking
    )
    declared |= functions
    declared |= facts.of_declared_enums(enums_of(tables))
    declared |= declared_sequences(connection, sequences)
    rewriting: set[Key] = set()
    for together in _of_different_names(tables):
        with connection.begin_nested() as made:
            of_tables = _of_tables(
                connection, together, lacking, _schemas(collections), substitutes, types, found, visible
            )
            rewriting |= _rewriting(connection, together, of_tables, found, visible)
            made.rollback()
        declared |= of_tables
    return declared, rewriting


def _of_different_names(tables: Iterable[Table]) -> list[list[Table]]:
    """Part tables so that those of one part can stand in one schema."""
    parts: list[dict[str, Table]] = []
    for table in tables:
        part = next((part for part in parts if table.name not in part), None)
        if part is None:
            parts.append(part := {})
        part[table.name] = table
    return [list(part.values()) for part in parts]


def _of_tables(
    connection: Connection,
    tables: Sequence[Table],
    lacking: Iterable[Table],
    schemas: Sequence[str],
    substitutes: Substitutes,
    types: EnumTypes,
    found: Facts,
    visible: Sequence[str],
) -> Facts:
    """Make clones of tables, and give the facts of them.

    :param lacking: tables, these or others, that are missing or lack columns: only clones can be read.
    """
    declared: Facts = {}
    others = _bare_ones(tables, lacking)
    clone_of = others | {table: table for table in tables}
    enums = enums_of((*tables, *others.values()))
    used = RelationsAndTypes(connection, (*tables, *others.values()), visible, types)
    clones = connection.execution_options(
        schema_translate_map=dict.fromkeys(
            # None always, since statements are kept as compiled with it or without.
            [
                None,
                *(table.schema for table in (*tables, *others.values())),
                *(enum.schema for enum in enums),
                *(sequence.schema for sequence in sequences_of(tables)),
            ],
            _TEMPORARY,
        )
    )
    # One for all tables, since it remembers the types that it has made.
    generator = SchemaGenerator(clones.dialect, clones, checkfirst=False)  # type: ignore[no-untyped-call]
    try:
        with substitutes.called(connection), used.used(connection):
            for table in tables:
                _refuse_what_leaves_its_parentheses(table)
            for table in (*others.values(), *tables):
                with _named(table):
                    # Its foreign keys and items come once all that they name is there.
                    generator.traverse_single(
                        table, include_foreign_key_constraints=(), _is_metadata_operation=True
                    )
            changing = {
                **{table: clone_of[table].name for table in lacking},
                **{table: table.name for table in _of_other_types(connection, tables, found)},
            }
            clone_names = {clone.name: table for table, clone in clone_of.items()} if changing else {}
            with used.clones_are_read(connection, changing, clone_names) if changing else nullcontext():
                for table in tables:
                    create_items(table, clones)
            for table in tables:
                for key in sorted(table.foreign_key_constraints, key=lambda key: tuple(key.column_keys)):
                    with _named(table):
                        _add(clones, key, others)
        targets = _targets(connection, tables, visible, _TEMPORARY)
        with used.clones_are_told(connection, clone_names) as other_names:
            names = {
                other_names.get(clone.name, clone.name): _printed_name(connection, table, visible)
                for table, clone in clone_of.items()
            }
            read = facts.of_relations(connection, targets, schemas, names)
        declared |= used.facts(substitutes.facts(read))
        for table in tables:
            logged = (f"ALTER TABLE {_name(table)} SET LOGGED",)
            persistence = Fact("persistence", _name(table), "", {"value": "logged"}, logged)
            declared[persistence.key] = persistence
    finally:
        connection.execution_options(schema_translate_map={})
    return declared


def _columns_are_there(table: Table, found: Facts) -> bool:
    return all(("type", _name(table), column.name) in found for column in table.columns)


_COLUMNS_OF_CLONES = text("""
    SELECT relname::text, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid AND relkind = 'r' AND relnamespace = pg_my_temp_schema()
    WHERE attnum > 0
""")


def _of_other_types(connection: Connection, tables: Iterable[Table], found: Facts) -> list[Table]:
    """Give the tables a column of which has another type than its clone."""
    declared = {(clone, column): type_ for clone, column, type_ in connection.execute(_COLUMNS_OF_CLONES)}

    def differs(table: Table, column: str) -> bool:
        fact = found.get(("type", _name(table), column))
        type_ = str(fact.attributes["value"]).partition(" COLLATE ")[0] if fact else None
        return type_ is not None and type_ != declared[table.name, column]

    return [table for table in tables if any(differs(table, column.name) for column in table.columns)]


def _refuse_what_leaves_its_parentheses(table: Table) -> None:
    """SQLAlchemy writes the expressions of its own items as they are."""
    checks = (item for item in table.constraints if isinstance(item, CheckConstraint))
    indexed = ((index, sql) for index in table.indexes for sql in index.expressions)
    written = (
        *((f"CHECK {check.name or ''}".strip(), check.sqltext) for check in checks),
        *((f"Index {index.name}", sql) for index, sql in indexed),
        *((f"Column {each.name}", each.computed.sqltext) for each in table.columns if each.computed),
    )
    for what, sql in written:
        if not isinstance(sql, TextClause):
            continue
        wrong = fault(sql.text) or (ends_in_comment(sql.text) and "ends in a comment, that goes on behind it")
        if wrong:
            raise DeclarationError(f"{what} on {table.fullname}: its expression {wrong}: {sql.text}")


@contextmanager
def _named(table: Table) -> Iterator[None]:
    """Let errors name the table."""
    try:
        yield
    except DBAPIError as error:
        raise DeclarationError(f"Table {table.fullname!r}: {error.orig}") from error


def _add(connection: Connection, key: ForeignKeyConstraint, others: Mapping[Table, Table]) -> None:
    """Add a foreign key to a clone, to another one that may be called otherwise than its table."""
    referred = key.referred_table
    own, other = (quoted(_TEMPORARY, each.name) for each in (referred, others.get(referred, referred)))

    def instead(statement: str) -> str:
        return statement.replace(f" REFERENCES {own} ", f" REFERENCES {other} ")

    with rewritten(connection, instead):
        connection.execute(AddConstraint(key, isolate_from_table=False))


def _rewriting(
    connection: Connection, tables: Sequence[Table], declared: Facts, found: Facts, visible: Sequence[str]
) -> set[Key]:
    missing = {
        key
        for key in declared
        if key[0] == "type" and key not in found and ("persistence", key[1], "") in found
    }
    if not missing:
        return missing
    return missing & facts.rewriting(connection, _targets(connection, tables, visible, _TEMPORARY))


def _of_schema(connection: Connection, schema: Schema) -> Facts:
    """Give the facts of a declared schema, which cannot be cloned."""
    name = quoted(schema.name)
    itself = Fact(
        "schema", schema.name, schema.name, {}, (f"CREATE SCHEMA {name}",), drop=(f"DROP SCHEMA {name}",)
    )
    if not schema.if_exists:
        for role in connection.scalars(_MISSING_ROLES, {"roles": list(schema.usage)}):
            raise DeclarationError(f'Schema {schema.name!r}: role "{role}" does not exist')
    granted = _granted(connection, schema.name, f"SCHEMA {name}", ("USAGE",), schema.usage)
    return {fact.key: fact for fact in (itself, *granted)}


def _granted(
    connection: Connection, on: str, target: str, privileges: Sequence[str], to: Sequence[str]
) -> Iterator[Fact]:
    missing = connection.scalars(_MISSING_ROLES, {"roles": list(to)}).all()
    for role in [roles([role]) for role in to if role not in missing]:
        for privilege in privileges:
            yield Fact(
                "grant",
                on,
                f"{role}: {privilege}",
                {"grantable": False},
                (f"GRANT {privilege} ON {target} TO {role}",),
                drop=(f"REVOKE {privilege} ON {target} FROM {role}",),
            )


_MISSING_ROLES = text("""
    SELECT name FROM unnest(CAST(:roles AS text[])) AS name
    WHERE upper(name) <> 'PUBLIC' AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
""")


def _bare_ones(tables: Sequence[Table], lacking: Iterable[Table]) -> dict[Table, Table]:
    """Give what stands for tables that foreign keys go to, or that are lacking, so that these can be named.

    With columns and keys only: their own foreign keys, policies and triggers need more of others.
    """
    taken = {table.name for table in tables}
    others: dict[Table, Table] = {}
    referred = [key.referred_table for table in tables for key in table.foreign_key_constraints]
    for other in (*referred, *lacking):
        if other in tables or other in others:
            continue
        name = f"referenced_{len(others)}" if other.name in taken else other.name
        taken.add(name)
        others[other] = _bare(other, name)
    return others


def _bare(table: Table, name: str) -> Table:
    keys = [key for key in table.constraints if isinstance(key, (PrimaryKeyConstraint, UniqueConstraint))]
    unique = [key.columns for key in (*keys, *(index for index in table.indexes if index.unique))]
    return Table(
        name,
        MetaData(),
        *(Column(column.name, column.type) for column in table.columns),
        *(UniqueConstraint(*(column.name for column in columns)) for columns in unique if columns),
        schema=table.schema,
    )


def _on_dropped(connection: Connection, tables: Sequence[Table], visible: Sequence[str]) -> Facts:
    """Read what is on tables; nothing of partitions, or of what has some."""
    plain = [
        target
        for target in _targets(connection, tables, visible)
        if connection.scalar(
            text("SELECT relkind = 'r' AND NOT relispartition FROM pg_class WHERE oid = :oid"),
            {"oid": target.oid},
        )
    ]
    user = connection.scalar(text("SELECT current_user"))
    return {
        key: fact
        for key, fact in facts.of_relations(connection, plain, [], {}).items()
        if not (fact.kind == "owner" and fact.attributes["value"] == user)
    }


def _sequences(collections: Sequence[MetaData], tables: Iterable[Table]) -> list[DeclaredSequence]:
    """Give the sequences that are declared by themselves, whether a table uses them or not."""
    sequences = [*sequences_of(tables), *(each for of in collections for each in of._sequences.values())]
    return list({(sequence.schema, sequence.name): sequence for sequence in sequences}.values())


def _without_sequences(names: Collection[str], facts_: Facts) -> Facts:
    """Leave out, where tables use or own them, sequences that are compared by themselves."""
    used = {key: fact for key, fact in facts_.items() if key[0] == "sequence" and key[2] in names}
    granted = {(fact.on, f" on the sequence of {quoted(fact.column)}") for fact in used.values()}
    return {
        key: fact
        for key, fact in facts_.items()
        if key not in used
        and not (key[0] == "grant" and any(key[1] == on and key[2].endswith(name) for on, name in granted))
    }


def _expect_one_owner(connection: Connection, declared: Facts, found: Facts) -> None:
    """Declare who owns what is there: the migrating role, or, if it owns nothing, who owns the most."""
    user = connection.scalar(text("SELECT current_user"))
    there = {
        key: fact for key, fact in found.items() if key[0] == "owner" and _owned_is_declared(key, declared)
    }
    for key in [key for facts_ in (declared, found) for key in facts_ if key[0] == "owner"]:
        declared.pop(key, None)
        if key not in there and key in found:
            _come_back_with(found.pop(key), found, str(user))
    owners = Counter(fact.attributes["value"] for fact in there.values())
    if not owners:
        return
    owner = user if user in owners else owners.most_common(1)[0][0]
    for key, fact in there.items():
        what = fact.create[0].rpartition(" OWNER TO ")[0]
        to = "CURRENT_USER" if owner == user else quoted(owner)
        declared[key] = Fact(*key, {"value": owner}, (f"{what} OWNER TO {to}",))


def _come_back_with(owner: Fact, found: Facts, user: str) -> None:
    """Let what is not declared and belongs to somebody else be his again when it is made again."""
    if owner.attributes["value"] == user:
        return
    for kind in ("function", "statistics"):
        owned = found.get((kind, owner.on, owner.name))
        if owned is not None:
            role = literal(owner.attributes["value"])
            may = f"IF pg_has_role({role}, 'MEMBER')"
            again = f"DO $owner$ BEGIN {may} THEN {owner.create[0]}; END IF; END $owner$"
            found[owned.key] = replace(owned, create=(*owned.create, again))


def _owned_is_declared(key: tuple[str, str, str], declared: Facts) -> bool:
    _, on, name = key
    return (
        any((kind, on, name) in declared for kind in ("function", "statistics", "enum type"))
        if name
        else ("persistence", on, "") in declared or ("schema", on, on) in declared
    )


def _reported(declared: Facts, found: Facts) -> Iterator[Difference]:
    """Leave out what the core creates or drops, what comes with a function, and what is on no table."""
    missing = {on for kind, on, _ in declared if kind == "persistence" and (kind, on, "") not in found}
    whole = {
        difference.fact.name
        for difference in differences(declared, found)
        if difference.fact.kind == "function" and not difference.is_altered
    }
    others = {
        difference.fact.on
        for difference in differences(declared, found)
        if difference.fact.kind == "relation kind" and difference.found
    }
    for difference in differences(declared, found):
        fact = difference.fact
        if fact.on in others and fact.kind != "relation kind":
            # Nothing can be done about it as long as that is no table.
            continue
        if fact.on in missing:
            if fact.kind in _WITH_TABLE or (
                fact.kind == "row security" and not any(fact.attributes.values())
            ):
                continue
            others_read = any(_is_read(fact, table) for table in missing - {fact.on})
            yield Difference(difference.declared, difference.found, with_table=True, reads_others=others_read)
        elif (
            fact.column is not None
            and not all(("type", fact.on, fact.column) in facts_ for facts_ in (declared, found))
            # The core writes no options.
            and not (fact.kind == "column option" and difference.declared)
        ) or (fact.kind == "grant" and fact.name.partition(": EXECUTE on ")[2] in whole):
            continue
        else:
            yield difference


def _is_read(fact: Fact, table: str) -> bool:
    """Tell whether a policy names a table."""
    words = f"{fact.attributes['using']} {fact.attributes['check']}" if fact.kind == "policy" else ""
    return re.search(rf'(?<![\w$".]){re.escape(table)}(?![\w$"])', words) is not None


_PATH = text("SELECT name::text FROM unnest(current_schemas(false)) AS name WHERE name NOT LIKE 'pg_temp%'")


def visible_schemas(connection: Connection) -> list[str]:
    """Give the schemas without which PostgreSQL prints names."""
    return list(connection.scalars(_PATH))


def _printed_schema(table: Table, visible: Sequence[str]) -> str:
    return f"{quoted(table.schema)}." if table.schema and table.schema not in visible else ""


def _printed_name(connection: Connection, table: Table, visible: Sequence[str]) -> str:
    """Give the name of a table as PostgreSQL prints it; with its schema where another one hides it."""
    name = quoted(table.name)
    if table.schema in visible:
        found = qualified(connection, name)
        if found not in (None, _name(table)) and not str(found).startswith(_TEMPORARY):
            return _name(table)
    return _printed_schema(table, visible) + name


def _name(table: Table) -> str:
    return quoted(table.schema, table.name)
