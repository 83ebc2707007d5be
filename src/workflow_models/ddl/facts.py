"""What the catalogs say of a table and of a schema, as small facts.

A fact knows how PostgreSQL prints it, and the statements that make it and that take it away, so that
comparing, writing and undoing need no code for each kind. The kinds that SQLAlchemy declares itself
(constraints, indexes, defaults, comments) are read the same way.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class Fact:
    """One thing that is so.

    :param kind: as ``policy``.
    :param on: the table or schema that it belongs to, quoted where needed.
    :param name: unique for its kind there.
    :param attributes: what is compared.
    :param create: statements that make it so.
    :param drop: statements that end it; none where ``create`` states one of several possible values.
    :param foreign: whether it is passed over where nothing of that name is declared.
    """

    kind: str
    on: str
    name: str
    attributes: Mapping[str, Any]
    create: tuple[str, ...]
    drop: tuple[str, ...]
    foreign: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """What two facts about the same thing share."""
        return self.kind, self.on, self.name

    @property
    def replaces(self) -> bool:
        """Whether ``create`` replaces what is there, so that nothing need be dropped that others need."""
        return not self.drop or self.kind == "function"


Facts = dict[tuple[str, str, str], Fact]

# Each gives kind, name, attributes, create, drop, foreign. :relation is the table's name as statements say
# it, :oid the table or its clone. What a clone prints of its own schema is taken out.
_CLEAN = "regexp_replace({}, 'pg_temp(_\\d+)?\\.', '', 'g')"
# As PostgreSQL prints the temporary schema, whose real name has a number.
_SCHEMA_NAME = "CASE n.oid WHEN pg_my_temp_schema() THEN 'pg_temp' ELSE quote_ident(n.nspname) END"
_ON = f"""(
    SELECT ' ON ' || {_SCHEMA_NAME} || '.' || quote_ident(c.relname)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = :oid)"""

_ROW_SECURITY = """
SELECT 'row security', '', jsonb_build_object('enabled', relrowsecurity, 'forced', relforcerowsecurity),
    ARRAY[
        'ALTER TABLE ' || :relation || CASE WHEN relrowsecurity THEN ' ENABLE' ELSE ' DISABLE' END || ' ROW LEVEL SECURITY',
        'ALTER TABLE ' || :relation || CASE WHEN relforcerowsecurity THEN ' FORCE' ELSE ' NO FORCE' END || ' ROW LEVEL SECURITY'
    ], ARRAY[]::text[], false
FROM pg_class WHERE oid = :oid
"""

_POLICIES = """
SELECT 'policy', polname::text,
    jsonb_build_object('command', command, 'restrictive', NOT polpermissive, 'to', roles, 'using', visible, 'check', written),
    ARRAY['CREATE POLICY ' || quote_ident(polname) || ' ON ' || :relation
        || CASE WHEN polpermissive THEN '' ELSE ' AS RESTRICTIVE' END || ' FOR ' || command || ' TO ' || roles
        || coalesce(' USING (' || visible || ')', '') || coalesce(' WITH CHECK (' || written || ')', '')],
    ARRAY['DROP POLICY ' || quote_ident(polname) || ' ON ' || :relation], false
FROM (
    SELECT p.*, pg_get_expr(polqual, polrelid) AS visible, pg_get_expr(polwithcheck, polrelid) AS written,
        CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
            ELSE 'ALL' END AS command,
        (SELECT string_agg(coalesce(quote_ident(r.rolname), 'PUBLIC'), ', ' ORDER BY r.rolname)
            FROM unnest(polroles) AS role (oid) LEFT JOIN pg_roles AS r ON r.oid = role.oid) AS roles
    FROM pg_policy AS p WHERE polrelid = :oid
) AS policy
"""

# A trigger that calls a function of another schema belongs to the application.
_TRIGGERS = f"""
SELECT 'trigger', tgname::text, jsonb_build_object('definition', definition, 'enabled', tgenabled),
    ARRAY[definition] || CASE tgenabled
        WHEN 'O' THEN ARRAY[]::text[]
        ELSE ARRAY['ALTER TABLE ' || :relation || CASE tgenabled WHEN 'D' THEN ' DISABLE' WHEN 'R' THEN ' ENABLE REPLICA'
            ELSE ' ENABLE ALWAYS' END || ' TRIGGER ' || quote_ident(tgname)] END,
    ARRAY['DROP TRIGGER ' || quote_ident(tgname) || ' ON ' || :relation],
    NOT (function_schema = ANY (CAST(:schemas AS text[])))
