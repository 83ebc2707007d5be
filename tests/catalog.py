"""What must be equal where databases are said to be in the same state, as PostgreSQL prints it.

`snapshot` is what the package owns, `foreign_snapshot` what it must leave alone, `rows` what it must keep.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import tuple_row

Snapshot: TypeAlias = dict[str, dict[str, Any]]
Rows: TypeAlias = dict[str, dict[Any, dict[str, Any]]]
Connection: TypeAlias = psycopg.Connection[Any]

TABLES = ("workflow_definitions", "workflow_execution_logs")

# Our tables, and whatever else stands in our schema.
_OURS = """
    (c.relnamespace::regnamespace::text = 'workflow_private'
     OR c.relnamespace = 'public'::regnamespace
        AND c.relname IN ('workflow_definitions', 'workflow_execution_logs'))
"""

# Foreign keys to tables that a database may lack are the application's business.
_FOREIGN_KEY_TO_OURS = """
    (c.contype <> 'f' OR c.confrelid::regclass::text IN (
        'public.organizations', 'public.workflow_definitions', 'public.workflow_execution_logs'))
"""

_OUR_TRIGGER = """
    (t.tgname = 'update_workflow_definitions_updated_at'
     OR p.pronamespace::regnamespace::text = 'workflow_private')
"""

_PRIVILEGES = """
    (SELECT array_agg(
        concat_ws(' ',
            CASE a.grantee WHEN {owner} THEN 'owner' WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
            a.privilege_type,
            CASE WHEN a.is_grantable AND a.grantee <> {owner} THEN 'WITH GRANT OPTION' END)
        ORDER BY a.grantee::regrole::text, a.privilege_type)
     FROM (
        SELECT DISTINCT grantee, privilege_type, is_grantable
        FROM aclexplode(coalesce({acl}, acldefault('{kind}', {owner})))
     ) a)
