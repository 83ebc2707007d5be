"""Everything that somebody made in a database, in PostgreSQL's own words, to tell whether two states are the same.

It shares nothing with the comparison, so that what one overlooks the other sees.
"""

# SQL reads better in its own lines.
# ruff: noqa: E501

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from sqlalchemy import Connection, MetaData, Table, text

from .item import quoted

Snapshot = Mapping[str, str]
Rows = Mapping[str, frozenset[str]]

# Of extensions, of PostgreSQL itself, and of sessions.
_MADE = "{0}.oid >= 16384 AND {1} !~ '^pg_(temp|toast)' AND {1} NOT IN ('pg_catalog', 'information_schema')"
_RELATION = f"c.relnamespace IN (SELECT n.oid FROM pg_namespace AS n WHERE {_MADE.format('n', 'n.nspname')} OR n.nspname = 'public')"


def _acl(acl: str, kind: str, owner: str) -> str:
    """Give SQL for privileges, in which it makes no difference who granted them, or in which order."""
    return f"""(SELECT string_agg(entry, ', ' ORDER BY entry) FROM (
        SELECT DISTINCT coalesce(nullif(grantee, 0)::regrole::text, 'PUBLIC') || '=' || privilege_type
            || CASE WHEN is_grantable AND grantee <> {owner} THEN '*' ELSE '' END AS entry
        FROM aclexplode(coalesce({acl}, acldefault('{kind}', {owner})))) AS entries)"""


# The order of columns is not restored where one is dropped and added again; nor does it matter to anybody.
_QUERY = text(rf"""
SELECT 'relation ' || c.oid::regclass AS name, concat_ws('; ', c.relkind, c.relpersistence, c.relrowsecurity, c.relforcerowsecurity,
    c.relreplident, c.relowner::regrole, c.reloptions, nullif(c.reloftype, 0)::regtype, c.relispartition,
    CASE c.relkind WHEN 'S' THEN {_acl("c.relacl", "s", "c.relowner")} ELSE {_acl("c.relacl", "r", "c.relowner")} END,
    obj_description(c.oid, 'pg_class'),
    CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END) AS definition
FROM pg_class AS c WHERE c.relkind <> 't' AND {_RELATION}
UNION ALL
SELECT 'column ' || c.oid::regclass || '.' || CASE WHEN c.relkind IN ('i', 'I') THEN a.attnum::text ELSE a.attname END,
    concat_ws('; ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attstorage, a.attcompression,
        nullif(a.attstattarget, -1), a.attoptions, nullif(a.attcollation, 0)::regcollation, pg_get_expr(d.adbin, d.adrelid),
        CASE WHEN a.attacl IS NOT NULL THEN {_acl("a.attacl", "c", "c.relowner")} END, col_description(c.oid, a.attnum))
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relkind NOT IN ('t', 'S') AND {_RELATION}
UNION ALL
SELECT 'constraint ' || coalesce(o.conrelid::regclass::text, o.contypid::regtype::text) || '.' || o.conname,
    concat_ws('; ', pg_get_constraintdef(o.oid), o.convalidated, obj_description(o.oid, 'pg_constraint'),
        (SELECT string_agg(p.proname || '=' || t.tgenabled::text, ', ' ORDER BY p.proname, t.tgrelid)
            FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid WHERE t.tgconstraint = o.oid))
FROM pg_constraint AS o WHERE o.oid >= 16384 AND o.contype <> 'n'
    AND o.connamespace IN (SELECT n.oid FROM pg_namespace AS n WHERE n.nspname !~ '^pg_')
UNION ALL
SELECT 'index ' || i.indexrelid::regclass, concat_ws('; ', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready, i.indislive,
    i.indisclustered, i.indisreplident)
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid WHERE {_RELATION}
UNION ALL
SELECT 'trigger ' || t.tgrelid::regclass || '.' || t.tgname,
    concat_ws('; ', pg_get_triggerdef(t.oid), t.tgenabled, obj_description(t.oid, 'pg_trigger'))
FROM pg_trigger AS t WHERE NOT t.tgisinternal
UNION ALL
SELECT 'policy ' || p.polrelid::regclass || '.' || p.polname, concat_ws('; ', p.polcmd, p.polpermissive,
    (SELECT string_agg(coalesce(nullif(role, 0)::regrole::text, 'PUBLIC'), ', ' ORDER BY role) FROM unnest(p.polroles) AS role),
    'USING ' || pg_get_expr(p.polqual, p.polrelid), 'CHECK ' || pg_get_expr(p.polwithcheck, p.polrelid),
    obj_description(p.oid, 'pg_policy'))
FROM pg_policy AS p
UNION ALL
SELECT 'routine ' || p.oid::regprocedure, concat_ws('; ', p.prokind, p.proowner::regrole,
    CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END, {_acl("p.proacl", "f", "p.proowner")},
    obj_description(p.oid, 'pg_proc'))
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE {_MADE.format("p", "n.nspname")}
UNION ALL
SELECT 'statistics ' || s.stxname, concat_ws('; ', s.stxrelid::regclass, s.stxkind, pg_get_statisticsobjdef_expressions(s.oid),
    (SELECT array_agg(a.attname ORDER BY a.attname) FROM pg_attribute AS a WHERE a.attrelid = s.stxrelid AND a.attnum = ANY (s.stxkeys)),
    s.stxowner::regrole, nullif(s.stxstattarget, -1),
    obj_description(s.oid, 'pg_statistic_ext'))
FROM pg_statistic_ext AS s
UNION ALL
SELECT 'sequence ' || s.seqrelid::regclass, concat_ws('; ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
    s.seqcache, s.seqcycle, (SELECT string_agg(pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) || ' ' || d.deptype::text, ', ')
        FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.deptype IN ('a', 'i')))
FROM pg_sequence AS s
UNION ALL
SELECT 'rule ' || r.ev_class::regclass || '.' || r.rulename, concat_ws('; ', pg_get_ruledef(r.oid), r.ev_enabled)
FROM pg_rewrite AS r WHERE r.oid >= 16384 AND r.rulename <> '_RETURN'
UNION ALL
SELECT 'inheritance ' || i.inhrelid::regclass || ' of ' || i.inhparent::regclass, i.inhseqno::text FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid AND {_RELATION}
UNION ALL
SELECT 'type ' || t.oid::regtype, concat_ws('; ', t.typtype, t.typowner::regrole, t.typnotnull, t.typdefault,
    nullif(t.typbasetype, 0)::regtype, (SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = t.oid))
FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
WHERE {_MADE.format("t", "n.nspname")} AND t.typtype IN ('e', 'd', 'r')
UNION ALL
SELECT 'schema ' || n.nspname, concat_ws('; ', n.nspowner::regrole, {_acl("n.nspacl", "n", "n.nspowner")}, obj_description(n.oid, 'pg_namespace'))
FROM pg_namespace AS n WHERE n.nspname !~ '^pg_(temp|toast)'
UNION ALL
SELECT concat_ws(' ', 'default privileges', d.defaclrole::regrole, nullif(d.defaclnamespace, 0)::regnamespace, d.defaclobjtype),
    d.defaclacl::text
FROM pg_default_acl AS d
UNION ALL
SELECT concat_ws(' ', 'settings', nullif(s.setrole, 0)::regrole, CASE s.setdatabase WHEN 0 THEN NULL ELSE 'here' END), s.setconfig::text
FROM pg_db_role_setting AS s WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
""")