FROM (
    SELECT t.*, n.nspname::text AS function_schema,
        replace(pg_get_triggerdef(t.oid), {_ON} || ' ', ' ON ' || :relation || ' ') AS definition
    FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE t.tgrelid = :oid AND NOT t.tgisinternal
) AS own
"""

_INDEXES = f"""
SELECT 'index', relname::text,
    jsonb_build_object('definition', definition, 'valid', indisvalid, 'clustered', indisclustered),
    ARRAY[definition], ARRAY['DROP INDEX ' || quote_ident(relname)], false
FROM (
    SELECT c.relname, i.indisvalid, i.indisclustered,
        replace(pg_get_indexdef(c.oid), {_ON} || ' ', ' ON ' || :relation || ' ') AS definition
    FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE i.indrelid = :oid AND NOT EXISTS (
        SELECT FROM pg_constraint WHERE conindid = c.oid AND conrelid = :oid AND contype IN ('p', 'u', 'x'))
) AS own
"""

# A foreign key or CHECK is added NOT VALID and validated by itself, so that writers go on. The triggers
# that enforce a foreign key can be disabled one by one.
_CONSTRAINTS = f"""
SELECT 'constraint', conname::text,
    jsonb_build_object('definition', definition, 'valid', valid, 'enforced', enforced),
    CASE WHEN contype IN ('f', 'c')
        THEN ARRAY[adding || ' NOT VALID'] || CASE WHEN valid
            THEN ARRAY['ALTER TABLE ' || :relation || ' VALIDATE CONSTRAINT ' || quote_ident(conname)]
            ELSE ARRAY[]::text[] END
        ELSE ARRAY[adding] END,
    ARRAY['ALTER TABLE ' || :relation || ' DROP CONSTRAINT ' || quote_ident(conname)],
    contype = 'f'
FROM (
    SELECT own.*, 'ALTER TABLE ' || :relation || ' ADD CONSTRAINT ' || quote_ident(conname) || ' ' || definition AS adding
    FROM (
        SELECT c.*, {_CLEAN.format("replace(pg_get_constraintdef(c.oid), ' NOT VALID', '')")} AS definition,
            c.convalidated AND coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = c.conindid), true) AS valid,
            NOT EXISTS (SELECT FROM pg_trigger WHERE tgconstraint = c.oid AND tgenabled <> 'O') AS enforced
        FROM pg_constraint AS c WHERE c.conrelid = :oid AND c.contype IN ('p', 'u', 'x', 'c', 'f')
    ) AS own
) AS own
"""

_COLUMNS = f"""
SELECT fact.kind, own.attname::text, jsonb_build_object('value', fact.value), ARRAY[
    CASE fact.kind WHEN 'comment' THEN 'COMMENT ON COLUMN ' || :relation || '.' || quote_ident(own.attname) || ' IS '
            || coalesce(quote_literal(fact.value), 'NULL')
        ELSE 'ALTER TABLE ' || :relation || ' ALTER COLUMN ' || quote_ident(own.attname) || ' ' || CASE fact.kind
            WHEN 'default' THEN coalesce('SET DEFAULT ' || fact.value, 'DROP DEFAULT')
            WHEN 'storage' THEN 'SET STORAGE ' || fact.value
            WHEN 'compression' THEN 'SET COMPRESSION ' || fact.value
            WHEN 'statistics target' THEN 'SET STATISTICS ' || fact.value
            END
        END
    ], ARRAY[]::text[], false