"""


def _privileges(acl: str, kind: str, owner: str) -> str:
    return _PRIVILEGES.format(acl=acl, kind=kind, owner=owner)


_ROLES = "ARRAY(SELECT coalesce(nullif(r, 0)::regrole::text, 'PUBLIC') FROM unnest(p.polroles) r ORDER BY 1)"

# Other storage parameters are the application's.
_DECLARED_OPTIONS = [
    "autovacuum_vacuum_scale_factor",
    "autovacuum_vacuum_insert_scale_factor",
    "autovacuum_analyze_scale_factor",
]

# Each query gives a key and what stands under it.
_SNAPSHOT = {
    "tables": f"""
        SELECT c.oid::regclass::text, jsonb_build_object(
            'kind', c.relkind,
            'persistence', c.relpersistence,
            'row security', c.relrowsecurity,
            'forced', c.relforcerowsecurity,
            'comment', obj_description(c.oid, 'pg_class'),
            'options', ARRAY(
                SELECT option FROM unnest(c.reloptions) AS option
                WHERE split_part(option, '=', 1) = ANY (ARRAY{_DECLARED_OPTIONS}) ORDER BY 1),
            'grants', {_privileges("c.relacl", "r", "c.relowner")})
        FROM pg_class c
        WHERE {_OURS} AND c.relkind NOT IN ('i', 'I', 'S')
    """,
    "columns": f"""
        SELECT c.oid::regclass || '.' || a.attname, jsonb_build_object(
            'type', format_type(a.atttypid, a.atttypmod),
            'not null', a.attnotnull,
            'default', pg_get_expr(d.adbin, d.adrelid),
            'identity', a.attidentity,
            'generated', a.attgenerated,
            'collation', nullif(a.attcollation, 0)::regcollation::text,
            'storage', a.attstorage,
            'options', a.attoptions,
            'comment', col_description(c.oid, a.attnum),
            'grants', CASE WHEN a.attacl IS NOT NULL THEN {_privileges("a.attacl", "c", "c.relowner")} END)
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE {_OURS} AND c.relkind NOT IN ('i', 'I', 'S')
    """,
    "constraints": f"""
        SELECT c.conrelid::regclass || ': ' || c.conname, jsonb_build_object(
            'definition', pg_get_constraintdef(c.oid),
            'validated', c.convalidated,
            'comment', obj_description(c.oid, 'pg_constraint'))
        FROM pg_constraint c
        WHERE c.conrelid IN (SELECT c.oid FROM pg_class c WHERE {_OURS})
            AND c.contype NOT IN ('n', 't') AND {_FOREIGN_KEY_TO_OURS}
    """,
    "indexes": f"""
        SELECT i.indexrelid::regclass::text, jsonb_build_object(
            'definition', pg_get_indexdef(i.indexrelid),
            'valid', i.indisvalid AND i.indisready AND i.indislive,
            'comment', obj_description(i.indexrelid, 'pg_class'))
        FROM pg_index i
        WHERE i.indrelid IN (SELECT c.oid FROM pg_class c WHERE {_OURS})
    """,
    "triggers": f"""
        SELECT t.tgrelid::regclass || ': ' || t.tgname, jsonb_build_object(
            'definition', pg_get_triggerdef(t.oid),
            'enabled', t.tgenabled)
        FROM pg_trigger t
        JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid IN (SELECT c.oid FROM pg_class c WHERE {_OURS})
            AND NOT t.tgisinternal AND {_OUR_TRIGGER}
    """,
    "policies": f"""
        SELECT p.polrelid::regclass || ': ' || p.polname, jsonb_build_object(
            'command', p.polcmd,
            'permissive', p.polpermissive,
            'to', {_ROLES},
            'using', pg_get_expr(p.polqual, p.polrelid),
            'check', pg_get_expr(p.polwithcheck, p.polrelid))
        FROM pg_policy p
        WHERE p.polrelid IN (SELECT c.oid FROM pg_class c WHERE {_OURS})
    """,
    "sequences": f"""
        SELECT c.oid::regclass::text, to_jsonb(s) - 'seqrelid' || jsonb_build_object(
            'owned by', (
                SELECT d.refobjid::regclass || '.' || a.attname
                FROM pg_depend d
                JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')),
            'grants', {_privileges("c.relacl", "s", "c.relowner")})
        FROM pg_class c
        JOIN pg_sequence s ON s.seqrelid = c.oid
        WHERE c.oid::regclass::text ~ '^(workflow_private\\.|public\\.workflow_execution_logs_id_seq$)'
    """,
    "statistics": f"""
        SELECT s.stxnamespace::regnamespace || '.' || s.stxname, to_jsonb(pg_get_statisticsobjdef(s.oid))
        FROM pg_statistic_ext s
        WHERE s.stxrelid IN (SELECT c.oid FROM pg_class c WHERE {_OURS})
    """,
    "functions": f"""
        SELECT p.oid::regprocedure::text, jsonb_build_object(
            'definition', CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) END,
            'comment', obj_description(p.oid, 'pg_proc'),
            'grants', {_privileges("p.proacl", "f", "p.proowner")})
        FROM pg_proc p
        WHERE p.pronamespace::regnamespace::text = 'workflow_private'
    """,
    "types": f"""
        SELECT t.oid::regtype::text, jsonb_build_object(
            'kind', t.typtype,
            'grants', {_privileges("t.typacl", "T", "t.typowner")})
        FROM pg_type t
        WHERE t.typnamespace::regnamespace::text = 'workflow_private' AND t.typelem = 0
    """,
    "schemas": f"""
        SELECT n.nspname, to_jsonb({_privileges("n.nspacl", "n", "n.nspowner")})
        FROM pg_namespace n
        WHERE n.nspname = 'workflow_private'
    """,
}

# The application's relations, in whatever schema.
_FOREIGN = f"""
    (c.relnamespace NOT IN (
        SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' OR nspname = 'information_schema')
     AND NOT {_OURS} AND c.relkind IN ('r', 'v', 'm', 'p'))
"""

_FOREIGN_SNAPSHOT = {
    "tables": f"""
        SELECT c.oid::regclass::text, jsonb_build_object(
            'kind', c.relkind,
            'row security', c.relrowsecurity,
            'forced', c.relforcerowsecurity,
            'options', c.reloptions,
            'view', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
            'comment', obj_description(c.oid, 'pg_class'),
            'grants', {_privileges("c.relacl", "r", "c.relowner")})
        FROM pg_class c
        WHERE {_FOREIGN}
    """,
    "columns": f"""
        SELECT c.oid::regclass || '.' || a.attname, jsonb_build_object(
            'type', format_type(a.atttypid, a.atttypmod),
            'not null', a.attnotnull,
            'default', pg_get_expr(d.adbin, d.adrelid),
            'comment', col_description(c.oid, a.attnum),
            'grants', a.attacl)
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE {_FOREIGN}
    """,
    "constraints": f"""
        SELECT c.conrelid::regclass || ': ' || c.conname, jsonb_build_object(
            'definition', pg_get_constraintdef(c.oid),
            'validated', c.convalidated)
        FROM pg_constraint c
        WHERE c.contype NOT IN ('n', 't') AND (
            c.conrelid IN (SELECT c.oid FROM pg_class c WHERE {_FOREIGN})
            OR c.conrelid IN (SELECT c.oid FROM pg_class c WHERE {_OURS}) AND NOT {_FOREIGN_KEY_TO_OURS})
    """,
    "indexes": f"""
        SELECT i.indexrelid::regclass::text, jsonb_build_object(
            'definition', pg_get_indexdef(i.indexrelid),
            'oid', i.indexrelid,
            'valid', i.indisvalid)
        FROM pg_index i
        WHERE i.indrelid IN (SELECT c.oid FROM pg_class c WHERE {_FOREIGN})
    """,
    "triggers": f"""
        SELECT t.tgrelid::regclass || ': ' || t.tgname, jsonb_build_object(
            'definition', pg_get_triggerdef(t.oid),
            'enabled', t.tgenabled)
        FROM pg_trigger t
        JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE NOT t.tgisinternal AND (
            t.tgrelid IN (SELECT c.oid FROM pg_class c WHERE {_FOREIGN})
            OR t.tgrelid IN (SELECT c.oid FROM pg_class c WHERE {_OURS}) AND NOT {_OUR_TRIGGER})
    """,
    "policies": f"""
        SELECT p.polrelid::regclass || ': ' || p.polname, jsonb_build_object(
            'command', p.polcmd,
            'permissive', p.polpermissive,
            'to', {_ROLES},
            'using', pg_get_expr(p.polqual, p.polrelid),
            'check', pg_get_expr(p.polwithcheck, p.polrelid))
        FROM pg_policy p
        WHERE p.polrelid IN (SELECT c.oid FROM pg_class c WHERE {_FOREIGN})
    """,
    "functions": """
        SELECT p.oid::regprocedure::text, jsonb_build_object(
            'definition', CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) END,
            'grants', p.proacl)
        FROM pg_proc p
        JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'workflow_private')
    """,
    "schemas": """
        SELECT n.nspname, to_jsonb(n.nspacl)
        FROM pg_namespace n
        WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'workflow_private')
    """,
    "default privileges": """
        SELECT
            concat_ws(' ',
                d.defaclrole::regrole, nullif(d.defaclnamespace, 0)::regnamespace, d.defaclobjtype),
            to_jsonb(d.defaclacl)
        FROM pg_default_acl d
    """,
    "options of our tables": f"""
        SELECT c.oid::regclass || ' ' || option, to_jsonb(true)
        FROM pg_class c
        LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
        CROSS JOIN unnest(c.reloptions || t.reloptions) AS option
        WHERE {_OURS} AND c.relkind = 'r' AND split_part(option, '=', 1) <> ALL (ARRAY{_DECLARED_OPTIONS})
    """,
}


def snapshot(connection: Connection) -> Snapshot:
    """Everything of both tables and of `workflow_private` that the package declares.

    Left out: column order, other storage parameters, foreign triggers, foreign keys to `auth.users` and
    `workflow_triggers`, and what is not told apart on every PostgreSQL (NOT NULL as a constraint).
    """
    return _read(connection, _SNAPSHOT)


def foreign_snapshot(connection: Connection) -> Snapshot:
    """Everything of the application's, its rows as a count and a hash, and what it hung on our tables."""
    found = _read(connection, _FOREIGN_SNAPSHOT)
    found["rows"] = {
        table: _one(
            connection,
            f"SELECT count(*) || ' ' || md5(string_agg(r::text, ' ' ORDER BY r::text)) FROM {table} r",
        )
        for table, facts in found["tables"].items()
        if facts["kind"] == "r"
    }
    return found