def snapshot(connection: Connection) -> Snapshot:
    """Read what is in a database, its rows aside: a line for each thing, by what it is called."""
    with connection.begin():
        # Names are printed with their schema where the path does not hold it.
        connection.execute(
            text("SELECT set_config('search_path', 'pg_catalog', true), set_config('jit', 'off', true)")
        )
        return {row.name: row.definition for row in connection.execute(_QUERY)}


def rows(connection: Connection, metadata: Sequence[MetaData]) -> Rows:
    """Read the primary keys of all rows, by table, of the tables that there are.

    :raises sqlalchemy.exc.ProgrammingError: where row security hides rows from the role; the tables' owner sees
        them, forced or not.
    """
    with connection.begin():
        # Rather an error than rows that are not counted.
        connection.execute(text("SET LOCAL row_security = off"))
        return {
            table.fullname: _keys(connection, table)
            for each in metadata
            for table in each.sorted_tables
            if connection.dialect.has_table(connection, table.name, schema=table.schema)
        }


_FORCED = text("""
    SELECT relforcerowsecurity AND row_security_active(oid) AND pg_has_role(relowner, 'USAGE')
    FROM pg_class WHERE oid = to_regclass(:name)
""")


def _keys(connection: Connection, table: Table) -> frozenset[str]:
    quote = connection.dialect.identifier_preparer.quote
    name = ".".join(quote(part) for part in (table.schema, table.name) if part)
    columns = ", ".join(quote(column.name) for column in table.primary_key) or "t"
    # In a name that is no statement the driver's % is not doubled.
    is_forced = connection.scalar(_FORCED, {"name": quoted(table.schema, table.name)})
    # Rolled back only where it has to be: then the driver forgets which statements it has prepared.
    with connection.begin_nested() if is_forced else nullcontext() as lifted:
        if lifted:
            connection.exec_driver_sql(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY")
        keys = connection.exec_driver_sql(f"SELECT ROW({columns})::text FROM {name} AS t").scalars()
        read = frozenset(keys)
        if lifted:
            lifted.rollback()
    return read
