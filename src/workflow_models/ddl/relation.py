"""How the facts of tables are read, one query a kind.

Each query gives kind, name, attributes, the statements that create, alter and drop, and whether the fact is
foreign. In them ``:relation`` is the table's name as statements say it, ``:oid`` the table or its clone, and
``:schema`` what stands in front of the names of a clone's own objects instead of pg_temp: columns of the
``:targets`` in the end.
"""

# SQL reads better in its own lines.
# ruff: noqa: E501

import re

from sqlalchemy import TextClause, text

NONE = "ARRAY[]::text[]"

# Fences off a subquery: what it prints is planned and printed once, and not wherever it is used.
_ONCE = "OFFSET 0"

# What a clone prints of its own schema, whose real name has a number; functions there are not its own.
CLEAN = "regexp_replace({}, 'pg_temp(_\\d+)?\\.(?!declared_function_)', :schema, 'g')"
_SCHEMA_NAME = "CASE n.oid WHEN pg_my_temp_schema() THEN 'pg_temp' ELSE quote_ident(n.nspname) END"
_ON = f"""(
    SELECT ' ON ' || {_SCHEMA_NAME} || '.' || quote_ident(c.relname)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = :oid)"""


def comment(target: str, oid: str, catalog: str) -> str:
    """Give SQL for the statement that restores a comment that is not compared, if there is one."""
    return f"""CASE WHEN obj_description({oid}, '{catalog}') IS NULL THEN {NONE}
        ELSE ARRAY['COMMENT ON ' || {target} || ' IS ' || quote_literal(obj_description({oid}, '{catalog}'))] END"""


# A clone's sequence is visible without its schema.
_SEQUENCE_NAME = """CASE WHEN c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = :oid)
    THEN :schema || quote_ident(c.relname) ELSE c.oid::regclass::text END"""


_ROW_SECURITY = f"""
SELECT 'row security', '', jsonb_build_object('enabled', relrowsecurity, 'forced', relforcerowsecurity),
    ARRAY[
        'ALTER TABLE ' || :relation || CASE WHEN relrowsecurity THEN ' ENABLE' ELSE ' DISABLE' END || ' ROW LEVEL SECURITY',
        'ALTER TABLE ' || :relation || CASE WHEN relforcerowsecurity THEN ' FORCE' ELSE ' NO FORCE' END || ' ROW LEVEL SECURITY'
    ], {NONE}, {NONE}, false
FROM pg_class WHERE oid = :oid
"""

_POLICIES = f"""
SELECT 'policy', polname::text,
    jsonb_build_object('command', command, 'restrictive', NOT polpermissive, 'to', roles, 'using', visible, 'check', written),
    ARRAY['CREATE POLICY ' || quote_ident(polname) || ' ON ' || :relation
        || CASE WHEN polpermissive THEN '' ELSE ' AS RESTRICTIVE' END || ' FOR ' || command || ' TO ' || roles
        || coalesce(' USING (' || visible || ')', '') || coalesce(' WITH CHECK (' || written || ')', '')]
        || {comment("'POLICY ' || quote_ident(polname) || ' ON ' || :relation", "oid", "pg_policy")},
    {NONE}, ARRAY['DROP POLICY ' || quote_ident(polname) || ' ON ' || :relation], false
FROM (
    SELECT p.*, {CLEAN.format("pg_get_expr(polqual, polrelid)")} AS visible,
        {CLEAN.format("pg_get_expr(polwithcheck, polrelid)")} AS written,
        CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
            ELSE 'ALL' END AS command,
        (SELECT string_agg(coalesce(quote_ident(r.rolname), 'PUBLIC'), ', ' ORDER BY r.rolname)
            FROM unnest(polroles) AS role (oid) LEFT JOIN pg_roles AS r ON r.oid = role.oid) AS roles
    FROM pg_policy AS p WHERE polrelid = :oid
    {_ONCE}
) AS policy
"""