FROM (
    SELECT a.*, {_CLEAN.format("pg_get_expr(d.adbin, d.adrelid)")} AS value
    FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = ''
    WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped
) AS own
CROSS JOIN LATERAL (VALUES
    ('default', own.value),
    ('storage', CASE own.attstorage WHEN 'p' THEN 'plain' WHEN 'm' THEN 'main' WHEN 'x' THEN 'extended' ELSE 'external' END),
    ('compression', CASE own.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' ELSE 'default' END),
    ('statistics target', coalesce(own.attstattarget, -1)::text),
    ('comment', col_description(:oid, own.attnum))
) AS fact (kind, value)
"""

_TABLE = """
SELECT 'table comment', '', jsonb_build_object('value', obj_description(:oid, 'pg_class')),
    ARRAY['COMMENT ON TABLE ' || :relation || ' IS ' || coalesce(quote_literal(obj_description(:oid, 'pg_class')), 'NULL')],
    ARRAY[]::text[], false
UNION ALL
SELECT 'replica identity', '', jsonb_build_object('value', relreplident),
    ARRAY['ALTER TABLE ' || :relation || ' REPLICA IDENTITY ' || CASE relreplident WHEN 'f' THEN 'FULL'
        WHEN 'n' THEN 'NOTHING' ELSE 'DEFAULT' END],
    ARRAY[]::text[], false
FROM pg_class WHERE oid = :oid
UNION ALL
SELECT 'persistence', '', jsonb_build_object('value', CASE relpersistence WHEN 'u' THEN 'unlogged' ELSE 'logged' END),
    ARRAY['ALTER TABLE ' || :relation || CASE relpersistence WHEN 'u' THEN ' SET UNLOGGED' ELSE ' SET LOGGED' END],
    ARRAY[]::text[], false
FROM pg_class WHERE oid = :oid
UNION ALL
SELECT 'storage parameter', option_name, jsonb_build_object('value', option_value),
    ARRAY['ALTER TABLE ' || :relation || ' SET (' || option_name || ' = ' || option_value || ')'],
    ARRAY['ALTER TABLE ' || :relation || ' RESET (' || option_name || ')'], true
FROM pg_options_to_table((SELECT reloptions FROM pg_class WHERE oid = :oid))
UNION ALL
SELECT 'rule', rulename::text, jsonb_build_object('definition', pg_get_ruledef(oid)),
    ARRAY[pg_get_ruledef(oid)], ARRAY['DROP RULE ' || quote_ident(rulename) || ' ON ' || :relation], false
FROM pg_rewrite WHERE ev_class = :oid
UNION ALL
SELECT 'inheritance', i.other::regclass::text, '{}'::jsonb, ARRAY[i.adding], ARRAY[i.ending], false
FROM (
    SELECT inhparent AS other, 'ALTER TABLE ' || :relation || ' INHERIT ' || inhparent::regclass AS adding,
        'ALTER TABLE ' || :relation || ' NO INHERIT ' || inhparent::regclass AS ending
    FROM pg_inherits WHERE inhrelid = :oid
    UNION ALL
    SELECT inhrelid, 'ALTER TABLE ' || inhrelid::regclass || ' INHERIT ' || :relation,
        'ALTER TABLE ' || inhrelid::regclass || ' NO INHERIT ' || :relation
    FROM pg_inherits WHERE inhparent = :oid
) AS i
"""

_STATISTICS = f"""
SELECT 'statistics', stxname::text, jsonb_build_object('definition', definition, 'target', target),
    ARRAY[definition] || CASE target WHEN -1 THEN ARRAY[]::text[]
        ELSE ARRAY['ALTER STATISTICS ' || quote_ident(stxname) || ' SET STATISTICS ' || target] END,
    ARRAY['DROP STATISTICS ' || quote_ident(stxname)], false
FROM (
    SELECT s.stxname, coalesce(s.stxstattarget, -1) AS target,
        {_CLEAN.format("replace(pg_get_statisticsobjdef(s.oid), quote_ident(n.nspname) || '.', '')")} AS definition
    FROM pg_statistic_ext AS s JOIN pg_namespace AS n ON n.oid = s.stxnamespace WHERE s.stxrelid = :oid
) AS own
"""

# The sequence of a serial or identity column, as it counts.
_SEQUENCES = f"""
SELECT 'sequence', a.attname::text,
    jsonb_build_object('type', format_type(s.seqtypid, NULL), 'increment', s.seqincrement, 'minimum', s.seqmin,
        'maximum', s.seqmax, 'start', s.seqstart, 'cache', s.seqcache, 'cycle', s.seqcycle,
        'identity', a.attidentity),
    ARRAY['ALTER SEQUENCE ' || {_CLEAN.format("c.oid::regclass::text")} || ' AS ' || format_type(s.seqtypid, NULL)
        || ' INCREMENT ' || s.seqincrement || ' MINVALUE ' || s.seqmin || ' MAXVALUE ' || s.seqmax
        || ' START ' || s.seqstart || ' CACHE ' || s.seqcache || CASE WHEN s.seqcycle THEN ' CYCLE' ELSE ' NO CYCLE' END],
    ARRAY[]::text[], false
FROM pg_depend AS d JOIN pg_class AS c ON c.oid = d.objid JOIN pg_sequence AS s ON s.seqrelid = c.oid
JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = :oid
    AND d.deptype IN ('a', 'i')
"""

# The owner's own privileges say nothing about who else has any; MAINTAIN is not on every server version.
_GRANTS = f"""
SELECT 'grant', grantee || ': ' || what || CASE WHEN kind = 'SEQUENCE' THEN ' on the sequence of ' || column_name ELSE '' END,
    jsonb_build_object('grantable', is_grantable),
    ARRAY['GRANT ' || what || ' ON ' || kind || ' ' || target || ' TO ' || grantee
        || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END],
    ARRAY['REVOKE ' || what || ' ON ' || kind || ' ' || target || ' FROM ' || grantee], false
FROM (
    SELECT coalesce(quote_ident(r.rolname), 'PUBLIC') AS grantee, acl.is_grantable, source.kind, source.target,
        source.column_name,
        acl.privilege_type || CASE WHEN source.kind = 'TABLE' AND source.column_name IS NOT NULL
            THEN ' (' || source.column_name || ')' ELSE '' END AS what
    FROM (
        SELECT 'TABLE' AS kind, :relation AS target, NULL::text AS column_name, relacl AS acl, relowner AS owner
        FROM pg_class WHERE oid = :oid
        UNION ALL
        SELECT 'TABLE', :relation, quote_ident(a.attname), a.attacl, c.relowner
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid WHERE a.attrelid = :oid AND NOT a.attisdropped
        UNION ALL
        SELECT 'SEQUENCE', {_CLEAN.format("c.oid::regclass::text")}, quote_ident(a.attname), c.relacl, c.relowner
        FROM pg_depend AS d JOIN pg_class AS c ON c.oid = d.objid AND c.relkind = 'S'
        JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = :oid
            AND d.deptype IN ('a', 'i')
    ) AS source
    CROSS JOIN LATERAL aclexplode(source.acl) AS acl
    LEFT JOIN pg_roles AS r ON r.oid = acl.grantee
    WHERE acl.grantee <> source.owner
) AS own
"""

_RELATION = text(
    "\nUNION ALL\n".join(
        (
            _ROW_SECURITY,
            _POLICIES,
            _TRIGGERS,
            _INDEXES,
            _CONSTRAINTS,
            _COLUMNS,
            _TABLE,
            _STATISTICS,
            _SEQUENCES,
            _GRANTS,
        )
    )
    .replace(":relation", "CAST(:relation AS text)")
    .replace(":oid", "CAST(:oid AS oid)")
)

# Functions of a schema, those of other kinds too; declared ones are read in pg_temp, under :schema.
_FUNCTIONS = text(f"""
SELECT 'function', signature, jsonb_build_object('definition', definition), ARRAY[definition],
    ARRAY['DROP ' || CASE prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END || ' ' || signature], false
FROM (
    SELECT p.prokind, quote_ident(:schema) || '.' || quote_ident(p.proname) || '('
            || pg_get_function_identity_arguments(p.oid) || ')' AS signature,
        replace(pg_get_functiondef(p.oid), ' ' || {_SCHEMA_NAME} || '.' || quote_ident(p.proname) || '(',
            ' ' || quote_ident(:schema) || '.' || quote_ident(p.proname) || '(') AS definition
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.oid = CAST(:oid AS oid) AND p.prokind IN ('f', 'p', 'w')
) AS own
UNION ALL
SELECT 'grant', grantee || ': EXECUTE on ' || signature, jsonb_build_object('grantable', is_grantable),
    ARRAY['GRANT EXECUTE ON FUNCTION ' || signature || ' TO ' || grantee
        || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END],
    ARRAY['REVOKE EXECUTE ON FUNCTION ' || signature || ' FROM ' || grantee], false
FROM (
    SELECT coalesce(quote_ident(r.rolname), 'PUBLIC') AS grantee, acl.is_grantable,
        quote_ident(:schema) || '.' || quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')'
        AS signature
    FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS acl
    LEFT JOIN pg_roles AS r ON r.oid = acl.grantee
    WHERE p.pronamespace = CAST(:oid AS oid) AND p.prokind IN ('f', 'p', 'w') AND acl.grantee <> p.proowner
) AS own
""")

_SCHEMA = text("""
SELECT 'schema', '', '{}'::jsonb, ARRAY['CREATE SCHEMA ' || quote_ident(nspname)], ARRAY[]::text[], false
FROM pg_namespace WHERE nspname = :schema
UNION ALL
SELECT 'grant', coalesce(quote_ident(r.rolname), 'PUBLIC') || ': ' || acl.privilege_type,
    jsonb_build_object('grantable', acl.is_grantable),
    ARRAY['GRANT ' || acl.privilege_type || ' ON SCHEMA ' || quote_ident(n.nspname) || ' TO '
        || coalesce(quote_ident(r.rolname), 'PUBLIC')],
    ARRAY['REVOKE ' || acl.privilege_type || ' ON SCHEMA ' || quote_ident(n.nspname) || ' FROM '
        || coalesce(quote_ident(r.rolname), 'PUBLIC')], false
FROM pg_namespace AS n CROSS JOIN LATERAL aclexplode(n.nspacl) AS acl LEFT JOIN pg_roles AS r ON r.oid = acl.grantee
WHERE n.nspname = :schema AND acl.grantee <> n.nspowner
""")


def of_relation(connection: Connection, oid: int, relation: str, schemas: list[str]) -> Facts:
    """Read the facts of a table, or of a clone of it.

    :param relation: the table's name, as the statements shall say it.
    :param schemas: those whose functions are declared; triggers that call others are foreign.
    """
    return _facts(
        relation, connection.execute(_RELATION, {"oid": oid, "relation": relation, "schemas": schemas})
    )


def of_functions(connection: Connection, oid: int, schema: str) -> Facts:
    """Read the facts of the functions in a schema.

    :param oid: the schema's, or that of the one in which declared functions were made.
    """
    return _facts(schema, connection.execute(_FUNCTIONS, {"oid": oid, "schema": schema}))


def of_schema(connection: Connection, schema: str) -> Facts:
    """Read the facts of a schema itself: that it is there, and its privileges."""
    return _facts(schema, connection.execute(_SCHEMA, {"schema": schema}))


def _facts(on: str, rows: Any) -> Facts:
    return {fact.key: fact for fact in _each(on, rows)}


def _each(on: str, rows: Any) -> Iterator[Fact]:
    for kind, name, attributes, create, drop, foreign in rows:
        yield Fact(kind, on, name, attributes, tuple(create), tuple(drop), foreign)