def rows(connection: Connection) -> Rows:
    """All rows of those of both tables that exist, by their id, without the logs' `organization_id`."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        found: Rows = {}
        for table in _existing(cursor):
            cursor.execute(f"SELECT to_jsonb(r) FROM public.{table} r")
            found[table] = {row["id"]: row for (row,) in cursor}
    for row in found.get("workflow_execution_logs", {}).values():
        row.pop("organization_id", None)
    return found


def rows_like(found: Rows, before: Rows) -> Rows:
    """`found`, with only the tables and columns that were there `before`."""
    columns = {table: set().union(*of_table.values()) for table, of_table in before.items()}
    return {
        table: {id: _only(row, of_table) for id, row in found[table].items()}
        for table, of_table in columns.items()
    }


def misplaced_logs(connection: Connection) -> list[tuple[Any, ...]]:
    """The logs whose organization is not their definition's: id, theirs, the definition's."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(
            """
            SELECT l.id, l.organization_id, d.organization_id
            FROM public.workflow_execution_logs l
            LEFT JOIN public.workflow_definitions d ON d.id = l.workflow_id
            WHERE d.id IS NULL OR l.organization_id IS DISTINCT FROM d.organization_id
            ORDER BY l.id
            """
        ).fetchall()


def index_files(connection: Connection) -> dict[str, tuple[str, int, int]]:
    """Definition, OID and file of each index of our tables: a rebuilt one has another OID or file."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(
            """
            SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), c.oid, c.relfilenode
            FROM pg_index i
            JOIN pg_class c ON c.oid = i.indexrelid
            WHERE i.indrelid IN (
                'public.workflow_definitions'::regclass, 'public.workflow_execution_logs'::regclass)
            """
        )
        return {name: (definition, oid, file) for name, definition, oid, file in cursor}


def _existing(cursor: psycopg.Cursor[Any]) -> list[str]:
    cursor.execute(
        "SELECT t FROM unnest(%s::text[]) t WHERE to_regclass('public.' || t) IS NOT NULL", [[*TABLES]]
    )
    return [table for (table,) in cursor.fetchall()]


def _read(connection: Connection, queries: Mapping[str, str]) -> Snapshot:
    # Names are printed with their schema where the path does not hold it.
    with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("SELECT set_config('search_path', 'pg_catalog', true)")
        return {kind: dict(cursor.execute(query).fetchall()) for kind, query in queries.items()}


def _one(connection: Connection, query: str) -> Any:
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(query).fetchone()
    assert row
    return row[0]


def _only(row: dict[str, Any], columns: set[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name in columns}