# A trigger that calls a function of another schema belongs to the application.
_TRIGGERS = f"""
SELECT 'trigger', tgname::text, jsonb_build_object('definition', definition, 'enabled', mode),
    ARRAY[definition] || CASE tgenabled
        WHEN 'O' THEN {NONE}
        ELSE ARRAY['ALTER TABLE ' || :relation || CASE tgenabled WHEN 'D' THEN ' DISABLE' WHEN 'R' THEN ' ENABLE REPLICA'
            ELSE ' ENABLE ALWAYS' END || ' TRIGGER ' || quote_ident(tgname)] END
        || {comment("'TRIGGER ' || quote_ident(tgname) || ' ON ' || :relation", "oid", "pg_trigger")},
    {NONE}, ARRAY['DROP TRIGGER ' || quote_ident(tgname) || ' ON ' || :relation],
    NOT (function_schema = ANY (CAST(:schemas AS text[])))
FROM (
    SELECT t.*, n.nspname::text AS function_schema,
        CASE t.tgenabled WHEN 'O' THEN 'origin' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' ELSE 'always' END AS mode,
        replace(pg_get_triggerdef(t.oid), {_ON} || ' ', ' ON ' || :relation || ' ') AS definition
    FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE t.tgrelid = :oid AND NOT t.tgisinternal
    {_ONCE}
) AS own
"""

_INDEX_DEFINITION = f"replace(pg_get_indexdef({{}}), {_ON} || ' ', ' ON ' || :relation || ' ')"

# Another index is built beside the one whose place it takes, so that what is unique stays so.
_INDEXES = f"""
SELECT 'index', relname::text, jsonb_build_object('definition', definition, 'valid', indisvalid, 'statistics targets', targets),
    ARRAY[definition] || targeting, ARRAY[
        replace(definition, 'INDEX ' || quote_ident(relname) || ' ON', 'INDEX ' || next || ' ON'), dropping,
        'ALTER INDEX ' || :schema || next || ' RENAME TO ' || quote_ident(relname)] || targeting,
    ARRAY[dropping], false
FROM (
    SELECT *, 'DROP INDEX ' || :schema || quote_ident(relname) AS dropping, quote_ident(left(relname, 58) || '_next') AS next,
        ARRAY(SELECT 'ALTER INDEX ' || :schema || quote_ident(relname) || ' ALTER COLUMN ' || entry || ' SET STATISTICS '
            || target FROM jsonb_each_text(targets) AS own (entry, target))
            || {comment("'INDEX ' || :schema || quote_ident(relname)", "oid", "pg_class")} AS targeting
FROM (
    SELECT c.oid, c.relname, i.indisvalid AND i.indisready AND i.indislive AS indisvalid, {_INDEX_DEFINITION.format("c.oid")} AS definition,
        (SELECT jsonb_object_agg(a.attnum, a.attstattarget) FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attstattarget >= 0)
            AS targets
    FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE i.indrelid = :oid AND NOT EXISTS (
        SELECT FROM pg_constraint WHERE conindid = c.oid AND conrelid = :oid AND contype IN ('p', 'u', 'x'))
    {_ONCE}
) AS own {_ONCE}) AS own
"""

