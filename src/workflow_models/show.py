"""What a migrated database has, read from its catalog and printed for people."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError

from workflow_models.errors import MissingExtraError

try:
    from alembic.script import ScriptDirectory
    from rich.console import Console
    from rich.text import Text
except ImportError as error:
    raise MissingExtraError("workflow_models.show", "cli", error) from None

from workflow_models import metadata
from workflow_models.migrations import VERSION_TABLE_SCHEMA, alembic_config, command_engine
from workflow_models.online import MigrationError

_VERSION_TABLE = f"{VERSION_TABLE_SCHEMA}.alembic_version"


@dataclass(frozen=True)
class _Item:
    """One object: its name, its definition, and what is wrong with it, such as INVALID."""

    name: str
    definition: str
    amiss: str | None


@dataclass(frozen=True)
class _Table:
    name: str
    comment: str | None
    sections: dict[str, list[_Item]]


def print_database(url: str, console: Console) -> None:
    """Print revision and tables of a database.

    :param url: for SQLAlchemy.
    :param console: gives the width; colours only where it is a terminal.
    :raises MigrationError: where the database cannot be read, or has no revision yet.
    """
    engine = command_engine(url)
    try:
        with engine.connect() as connection:
            # Names in our schema are printed bare, all others with their schema.
            connection.execute(text("SET TRANSACTION READ ONLY"))
            connection.execute(text("SET LOCAL search_path = public, pg_temp"))
            heading = _heading(connection)
            tables = [_read(connection, table.name) for table in metadata.sorted_tables]
    except DBAPIError as error:
        raise MigrationError(
            f"could not read {make_url(url).render_as_string(hide_password=True)}",
            happened=" ".join(str(error.orig).split()),
            unchanged="everything; this command only reads.",
            next_step="check host, port, user, password and database of the URL, and that the server runs.",
        ) from error
    console.print(heading, style="bold", soft_wrap=True)
    for table in tables:
        for line in _lines(table, console.width):
            console.print(line, soft_wrap=True)


def _heading(connection: Connection) -> str:
    database, server = connection.execute(
        text("SELECT current_database(), current_setting('server_version')")
    ).one()
    revisions: Sequence[str] = ()
    if connection.scalar(text("SELECT to_regclass(:table) IS NOT NULL"), {"table": _VERSION_TABLE}):
        revisions = connection.scalars(text(f"SELECT version_num FROM {_VERSION_TABLE} ORDER BY 1")).all()
    if not revisions:
        raise MigrationError(
            f"database {database} has not been migrated.",
            happened=f"{_VERSION_TABLE} holds no revision.",
            unchanged="everything; this command only reads.",
            next_step="run `alembic upgrade head`, whatever tables there are already.",
        )
    heads = ScriptDirectory.from_config(alembic_config()).get_heads()
    place = "head" if sorted(heads) == revisions else f"head is {', '.join(heads)}"
    return f"revision {', '.join(revisions)} ({place})\ndatabase {database}, PostgreSQL {server.split()[0]}"


def _read(connection: Connection, name: str) -> _Table:
    oid = connection.scalar(text("SELECT to_regclass(:name)::oid"), {"name": f"public.{name}"})
    return _Table(
        name,
        connection.scalar(text("SELECT obj_description(CAST(:table AS oid), 'pg_class')"), {"table": oid}),
        {
            title: [_Item(*row) for row in connection.execute(text(query), {"table": oid})]
            for title, query in _SECTIONS.items()
        },
    )


def _lines(table: _Table, width: int) -> Iterator[Text]:
    yield Text()
    yield Text(table.name, "bold")
    yield from (Text(line) for line in textwrap.wrap(table.comment or "", width))
    if not table.sections["columns"]:
        yield Text("  there is no such table", "red")
    for title, items in table.sections.items():
        if items:
            yield Text()
            yield Text(f"  {title}", "bold")
        column = min(max((len(item.name) for item in items), default=0), width // 2 - 6) + 6
        for item in items:
            yield from _item_lines(item, column, width)


def _item_lines(item: _Item, column: int, width: int) -> Iterator[Text]:
    """Two columns; the definition of a long name starts on the next line."""
    style = "red" if item.amiss else ""
    definition = _ALIASED.sub(r"(SELECT \1())", " ".join(filter(None, [item.amiss, item.definition])))
    first = f"    {item.name}"
    if len(first) + 2 > column:
        yield Text(first, style)
        first = ""
    for line in _wrapped(definition, max(width - column, 20)):
        yield Text(f"{first:<{column}}{line}".rstrip(), style)
        first = ""


def _wrapped(definition: str, width: int) -> Iterator[str]:
    """Lines that end before a clause where that is possible."""
    if len(definition) <= width and "\n" not in definition:
        yield definition  # keeps the alignment of the columns
        return
    line = ""
    # PostgreSQL breaks and indents long expressions in its own way.
    for clause in _CLAUSE.split(" ".join(definition.split())):
        if line and len(line) + 1 + len(clause) > width:
            yield line
            line = ""
        *full, line = textwrap.wrap(
            f"{line} {clause}".strip(), width, break_long_words=False, break_on_hyphens=False
        )
        yield from full
    yield line


_CLAUSE = re.compile(
    r" (?=(?:REFERENCES|ON UPDATE|ON DELETE|WHERE|TO|USING|WITH CHECK|FOR EACH|WHEN|EXECUTE) )"
)

# What PostgreSQL makes of (SELECT f()).
_ALIASED = re.compile(r"\( SELECT ((?:\w+\.)?(\w+))\(\) AS \2\)")

# Each gives name, definition and what is amiss, or NULL.
_SECTIONS = {
    "columns": """
        SELECT attname,
            rpad(CASE WHEN serial THEN 'bigserial' ELSE type END, 13)
                || rpad(CASE WHEN attnotnull THEN 'not null' ELSE '' END, 10)
                || CASE WHEN serial OR expression IS NULL THEN '' ELSE expression END,
            NULL
        FROM (
            SELECT attnum, attname, attnotnull, pg_get_expr(adbin, adrelid, true) AS expression,
                replace(format_type(atttypid, atttypmod), 'timestamp with time zone', 'timestamptz') AS type,
                atttypid = 'bigint'::regtype AND coalesce(pg_get_expr(adbin, adrelid, true), '') = format(
                    'nextval(%L::regclass)',
                    pg_get_serial_sequence(attrelid::regclass::text, attname)::regclass) AS serial
            FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
            WHERE attrelid = :table AND attnum > 0 AND NOT attisdropped
        ) AS columns
        ORDER BY attnum
    """,
    # NOT NULL stands among the columns; PostgreSQL 18 lists it as a constraint too.
    "constraints": """
        SELECT conname, replace(pg_get_constraintdef(oid, true), ' NOT VALID', ''),
            CASE WHEN NOT convalidated THEN 'NOT VALID' END
        FROM pg_constraint
        WHERE conrelid = :table AND contype <> 'n'
        ORDER BY array_position('{p,u,c,f,x}', contype), conname
    """,
    # Those of primary and unique keys stand among the constraints.
    "indexes": """
        SELECT relname,
            CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END
                || replace(substring(definition FROM ' USING (.*)'), 'btree (', '('),
            CASE WHEN NOT (indisvalid AND indisready) THEN 'INVALID' END
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid,
            pg_get_indexdef(indexrelid, 0, true) AS definition
        WHERE indrelid = :table AND NOT EXISTS (
            SELECT FROM pg_constraint WHERE conindid = indexrelid AND conrelid = indrelid)
        ORDER BY relname
    """,
    "statistics": """
        SELECT stxname, pg_get_statisticsobjdef_columns(oid), NULL
        FROM pg_statistic_ext WHERE stxrelid = :table ORDER BY stxname
    """,
    "row security": """
        SELECT CASE WHEN relrowsecurity THEN 'on' ELSE 'off' END,
            CASE WHEN NOT relrowsecurity THEN '' WHEN relforcerowsecurity THEN 'for the owner too'
                ELSE 'except for the owner' END,
            CASE WHEN NOT relrowsecurity THEN 'whoever has a grant sees every row' END
        FROM pg_class WHERE oid = :table
    """,
    "policies": """
        SELECT quote_ident(polname),
            CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                    WHEN 'd' THEN 'DELETE' ELSE 'ALL' END
                || CASE WHEN polpermissive THEN '' ELSE ' AS RESTRICTIVE' END
                || ' TO ' || array_to_string(ARRAY(
                    SELECT CASE role WHEN 0 THEN 'PUBLIC' ELSE role::regrole::text END
                    FROM unnest(polroles) AS role ORDER BY 1), ', ')
                || coalesce(' USING (' || pg_get_expr(polqual, polrelid, true) || ')', '')
                || coalesce(' WITH CHECK (' || pg_get_expr(polwithcheck, polrelid, true) || ')', ''),
            NULL
        FROM pg_policy WHERE polrelid = :table
        ORDER BY array_position('{r,a,w,d,*}', polcmd), polname
    """,
    # The owner's own are left out. A star stands for WITH GRANT OPTION, as in psql.
    "grants": """
        WITH item AS (
            SELECT oid, relowner AS owner, relacl AS acl, 0 AS rank, '' AS suffix
            FROM pg_class WHERE oid = :table
            UNION ALL
            SELECT oid, relowner, attacl, attnum, attname::text
            FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
            WHERE attrelid = :table AND NOT attisdropped
            UNION ALL
            SELECT pg_class.oid, relowner, relacl, 10000, ' ON SEQUENCE ' || relname
            FROM pg_depend JOIN pg_class ON pg_class.oid = objid AND relkind = 'S'
            WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = :table
        ), privilege AS (
            SELECT grantee, rank BETWEEN 1 AND 9999 AS of_column, rank = 10000 AS of_sequence,
                privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END AS privilege,
                coalesce(array_position('{SELECT,INSERT,UPDATE,DELETE}', privilege_type), 5) AS nth,
                CASE WHEN rank BETWEEN 1 AND 9999 THEN NULL ELSE suffix END AS suffix,
                string_agg(suffix, ', ' ORDER BY rank) AS columns
            FROM item, aclexplode(acl)
            WHERE grantee <> owner
            GROUP BY 1, 2, 3, 4, 5, 6
        )
        SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
            string_agg(
                privilege || CASE WHEN of_column THEN ' (' || columns || ')' ELSE suffix END,
                ', ' ORDER BY of_sequence, nth, privilege, of_column),
            NULL
        FROM privilege GROUP BY grantee ORDER BY 1
    """,
    "triggers": """
        SELECT tgname,
            replace(
                substr(definition, strpos(definition, quote_ident(tgname)) + length(quote_ident(tgname)) + 1),
                ' ON ' || tgrelid::regclass::text || ' ', ' '),
            CASE tgenabled WHEN 'D' THEN 'DISABLED' WHEN 'R' THEN 'REPLICA ONLY' END
        FROM pg_trigger, pg_get_triggerdef(oid, true) AS definition
        WHERE tgrelid = :table AND NOT tgisinternal
        ORDER BY tgname
    """,
}