# A foreign key or CHECK is added NOT VALID and validated by itself, a key gets an index that was built
# beforehand, so that writers go on; another key takes the place of one in one statement. The triggers that enforce a constraint can be disabled one by one.
_CONSTRAINTS = f"""
SELECT kind, conname::text,
    jsonb_build_object('definition', definition, 'valid', valid, 'triggers', modes,
        'storage parameters', (SELECT reloptions FROM pg_class WHERE oid = conindid AND contype IN ('p', 'u', 'x'))),
    CASE
        WHEN contype IN ('f', 'c') THEN ARRAY[adding || definition || ' NOT VALID'] || CASE WHEN valid
            THEN ARRAY['ALTER TABLE ' || :relation || ' VALIDATE CONSTRAINT ' || quote_ident(conname)]
            ELSE {NONE} END
        WHEN contype IN ('p', 'u') AND definition NOT LIKE '%WITHOUT OVERLAPS%' THEN ARRAY[
            {_INDEX_DEFINITION.format("conindid")},
            adding || CASE contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END || ' USING INDEX ' || quote_ident(conname) || deferring]
        ELSE ARRAY[adding || definition]
    END || CASE WHEN modes IS NULL THEN {NONE} ELSE ARRAY['DO $triggers$ DECLARE alter text; BEGIN FOR alter IN '
        || 'SELECT format(''ALTER TABLE %s %s TRIGGER %I'', tgrelid::regclass, mode.value, tgname) '
        || 'FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid JOIN pg_constraint AS c ON c.oid = tgconstraint '
        || 'JOIN jsonb_each_text(' || quote_literal(modes::text) || ') AS mode ON mode.key = proname WHERE c.conname = '
        || quote_literal(conname) || ' AND c.conrelid = ' || quote_literal(:relation)
        || '::regclass AND current_setting(''is_superuser'')::boolean LOOP EXECUTE alter; END LOOP; END $triggers$'] END
    || {comment("'CONSTRAINT ' || quote_ident(conname) || ' ON ' || :relation", "oid", "pg_constraint")},
    CASE WHEN contype IN ('p', 'u') AND definition NOT LIKE '%WITHOUT OVERLAPS%' THEN ARRAY[
            replace({_INDEX_DEFINITION.format("conindid")}, 'INDEX ' || quote_ident(conname) || ' ON', 'INDEX ' || next || ' ON'),
            'ALTER TABLE ' || :relation || ' DROP CONSTRAINT ' || quote_ident(conname) || ', ADD CONSTRAINT ' || quote_ident(conname)
                || CASE contype WHEN 'p' THEN ' PRIMARY KEY' ELSE ' UNIQUE' END || ' USING INDEX ' || next || deferring]
        || {comment("'CONSTRAINT ' || quote_ident(conname) || ' ON ' || :relation", "oid", "pg_constraint")} ELSE {NONE} END,
    ARRAY['ALTER TABLE ' || :relation || ' DROP CONSTRAINT ' || quote_ident(conname)],
    contype = 'f'
FROM (
    SELECT c.*, {CLEAN.format("replace(replace(pg_get_constraintdef(c.oid), ' NOT VALID', ''), 'REFERENCES ' || regexp_replace(c.confrelid::regclass::text, '^pg_temp_[0-9]+', 'pg_temp') || '(', 'REFERENCES ' || coalesce(CASE WHEN f.relnamespace = pg_my_temp_schema() THEN CAST(:names AS jsonb) ->> f.relname END, c.confrelid::regclass::text) || '(')")} AS definition,
        'ALTER TABLE ' || :relation || ' ADD CONSTRAINT ' || quote_ident(conname) || ' ' AS adding,
        quote_ident(left(conname, 58) || '_next') AS next,
        CASE WHEN condeferrable THEN ' DEFERRABLE' ELSE '' END || CASE WHEN condeferred THEN ' INITIALLY DEFERRED' ELSE '' END
            AS deferring,
        CASE c.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique constraint' WHEN 'x' THEN 'exclusion constraint'
            WHEN 'c' THEN 'check constraint' ELSE 'foreign key' END AS kind,
        c.convalidated AND coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = c.conindid), true) AS valid,
        (SELECT jsonb_object_agg(p.proname, CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END)
            FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid WHERE t.tgconstraint = c.oid AND t.tgenabled <> 'O') AS modes
    FROM pg_constraint AS c LEFT JOIN pg_class AS f ON f.oid = c.confrelid WHERE c.conrelid = :oid AND c.contype IN ('p', 'u', 'x', 'c', 'f')
    {_ONCE}
) AS own
"""

# NOT NULL is proven by a validated CHECK, so that it needs no scan under its lock. Where rows refute it, it goes, and
# then the step fails: else it would refuse what the application writes. It is still there after a kill in between.
_COLUMNS = f"""
SELECT fact.kind, own.attname::text, jsonb_build_object('value', fact.value), CASE
        WHEN fact.kind = 'column comment' THEN ARRAY['COMMENT ON COLUMN ' || :relation || '.' || quote_ident(own.attname)
            || ' IS ' || coalesce(quote_literal(fact.value), 'NULL')]
        WHEN fact.kind = 'not null' AND fact.value = 'true' THEN ARRAY[
            'ALTER TABLE ' || :relation || ' DROP CONSTRAINT IF EXISTS ' || own.proof || ', ADD CONSTRAINT ' || own.proof || ' CHECK (' || quote_ident(own.attname) || ' IS NOT NULL) NOT VALID',
            'DO $proof$ BEGIN ALTER TABLE ' || :relation || ' VALIDATE CONSTRAINT ' || own.proof
                || '; EXCEPTION WHEN check_violation THEN ALTER TABLE ' || :relation || ' DROP CONSTRAINT ' || own.proof
                || '; END $proof$',
            'DO $proof$ BEGIN IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = ' || quote_literal(:relation)
                || '::regclass AND conname = ' || quote_literal(left(own.attname, 48) || '_not_null_proof')
                || ') THEN RAISE not_null_violation USING MESSAGE = ' || quote_literal(format('rows of %s have no %s', :relation, own.attname))
                || '; END IF; END $proof$',
            own.altering || 'SET NOT NULL',
            'ALTER TABLE ' || :relation || ' DROP CONSTRAINT ' || own.proof]
        WHEN fact.kind = 'not null' AND fact.value = 'not validated' THEN ARRAY[
            own.altering || 'DROP NOT NULL', 'ALTER TABLE ' || :relation || ' ADD NOT NULL ' || quote_ident(own.attname) || ' NOT VALID']
        ELSE ARRAY[own.altering || CASE fact.kind
            WHEN 'type' THEN 'TYPE ' || fact.value || ' USING ' || quote_ident(own.attname) || own.converted
            WHEN 'not null' THEN 'DROP NOT NULL'
            WHEN 'storage' THEN 'SET STORAGE ' || own.storage
            WHEN 'compression' THEN 'SET COMPRESSION ' || fact.value
            WHEN 'statistics target' THEN 'SET STATISTICS ' || fact.value
            END]
        END, {NONE}, {NONE}, false
FROM (
    SELECT a.*,
        {CLEAN.format("format_type(a.atttypid, a.atttypmod)")} AS type, t.typstorage,
        CASE WHEN a.attcollation IN (0, t.typcollation) THEN '' ELSE ' COLLATE ' || a.attcollation::regcollation END AS collation,
        CASE a.attstorage WHEN 'p' THEN 'plain' WHEN 'm' THEN 'main' WHEN 'x' THEN 'extended' ELSE 'external' END AS storage,
        -- Between enum types there is no cast.
        CASE WHEN 'e' IN (t.typtype, (SELECT typtype FROM pg_type WHERE oid = t.typelem)) THEN '::text' ELSE '' END
            || '::' || {CLEAN.format("format_type(a.atttypid, a.atttypmod)")} AS converted,
        'ALTER TABLE ' || :relation || ' ALTER COLUMN ' || quote_ident(a.attname) || ' ' AS altering,
        quote_ident(left(a.attname, 48) || '_not_null_proof') AS proof
    FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
    WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped
    {_ONCE}
) AS own
CROSS JOIN LATERAL (VALUES
    ('type', own.type || own.collation),
    ('not null', CASE WHEN EXISTS (
            SELECT FROM pg_constraint WHERE conrelid = :oid AND contype = 'n' AND conkey = ARRAY[own.attnum] AND NOT convalidated)
        THEN 'not validated' ELSE own.attnotnull::text END),
    ('storage', CASE own.attstorage WHEN own.typstorage THEN 'default' ELSE own.storage END),
    ('compression', CASE own.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' ELSE 'default' END),
    ('statistics target', coalesce(own.attstattarget, -1)::text),
    ('column comment', col_description(:oid, own.attnum))
) AS fact (kind, value)
UNION ALL
SELECT 'default', attname::text, jsonb_build_object('value', value), ARRAY[altering || 'SET DEFAULT ' || value],
    ARRAY[altering || 'SET DEFAULT ' || value], ARRAY[altering || 'DROP DEFAULT'], false
FROM (
    SELECT a.attname, 'ALTER TABLE ' || :relation || ' ALTER COLUMN ' || quote_ident(a.attname) || ' ' AS altering,
        (SELECT replace({CLEAN.format("pg_get_expr(d.adbin, d.adrelid)")},
                coalesce(max(quote_literal({CLEAN.format("c.oid::regclass::text")})), ' '),
                coalesce(max(quote_literal({_SEQUENCE_NAME})), ' '))
            FROM pg_depend AS s JOIN pg_class AS c ON c.oid = s.refobjid AND c.relkind = 'S'
            WHERE s.classid = 'pg_attrdef'::regclass AND s.objid = d.oid AND s.refclassid = 'pg_class'::regclass) AS value
    FROM pg_attribute AS a JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    {_ONCE}
) AS own
UNION ALL
SELECT 'column option', option_name || ' of ' || attname, jsonb_build_object('value', option_value),
    ARRAY[altering || 'SET (' || option_name || ' = ' || option_value || ')'], {NONE},
    ARRAY[altering || 'RESET (' || option_name || ')'], false
FROM (
    SELECT a.attname, a.attoptions, 'ALTER TABLE ' || :relation || ' ALTER COLUMN ' || quote_ident(a.attname) || ' ' AS altering
    FROM pg_attribute AS a WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped
    {_ONCE}
) AS own CROSS JOIN LATERAL pg_options_to_table(own.attoptions)
UNION ALL
SELECT 'identity', attname::text, jsonb_build_object('value', kind),
    ARRAY[altering || 'SET NOT NULL', altering || 'ADD GENERATED ' || kind || ' AS IDENTITY (SEQUENCE NAME ' || sequence || ')'],
    ARRAY[altering || 'SET GENERATED ' || kind], ARRAY[altering || 'DROP IDENTITY'], false
FROM (
    SELECT a.attname, 'ALTER TABLE ' || :relation || ' ALTER COLUMN ' || quote_ident(a.attname) || ' ' AS altering,
        CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END AS kind, {_SEQUENCE_NAME} AS sequence
    FROM pg_attribute AS a JOIN pg_depend AS d ON d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
        AND d.refclassid = 'pg_class'::regclass AND d.classid = 'pg_class'::regclass AND d.deptype = 'i'
    JOIN pg_class AS c ON c.oid = d.objid AND c.relkind = 'S'
    WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity <> ''
    {_ONCE}
) AS own
UNION ALL
SELECT 'generated column', attname::text, jsonb_build_object('value', value, 'kind', kind),
    ARRAY['ALTER TABLE ' || :relation || ' DROP COLUMN ' || quote_ident(attname),
        'ALTER TABLE ' || :relation || ' ADD COLUMN ' || quote_ident(attname) || ' ' || type || ' GENERATED ALWAYS AS (' || value || ') ' || kind]
        || CASE WHEN note IS NULL THEN {NONE} ELSE ARRAY[
            'COMMENT ON COLUMN ' || :relation || '.' || quote_ident(attname) || ' IS ' || quote_literal(note)] END,
    {NONE}, ARRAY['ALTER TABLE ' || :relation || ' ALTER COLUMN ' || quote_ident(attname) || ' DROP EXPRESSION'], false
FROM (
    SELECT a.attname, {CLEAN.format("pg_get_expr(d.adbin, d.adrelid)")} AS value, {CLEAN.format("format_type(a.atttypid, a.atttypmod)")} AS type,
        CASE a.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END AS kind, col_description(:oid, a.attnum) AS note
    FROM pg_attribute AS a JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> ''
    {_ONCE}
) AS own
"""

# What a child has of its parents, and whether it is its own besides; by that, a child that was dropped is made again.
_INHERITED = """jsonb_build_object('parent', i.parent::regclass,
    'columns', (SELECT jsonb_object_agg(attname, attislocal) FROM pg_attribute WHERE attrelid = i.child AND attinhcount > 0 AND NOT attisdropped),
    'checks', (SELECT jsonb_object_agg(conname, conislocal) FROM pg_constraint WHERE conrelid = i.child AND coninhcount > 0 AND contype = 'c'),
    'not null', (SELECT jsonb_agg(attname) FROM pg_constraint JOIN pg_attribute AS a ON attrelid = conrelid AND conkey = ARRAY[attnum]
        WHERE conrelid = i.child AND contype = 'n' AND NOT conislocal))"""

_TABLE = f"""
SELECT 'relation kind', '', jsonb_build_object('value', CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table partitioned by '
        || pg_get_partkeydef(oid) WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
        ELSE 'sequence or index' END), {NONE}, {NONE}, {NONE}, false
FROM pg_class WHERE oid = :oid
UNION ALL
SELECT 'table comment', '', jsonb_build_object('value', obj_description(:oid, 'pg_class')),
    ARRAY['COMMENT ON TABLE ' || :relation || ' IS ' || coalesce(quote_literal(obj_description(:oid, 'pg_class')), 'NULL')],
    {NONE}, {NONE}, false
UNION ALL
SELECT 'replica identity', '', jsonb_build_object('value', value), ARRAY['ALTER TABLE ' || :relation || ' REPLICA IDENTITY ' || value],
    {NONE}, {NONE}, false
FROM (
    SELECT CASE relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' WHEN 'd' THEN 'DEFAULT' ELSE coalesce((
        SELECT 'USING INDEX ' || quote_ident(c.relname) FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid
        WHERE indrelid = :oid AND indisreplident), 'NOTHING') END AS value
    FROM pg_class WHERE oid = :oid
    {_ONCE}
) AS own
UNION ALL
SELECT 'clustering', '', jsonb_build_object('value', name),
    ARRAY['ALTER TABLE ' || :relation || coalesce(' CLUSTER ON ' || name, ' SET WITHOUT CLUSTER')], {NONE}, {NONE}, false
FROM (
    SELECT (SELECT quote_ident(c.relname) FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid
        WHERE indrelid = :oid AND indisclustered) AS name
    {_ONCE}
) AS own
UNION ALL
SELECT 'persistence', '', jsonb_build_object('value', CASE relpersistence WHEN 'u' THEN 'unlogged' ELSE 'logged' END),
    ARRAY['ALTER TABLE ' || :relation || CASE relpersistence WHEN 'u' THEN ' SET UNLOGGED' ELSE ' SET LOGGED' END],
    {NONE}, {NONE}, false
FROM pg_class WHERE oid = :oid
UNION ALL
SELECT 'storage parameter', option_name, jsonb_build_object('value', option_value),
    ARRAY['ALTER TABLE ' || :relation || ' SET (' || option_name || ' = ' || option_value || ')'], {NONE},
    ARRAY['ALTER TABLE ' || :relation || ' RESET (' || option_name || ')'], true
FROM pg_options_to_table((SELECT reloptions FROM pg_class WHERE oid = :oid))
UNION ALL
SELECT 'rule', rulename::text, jsonb_build_object('definition', pg_get_ruledef(oid), 'enabled', mode),
    ARRAY[pg_get_ruledef(oid)] || CASE mode WHEN 'origin' THEN {NONE} ELSE ARRAY['ALTER TABLE ' || :relation
        || CASE mode WHEN 'disabled' THEN ' DISABLE' WHEN 'replica' THEN ' ENABLE REPLICA' ELSE ' ENABLE ALWAYS' END
        || ' RULE ' || quote_ident(rulename)] END,
    {NONE}, ARRAY['DROP RULE ' || quote_ident(rulename) || ' ON ' || :relation], false
FROM (
    SELECT *, CASE ev_enabled WHEN 'O' THEN 'origin' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' ELSE 'always' END AS mode
    FROM pg_rewrite WHERE ev_class = :oid
    {_ONCE}
) AS own
UNION ALL
SELECT 'of type', reloftype::regtype::text, '{{}}'::jsonb, ARRAY['ALTER TABLE ' || :relation || ' OF ' || reloftype::regtype],
    {NONE}, ARRAY['ALTER TABLE ' || :relation || ' NOT OF'], false
FROM pg_class WHERE oid = :oid AND reloftype <> 0
UNION ALL
SELECT 'inheritance', i.child::regclass || ' of ' || i.parent::regclass, CASE WHEN i.child = :oid THEN {_INHERITED} ELSE '{{}}' END,
    ARRAY['ALTER TABLE ' || i.child::regclass || ' INHERIT ' || i.parent::regclass], {NONE},
    ARRAY[CASE WHEN c.relispartition THEN 'ALTER TABLE ' || i.parent::regclass || ' DETACH PARTITION ' || i.child::regclass
        ELSE 'ALTER TABLE ' || i.child::regclass || ' NO INHERIT ' || i.parent::regclass END], false
FROM (SELECT inhrelid AS child, inhparent AS parent FROM pg_inherits WHERE :oid IN (inhrelid, inhparent) ORDER BY inhseqno) AS i
JOIN pg_class AS c ON c.oid = i.child
"""

# Statistics may stand in another schema than their table, and are called by it then.
STATISTICS_NAME = """CASE WHEN s.stxnamespace = (SELECT relnamespace FROM pg_class WHERE oid = s.stxrelid) THEN s.stxname::text
    ELSE quote_ident(n.nspname) || '.' || quote_ident(s.stxname) END"""
_STATISTICS_QUALIFIED = """CASE WHEN s.stxnamespace = (SELECT relnamespace FROM pg_class WHERE oid = s.stxrelid) THEN :schema
    ELSE quote_ident(n.nspname) || '.' END || quote_ident(s.stxname)"""
_STATISTICS = rf"""
SELECT 'statistics', called, jsonb_build_object('columns', columns, 'expressions', expressions, 'kinds', kinds, 'target', target),
    ARRAY[definition] || CASE target WHEN -1 THEN {NONE}
        ELSE ARRAY['ALTER STATISTICS ' || name || ' SET STATISTICS ' || target] END
        || {comment("'STATISTICS ' || name", "oid", "pg_statistic_ext")},
    {NONE}, ARRAY['DROP STATISTICS ' || name], false
FROM (
    SELECT s.oid, {STATISTICS_NAME} AS called, {_STATISTICS_QUALIFIED} AS name, coalesce(s.stxstattarget, -1) AS target,
        pg_get_statisticsobjdef_expressions(s.oid) AS expressions, s.stxkind::text[] AS kinds,
        (SELECT array_agg(a.attname ORDER BY a.attname) FROM pg_attribute AS a
            WHERE a.attrelid = :oid AND a.attnum = ANY (s.stxkeys)) AS columns,
        regexp_replace(replace(pg_get_statisticsobjdef(s.oid), 'CREATE STATISTICS ' || {_SCHEMA_NAME} || '.' || quote_ident(s.stxname),
            'CREATE STATISTICS ' || {_STATISTICS_QUALIFIED}), ' FROM \S+$', ' FROM ' || :relation)
        AS definition
    FROM pg_statistic_ext AS s JOIN pg_namespace AS n ON n.oid = s.stxnamespace WHERE s.stxrelid = :oid
    {_ONCE}
) AS own
"""

# The sequences that the table owns, as identity or serial columns make them, or that its defaults use.
_SEQUENCES_OF = "SELECT * FROM used_sequence WHERE target_oid = :oid"
_USED_SEQUENCES = """
    SELECT target.oid AS target_oid, d.objid AS oid, d.refobjsubid AS attnum, d.deptype = 'i' AS identity, true AS owned
    FROM pg_depend AS d JOIN pg_class AS c ON c.oid = d.objid AND c.relkind = 'S'
    JOIN target ON target.oid = d.refobjid
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    UNION
    SELECT target.oid, d.refobjid, f.adnum, false, false
    FROM target JOIN pg_attrdef AS f ON f.adrelid = target.oid JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
    JOIN pg_class AS c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid AND c.relkind = 'S'
    WHERE NOT EXISTS (
        SELECT FROM pg_depend AS o WHERE o.classid = 'pg_class'::regclass AND o.objid = d.refobjid AND o.refobjid = target.oid
            AND o.deptype IN ('a', 'i'))
"""

_SEQUENCES = f"""
SELECT CASE WHEN identity THEN 'identity sequence' ELSE 'sequence' END, name, jsonb_build_object('type', type, 'increment', s.seqincrement, 'minimum', s.seqmin,
        'maximum', s.seqmax, 'start', s.seqstart, 'cache', s.seqcache, 'cycle', s.seqcycle,
        'column', attname, 'owned', owned),
    CASE WHEN identity THEN {NONE} ELSE ARRAY['CREATE SEQUENCE ' || name] END || altering
        || ARRAY['SELECT setval(' || quote_literal(name) || ', max(' || quote_ident(attname) || ')) FROM ' || :relation
            || ' WHERE ' || quote_ident(attname) || ' BETWEEN ' || seqmin || ' AND ' || seqmax],
    altering, CASE WHEN identity THEN {NONE} ELSE ARRAY['DROP SEQUENCE ' || name] END, NOT owned
FROM (
    SELECT own.*, ARRAY['ALTER SEQUENCE ' || name || ' AS ' || type
        || ' INCREMENT ' || seqincrement || ' MINVALUE ' || seqmin || ' MAXVALUE ' || seqmax
        || ' START ' || seqstart || ' CACHE ' || seqcache || CASE WHEN seqcycle THEN ' CYCLE' ELSE ' NO CYCLE' END
        || CASE WHEN identity THEN '' WHEN owned THEN ' OWNED BY ' || :relation || '.' || quote_ident(attname)
            ELSE ' OWNED BY NONE' END] AS altering
    FROM (
        SELECT s.*, a.attname, q.owned, q.identity, format_type(s.seqtypid, NULL) AS type,
            {_SEQUENCE_NAME} AS name
        FROM ({_SEQUENCES_OF}) AS q JOIN pg_class AS c ON c.oid = q.oid
        JOIN pg_sequence AS s ON s.seqrelid = q.oid
        JOIN pg_attribute AS a ON a.attrelid = :oid AND a.attnum = q.attnum
        {_ONCE}
    ) AS own
    {_ONCE}
) AS s
UNION ALL
SELECT 'sequence persistence', name, jsonb_build_object('value', mode, 'column', attname),
    ARRAY['ALTER SEQUENCE ' || name || ' SET ' || mode], {NONE}, ARRAY['ALTER SEQUENCE ' || name || ' SET ' || other], false
FROM (
    SELECT {_SEQUENCE_NAME} AS name, a.attname, CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED' ELSE 'LOGGED' END AS mode,
        CASE c.relpersistence WHEN 'u' THEN 'LOGGED' ELSE 'UNLOGGED' END AS other
    FROM ({_SEQUENCES_OF}) AS q JOIN pg_class AS c ON c.oid = q.oid
    JOIN pg_class AS own ON own.oid = :oid AND own.relpersistence <> c.relpersistence
    JOIN pg_attribute AS a ON a.attrelid = :oid AND a.attnum = q.attnum
    WHERE q.owned
    {_ONCE}
) AS own
"""

# The owner's own privileges say nothing about who else has any; MAINTAIN is not on every server version.
_GRANTS = f"""
SELECT 'grant', grantee || ': ' || what || CASE WHEN kind = 'SEQUENCE' THEN ' on the sequence of ' || column_name ELSE '' END,
    jsonb_build_object('grantable', bool_or(is_grantable)),
    ARRAY['GRANT ' || what || ' ON ' || kind || ' ' || target || ' TO ' || grantee
        || CASE WHEN bool_or(is_grantable) THEN ' WITH GRANT OPTION' ELSE '' END], {NONE},
    ARRAY['REVOKE ' || what || ' ON ' || kind || ' ' || target || ' FROM ' || grantee
        || CASE WHEN bool_or(is_grantable) THEN ' CASCADE' ELSE '' END], false
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
        SELECT 'SEQUENCE', {_SEQUENCE_NAME}, quote_ident(a.attname), c.relacl, c.relowner
        FROM ({_SEQUENCES_OF}) AS q JOIN pg_class AS c ON c.oid = q.oid
        JOIN pg_attribute AS a ON a.attrelid = :oid AND a.attnum = q.attnum
    ) AS source
    CROSS JOIN LATERAL aclexplode(source.acl) AS acl
    LEFT JOIN pg_roles AS r ON r.oid = acl.grantee
    WHERE acl.grantee <> source.owner AND acl.privilege_type <> 'MAINTAIN'
    {_ONCE}
) AS own
GROUP BY grantee, what, kind, target, column_name
"""

_OWNER = f"""
SELECT 'owner', '', jsonb_build_object('value', r.rolname),
    ARRAY['ALTER TABLE ' || :relation || ' OWNER TO ' || quote_ident(r.rolname)], {NONE}, {NONE}, false
FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner WHERE c.oid = :oid
UNION ALL
SELECT 'owner', stxname::text, jsonb_build_object('value', r.rolname),
    ARRAY['ALTER STATISTICS ' || CASE n.oid WHEN pg_my_temp_schema() THEN :schema ELSE quote_ident(n.nspname) || '.' END
        || quote_ident(stxname) || ' OWNER TO ' || quote_ident(r.rolname)], {NONE}, {NONE}, false
FROM pg_statistic_ext AS s JOIN pg_roles AS r ON r.oid = s.stxowner JOIN pg_namespace AS n ON n.oid = s.stxnamespace
WHERE s.stxrelid = :oid
"""


def _of_targets(*queries: str) -> TextClause:
    """Give the query for several tables at once, since planning it takes longer than running it."""
    each = (re.sub(r"(?<!:):(oid|relation|schema)\b", r"target.\1", query) for query in queries)
    of_each = "\nUNION ALL\n".join(
        f"SELECT target.relation, fact.* FROM target CROSS JOIN LATERAL ({query}) AS fact" for query in each
    )
    return text(f"""
        WITH target AS MATERIALIZED (
            SELECT * FROM jsonb_to_recordset(CAST(:targets AS jsonb)) AS target (oid oid, relation text, schema text)
        ), used_sequence AS MATERIALIZED ({_USED_SEQUENCES})
        {of_each}""")


RELATIONS = _of_targets(
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
    _OWNER,
)
GRANTS = _of_targets(_GRANTS)

# A sequence by itself, that of :relation, with the statements for that of :name.
_SEQUENCE = """
SELECT to_jsonb(own) - 'altering', ARRAY['CREATE SEQUENCE ' || :name, altering], ARRAY[altering], ARRAY['DROP SEQUENCE ' || :name], false
FROM (
    SELECT *, 'ALTER SEQUENCE ' || :name || ' AS ' || type || ' INCREMENT ' || increment || ' MINVALUE ' || minimum
        || ' MAXVALUE ' || maximum || ' START ' || start || ' CACHE ' || cache || CASE WHEN cycle THEN ' CYCLE' ELSE ' NO CYCLE' END
        || ' OWNED BY ' || coalesce(owner, 'NONE') AS altering
    FROM (
        SELECT format_type(seqtypid, NULL) AS type, seqincrement AS increment, seqmin AS minimum, seqmax AS maximum,
            seqstart AS start, seqcache AS cache, seqcycle AS cycle, (
                SELECT d.refobjid::regclass || '.' || quote_ident(a.attname) FROM pg_depend AS d
                JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                WHERE d.classid = 'pg_class'::regclass AND d.objid = seqrelid AND d.deptype = 'a') AS owner
        FROM pg_sequence WHERE seqrelid = to_regclass(:relation)
    ) AS read
) AS own
"""
SEQUENCE = text(re.sub(r"(?<!:):(name|relation)\b", r"CAST(:\1 AS text)", _SEQUENCE))
