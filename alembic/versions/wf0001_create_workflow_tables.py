"""Create the workflow tables, or take over those of a live application.

Why: definitions and logs with their constraints, indexes, row-level security and grants are the ground
that the later revisions stand on. What an application has made by hand is brought to the same end; what
is already as it should be is not touched.
Locks: on a live database ACCESS EXCLUSIVE on one table at a time, for an instant, where a policy, a
default or a comment differs; SHARE UPDATE EXCLUSIVE for missing indexes and for validation.
"""

from alembic import op

revision = "wf0001_create_workflow_tables"
down_revision = None
branch_labels = ("workflow_models",)
depends_on = None

# The statements that somebody with more rights has to run, all at once.
upgrade_privileges = (
    """
    WITH me AS (SELECT oid, rolname, rolsuper, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname = current_user),
    found AS (
        SELECT c.oid, c.relname, c.relowner, c.relrowsecurity, c.relforcerowsecurity
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    )
    (SELECT format('role %I does not exist, and %I may not create it.', wanted.name, me.rolname),
        format('CREATE ROLE %I NOLOGIN;', wanted.name)
    FROM me CROSS JOIN (VALUES ('authenticated'), ('workflow_worker')) AS wanted (name)
    WHERE NOT (me.rolsuper OR me.rolcreaterole) AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name)
    ORDER BY wanted.name)
    UNION ALL
    SELECT format('%I may not create the schema workflow_private.', me.rolname),
        format('GRANT CREATE ON DATABASE %I TO %I;', current_database(), me.rolname)
    FROM me
    WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'workflow_private')
        AND NOT has_database_privilege(current_database(), 'CREATE')
    UNION ALL
    SELECT format('%I may not create temporary tables, on which declared objects are compared.', me.rolname),
        format('GRANT TEMPORARY ON DATABASE %I TO %I;', current_database(), me.rolname)
    FROM me
    WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')
    UNION ALL
    (SELECT format('%I may not create objects in the schema %I.', me.rolname, n.nspname),
        format('GRANT USAGE, CREATE ON SCHEMA %I TO %I;', n.nspname, me.rolname)
    FROM me CROSS JOIN pg_namespace AS n
    WHERE n.nspname IN ('public', 'workflow_private')
        AND NOT (has_schema_privilege(n.oid, 'CREATE') AND has_schema_privilege(n.oid, 'USAGE'))
    ORDER BY n.nspname)
    UNION ALL
    SELECT format('schema workflow_private belongs to %s, not to %I.', n.nspowner::regrole, me.rolname),
        format('ALTER SCHEMA workflow_private OWNER TO %I;', me.rolname)
    FROM me CROSS JOIN pg_namespace AS n
    WHERE n.nspname = 'workflow_private' AND NOT pg_has_role(n.nspowner, 'USAGE')
    UNION ALL
    (SELECT format('table %I belongs to %s, not to %I.', found.relname, found.relowner::regrole, me.rolname),
        format('ALTER TABLE public.%I OWNER TO %I;', found.relname, me.rolname)
    FROM me CROSS JOIN found
    WHERE found.relname IN ('workflow_definitions', 'workflow_execution_logs')
        AND NOT pg_has_role(found.relowner, 'USAGE')
    ORDER BY found.relname)
    UNION ALL
    (SELECT format('%I has lost %s on %I.', me.rolname, string_agg(needed.privilege, ', '), found.relname),
        format('GRANT %s ON public.%I TO %I;', string_agg(needed.privilege, ', '), found.relname, me.rolname)
    FROM me CROSS JOIN found CROSS JOIN (VALUES ('REFERENCES'), ('SELECT'), ('TRIGGER'), ('UPDATE')) AS needed (privilege)
    WHERE found.relname IN ('workflow_definitions', 'workflow_execution_logs') AND pg_has_role(found.relowner, 'USAGE')
        AND (needed.privilege <> 'REFERENCES' OR found.relname = 'workflow_definitions')
        AND NOT has_table_privilege(found.oid, needed.privilege)
    GROUP BY me.rolname, found.relname ORDER BY found.relname)
    UNION ALL
    SELECT format('function %s belongs to %s, not to %I.', p.oid::regprocedure, p.proowner::regrole, me.rolname),
        format('ALTER FUNCTION %s OWNER TO %I;', p.oid::regprocedure, me.rolname)
    FROM me CROSS JOIN pg_proc AS p
    WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'workflow_private')
        AND NOT pg_has_role(p.proowner, 'USAGE')
    UNION ALL
    SELECT format('%I may not refer to organizations.', me.rolname),
        format('GRANT REFERENCES ON public.organizations TO %I;', me.rolname)
    FROM me CROSS JOIN found
    WHERE found.relname = 'organizations'
        AND NOT (has_table_privilege(found.oid, 'REFERENCES') OR EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = found.oid AND attname = 'id' AND has_column_privilege(found.oid, attnum, 'REFERENCES')))
    UNION ALL
    SELECT format('%I may not refer to %I.%I.', me.rolname, n.nspname, c.relname),
        format('GRANT USAGE ON SCHEMA %I TO %I; GRANT REFERENCES ON %I.%I TO %I;',
            n.nspname, me.rolname, n.nspname, c.relname, me.rolname)
    FROM me CROSS JOIN (
        VALUES ('auth', 'users', 'workflow_definitions', 'created_by'),
            ('public', 'workflow_triggers', 'workflow_execution_logs', 'trigger_id')
    ) AS key (schema_name, table_name, source, column_name)
    JOIN pg_namespace AS n ON n.nspname = key.schema_name
    JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = key.table_name
    WHERE NOT (has_schema_privilege(n.oid, 'USAGE')
            AND (c.relkind NOT IN ('r', 'p') OR has_table_privilege(c.oid, 'REFERENCES')))
        AND NOT EXISTS (
            SELECT FROM pg_constraint JOIN found ON found.oid = conrelid
            JOIN pg_attribute AS a ON a.attrelid = found.oid AND a.attname = key.column_name AND conkey = ARRAY[a.attnum]
            WHERE found.relname = key.source AND contype = 'f')
    UNION ALL
    SELECT format('%I may not read profiles, which tell who a user is.', me.rolname),
        format('GRANT SELECT ON public.profiles TO %I;', me.rolname)
    FROM me CROSS JOIN found
    WHERE found.relname = 'profiles' AND NOT has_table_privilege(found.oid, 'SELECT')
    UNION ALL
    SELECT format('profiles belongs to %s and has row security, so that functions of %I would not see its rows.',
            found.relowner::regrole, me.rolname),
        format('ALTER ROLE %I BYPASSRLS;', me.rolname)
    FROM me CROSS JOIN found
    WHERE found.relname = 'profiles' AND found.relrowsecurity AND NOT (me.rolsuper OR me.rolbypassrls)
        AND NOT (pg_has_role(found.relowner, 'USAGE') AND NOT found.relforcerowsecurity)
    UNION ALL
    SELECT format('%I may not call %s in a trigger.', me.rolname, p.oid::regprocedure),
        format('GRANT EXECUTE ON FUNCTION public.update_updated_at_column() TO %I;', me.rolname)
    FROM me CROSS JOIN pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = 'public' AND p.proname = 'update_updated_at_column' AND p.pronargs = 0
        AND NOT has_function_privilege(p.oid, 'EXECUTE')
    """,
)


def _refused_null(table: str, column: str, mend: str) -> tuple[str, str]:
    """Rows without a value, in a column that has lost its NOT NULL."""
    return (
        f"""
        SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'public'
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = '{column}'
        LEFT JOIN pg_constraint AS held ON held.conrelid = c.oid AND held.contype = 'n' AND held.conkey = ARRAY[a.attnum]
        WHERE c.relname = '{table}' AND c.relkind = 'r' AND NOT (a.attnotnull AND coalesce(held.convalidated, true))
            AND NOT row_security_active(c.oid)
        """,
        f"""
        SELECT format('%s rows of {table} have no {column}.', count(*)), '{mend} WHERE {column} IS NULL;'
        FROM ONLY public.{table} WHERE {column} IS NULL HAVING count(*) > 0
        """,
    )


def _is_key(table: str, column: str) -> str:
    """Whether a foreign key can refer to a column, by the OID of its table and its number."""
    return f"""EXISTS (
            SELECT FROM pg_index AS i
            WHERE i.indrelid = {table} AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL
                AND i.indnkeyatts = 1 AND i.indkey[0] = {column})"""


def _refused_orphans(
    table: str, column: str, schema: str, referent: str, mend: str, *, any_key: bool = False
) -> tuple[str, str]:
    """Rows that refer to nothing, where no foreign key has kept them from it.

    Nothing is to be deleted because the rows that they refer to are somewhere else. No foreign key is added where
    the referent has no key; with `any_key` nor where the column has a foreign key to another table.
    """
    elsewhere = "OR key.confrelid <> r.oid" if any_key else ""
    key = f"""
        FROM pg_constraint AS key JOIN pg_attribute AS a ON a.attrelid = key.conrelid AND a.attname = '{column}'
        WHERE key.conrelid = 'public.{table}'::regclass AND key.contype = 'f' AND key.conkey = ARRAY[a.attnum]
    """
    orphans = f"{column} IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.{referent} AS r WHERE r.id = {table}.{column})"
    return (
        f"""
        SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'public'
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = '{column}' AND a.atttypid = 'uuid'::regtype
        JOIN pg_namespace AS rn ON rn.nspname = '{schema}' AND has_schema_privilege(rn.oid, 'USAGE')
        JOIN pg_class AS r ON r.relnamespace = rn.oid AND r.relname = '{referent}' AND r.relkind IN ('r', 'p')
        JOIN pg_attribute AS id ON id.attrelid = r.oid AND id.attname = 'id' AND id.atttypid = 'uuid'::regtype
        WHERE c.relname = '{table}' AND c.relkind = 'r'
            AND has_column_privilege(r.oid, id.attnum, 'SELECT')
            AND {_is_key("r.oid", "id.attnum")}
            AND NOT row_security_active(r.oid) AND NOT row_security_active(c.oid)
            AND NOT EXISTS (
                SELECT FROM pg_constraint AS key
                WHERE key.conrelid = c.oid AND key.contype = 'f' AND key.conkey = ARRAY[a.attnum]
                    AND (key.confrelid = r.oid AND key.convalidated {elsewhere}))
        """,
        f"""
        SELECT format('%s rows of {table} refer with {column} to no row of {schema}.{referent}.', count(*)),
            coalesce(
                (SELECT format('let {schema}.{referent} be the table that they refer to, in place of %s,',
                    max(key.confrelid::regclass::text)) {key} AND key.confrelid <> '{schema}.{referent}'::regclass
                    HAVING count(*) > 0),
                (SELECT 'fill {schema}.{referent}, which is empty,' WHERE NOT EXISTS (SELECT FROM {schema}.{referent})),
                '{mend} WHERE {orphans};')
        FROM ONLY public.{table} WHERE {orphans} HAVING count(*) > 0
        """,
    )


_NO_ORGANIZATIONS = """
    NOT EXISTS (
        SELECT FROM pg_class AS o JOIN pg_namespace AS n ON n.oid = o.relnamespace
        WHERE n.nspname = 'public' AND o.relname = 'organizations')
"""
upgrade_refusals = (
    # What is there under our names, or that we refer to, and is something else.
    f"""
    WITH declared (table_name, column_name, type, needed) AS (
        VALUES ('organizations', 'id', 'uuid', true),
            ('profiles', 'id', 'uuid', true),
            ('profiles', 'organization_id', 'uuid', true),
            ('workflow_definitions', 'id', 'uuid', true),
            ('workflow_definitions', 'organization_id', 'uuid', false),
            ('workflow_definitions', 'name', 'text', true),
            ('workflow_definitions', 'description', 'text', false),
            ('workflow_definitions', 'natural_language_prompt', 'text', true),
            ('workflow_definitions', 'workflow_json', 'jsonb', true),
            ('workflow_definitions', 'is_active', 'boolean', false),
            ('workflow_definitions', 'trigger_type', 'text', true),
            ('workflow_definitions', 'trigger_config', 'jsonb', false),
            ('workflow_definitions', 'created_by', 'uuid', false),
            ('workflow_definitions', 'created_at', 'timestamp with time zone', false),
            ('workflow_definitions', 'updated_at', 'timestamp with time zone', false),
            ('workflow_definitions', 'last_executed_at', 'timestamp with time zone', false),
            ('workflow_execution_logs', 'id', 'bigint', true),
            ('workflow_execution_logs', 'workflow_id', 'uuid', true),
            ('workflow_execution_logs', 'execution_start', 'timestamp with time zone', false),
            ('workflow_execution_logs', 'execution_end', 'timestamp with time zone', false),
            ('workflow_execution_logs', 'status', 'text', true),
            ('workflow_execution_logs', 'trigger_data', 'jsonb', false),
            ('workflow_execution_logs', 'execution_result', 'jsonb', false),
            ('workflow_execution_logs', 'error_details', 'text', false),
            ('workflow_execution_logs', 'created_at', 'timestamp with time zone', false)
    ), found AS (
        SELECT c.oid, c.relname, c.relkind
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = 'public' AND c.relname IN (SELECT table_name FROM declared)
    )
    SELECT format('PostgreSQL is %s; 15 is the oldest that is supported.', current_setting('server_version')),
        'upgrade the server,'
    WHERE current_setting('server_version_num')::integer < 150000
    UNION ALL
    SELECT format('public.%I is not an ordinary table.', relname),
        CASE relname
            WHEN 'organizations' THEN 'let public.organizations be the table itself, to which keys can refer,'
            ELSE format('ALTER TABLE public.%I SET SCHEMA another; -- or rename it; its rows stay in it', relname) END
    FROM found
    WHERE relkind <> 'r' AND relname <> 'profiles'
    UNION ALL
    SELECT format('public.%I has no primary or unique key on id, to which others could refer.', found.relname),
        format('ALTER TABLE public.%I ADD PRIMARY KEY (id);', found.relname)
    FROM found JOIN pg_attribute AS a ON a.attrelid = found.oid AND a.attname = 'id' AND NOT a.attisdropped
    WHERE found.relname <> 'profiles' AND found.relkind = 'r'
        AND NOT {_is_key("found.oid", "a.attnum")}
    UNION ALL
    SELECT 'public.workflow_execution_logs.id is an identity column, not a bigserial.',
        -- At once, since the application goes on inserting.
        format(
            'BEGIN; LOCK TABLE public.workflow_execution_logs; CREATE SEQUENCE public.workflow_execution_logs_ids; '
            'SELECT setval(''public.workflow_execution_logs_ids'', last_value, is_called) FROM %s; '
            'ALTER TABLE public.workflow_execution_logs ALTER COLUMN id DROP IDENTITY, '
            'ALTER COLUMN id SET DEFAULT nextval(''public.workflow_execution_logs_ids''); '
            'ALTER SEQUENCE public.workflow_execution_logs_ids OWNED BY public.workflow_execution_logs.id; COMMIT;',
            pg_get_serial_sequence('public.workflow_execution_logs', 'id'))
    FROM found JOIN pg_attribute AS a ON a.attrelid = found.oid AND a.attname = 'id' AND a.attidentity <> ''
    WHERE found.relname = 'workflow_execution_logs'
    UNION ALL
    SELECT format('%s has other parameters or another result, and is not ours.', p.oid::regprocedure),
        format('DROP ROUTINE %s;', p.oid::regprocedure)
    FROM (
        VALUES ('identity', 'text[]'), ('seal', 'text'), ('sealed_identity', 'text'), ('matches', 'boolean'),
            ('administered_organization', 'uuid'), ('worker_organization', 'uuid'),
            ('worker_organization_exists', 'boolean'), ('fill_organization', 'trigger'), ('carry_organization', 'trigger')
    ) AS ours (name, result)
    JOIN pg_proc AS p ON p.proname = ours.name
    JOIN pg_namespace AS n ON n.oid = p.pronamespace AND n.nspname = 'workflow_private'
    WHERE pg_get_function_result(p.oid) IS DISTINCT FROM ours.result
        OR (p.oid = to_regprocedure('workflow_private.matches(uuid, text[])')
            AND p.proargnames IS DISTINCT FROM '{{organization_id,caller}}')
    UNION ALL
    SELECT format('public.%I has no column %I of type %s.', found.relname, declared.column_name, declared.type),
        CASE WHEN found.relkind = 'r' THEN
            format('ALTER TABLE public.%I ADD COLUMN %I %s; -- and fill it; or rename the table, if it is another',
                found.relname, declared.column_name, declared.type)
            ELSE format('let the view public.%I give %I as %s,', found.relname, declared.column_name, declared.type) END
    FROM found JOIN declared ON declared.table_name = found.relname
    LEFT JOIN pg_attribute AS a
        ON a.attrelid = found.oid AND a.attname = declared.column_name AND NOT a.attisdropped
    WHERE (found.relkind = 'r' OR found.relname = 'profiles') AND declared.needed AND a.attname IS NULL
    UNION ALL
    SELECT format('column public.%I.%I is generated.', found.relname, a.attname),
        CASE a.attgenerated WHEN 's' THEN
            format('ALTER TABLE public.%I ALTER COLUMN %I DROP EXPRESSION; -- whoever writes fills it from then on',
                found.relname, a.attname)
            ELSE format('ALTER TABLE public.%1$s ADD COLUMN %2$s_ %3$s; UPDATE public.%1$s SET %2$s_ = %2$s; '
                'ALTER TABLE public.%1$s DROP COLUMN %2$s; ALTER TABLE public.%1$s RENAME COLUMN %2$s_ TO %2$s; '
                '-- whoever writes fills it from then on', found.relname, a.attname, declared.type) END
    FROM found JOIN declared ON declared.table_name = found.relname
    JOIN pg_attribute AS a
        ON a.attrelid = found.oid AND a.attname = declared.column_name AND a.attgenerated <> ''
    WHERE found.relkind = 'r' AND found.relname LIKE 'workflow%'
    UNION ALL
    SELECT format('column public.%I.%I has type %s, not %s.',
            found.relname, a.attname, format_type(a.atttypid, a.atttypmod), declared.type),
        CASE WHEN found.relkind = 'r' THEN
            format('ALTER TABLE public.%I %sALTER COLUMN %I TYPE %s USING %I%s;%s -- %sor rename the table, if it is another',
                found.relname,
                CASE WHEN a.atthasdef AND (t.typtype = 'e' OR declared.type IN ('boolean', 'jsonb')) THEN format('ALTER COLUMN %I DROP DEFAULT, ', a.attname) END,
                a.attname, declared.type, a.attname,
                CASE a.atttypid WHEN 'timestamp'::regtype
                    THEN ' AT TIME ZONE ''UTC''' ELSE '::' || declared.type END,
                CASE WHEN declared.type = 'bigint' THEN
                    ' ALTER SEQUENCE ' || pg_get_serial_sequence(format('public.%I', found.relname), a.attname)
                    || ' AS bigint;' END,
                concat(
                    CASE a.atttypid WHEN 'timestamp'::regtype THEN 'or in whatever zone it was written; ' END,
                    (SELECT format('without these views, which use it: %s; ', string_agg(DISTINCT v.oid::regclass::text, ', '))
                    FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid JOIN pg_class AS v ON v.oid = r.ev_class
                    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
                        AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
                    HAVING count(*) > 0)))
            ELSE format('let the view public.%I give %I as %s,', found.relname, a.attname, declared.type) END
    FROM found JOIN declared ON declared.table_name = found.relname
    JOIN pg_attribute AS a
        ON a.attrelid = found.oid AND a.attname = declared.column_name AND NOT a.attisdropped
    JOIN pg_type AS t ON t.oid = a.atttypid
    WHERE format_type(a.atttypid, a.atttypmod) <> declared.type
        AND (found.relkind = 'r' OR found.relname = 'profiles')
    """,
    # A live application whose organizations are elsewhere: a stand-in would take their place.
    f"""
    SELECT format('%s.organization_id refers to %s, and there is no public.organizations.',
            c.relname, other.oid::regclass),
        concat_ws(' ',
            CASE WHEN other.relname <> 'organizations'
                THEN format('ALTER TABLE %s RENAME TO organizations;', other.oid::regclass) END,
            CASE WHEN n.nspname <> 'public'
                THEN format('ALTER TABLE %I.organizations SET SCHEMA public;', n.nspname) END)
    FROM pg_constraint AS key
    JOIN pg_class AS c ON c.oid = key.conrelid AND c.relname IN ('workflow_definitions', 'workflow_execution_logs')
        AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'public')
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'organization_id' AND key.conkey = ARRAY[a.attnum]
    JOIN pg_class AS other ON other.oid = key.confrelid
    JOIN pg_namespace AS n ON n.oid = other.relnamespace
    WHERE key.contype = 'f' AND {_NO_ORGANIZATIONS}
    """,
    (
        f"""
        SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'public'
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'organization_id'
        WHERE c.relname = 'workflow_definitions' AND c.relkind = 'r' AND NOT row_security_active(c.oid)
            AND {_NO_ORGANIZATIONS}
            AND NOT EXISTS (
                SELECT FROM pg_constraint AS key
                WHERE key.conrelid = c.oid AND key.contype = 'f' AND key.conkey = ARRAY[a.attnum])
        """,
        """
        SELECT format('%s rows of workflow_definitions have an organization_id, and there is no public.organizations.',
                count(*)),
            'let public.organizations be the table of the organizations,'
        FROM public.workflow_definitions WHERE organization_id IS NOT NULL HAVING count(*) > 0
        """,
    ),
    # The check of a key reads what it refers to as the owner, on whom that was forced.
    """
    SELECT format('row security is forced on the owner of %s, so that the key of %s to it cannot be validated.',
            r.oid::regclass, wanted.source),
        format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY; -- and FORCE again after the upgrade', r.oid::regclass)
    FROM (
        VALUES ('organizations', 'public', 'workflow_definitions', 'organization_id'),
            ('users', 'auth', 'workflow_definitions', 'created_by'),
            ('workflow_triggers', 'public', 'workflow_execution_logs', 'trigger_id')
    ) AS wanted (referent, schema, source, column_name)
    JOIN pg_namespace AS n ON n.nspname = wanted.schema
    JOIN pg_class AS r ON r.relnamespace = n.oid AND r.relname = wanted.referent
    WHERE r.relforcerowsecurity AND row_security_active(r.oid) AND pg_has_role(r.relowner, 'USAGE') AND NOT EXISTS (
        SELECT FROM pg_constraint AS key JOIN pg_class AS c ON c.oid = key.conrelid AND c.relname = wanted.source
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = wanted.column_name
        WHERE key.contype = 'f' AND key.conkey = ARRAY[a.attnum] AND (
            key.confrelid = r.oid AND key.convalidated
                AND (r.relname <> 'organizations' OR key.confdeltype = 'c' AND NOT key.condeferrable)
            OR key.confrelid <> r.oid AND r.relname <> 'organizations'))
    """,
    *(
        _refused_null(table, column, f"UPDATE public.{table} SET {column} = {value}")
        for table, values in (
            (
                "workflow_definitions",
                {
                    "name": "''unnamed''",
                    "natural_language_prompt": "''''",
                    "workflow_json": "''{}''",
                    "is_active": "false",
                    "trigger_type": "''manual''",
                    "created_at": "now()",
                    "updated_at": "now()",
                },
            ),
            (
                "workflow_execution_logs",
                {"execution_start": "now()", "status": "''error''", "created_at": "now()"},
            ),
        )
        for column, value in values.items()
    ),
    _refused_null(
        "workflow_execution_logs", "workflow_id", "DELETE FROM ONLY public.workflow_execution_logs"
    ),
    _refused_orphans(
        "workflow_definitions",
        "organization_id",
        "public",
        "organizations",
        "DELETE FROM ONLY public.workflow_definitions",
    ),
    _refused_orphans(
        "workflow_definitions",
        "created_by",
        "auth",
        "users",
        "UPDATE public.workflow_definitions SET created_by = NULL",
        any_key=True,
    ),
    # After the definitions, with which logs may go.
    _refused_orphans(
        "workflow_execution_logs",
        "workflow_id",
        "public",
        "workflow_definitions",
        "DELETE FROM ONLY public.workflow_execution_logs",
    ),
    _refused_orphans(
        "workflow_execution_logs",
        "trigger_id",
        "public",
        "workflow_triggers",
        "UPDATE public.workflow_execution_logs SET trigger_id = NULL",
        any_key=True,
    ),
    """
    SELECT format('the name %I is taken: %s.', c.relname,
            coalesce('an index of ' || t.oid::regclass, 'a relation that is no index')),
        format('ALTER TABLE public.%I RENAME TO %I;', c.relname, left(c.relname, 56) || '_others')
    FROM (
        VALUES ('workflow_definitions', 'idx_%s_organization_id'), ('workflow_definitions', 'idx_%s_is_active'),
            ('workflow_definitions', 'idx_%s_trigger_type'), ('workflow_definitions', '%s_pkey'),
            ('workflow_execution_logs', 'idx_%s_workflow_id'), ('workflow_execution_logs', 'idx_%s_status'),
            ('workflow_execution_logs', 'idx_%s_created_at'), ('workflow_execution_logs', '%s_pkey')
    ) AS index (table_name, name)
    JOIN pg_class AS c ON c.relname = format(index.name, index.table_name)
        AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'public')
    LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
    LEFT JOIN pg_class AS t ON t.oid = i.indrelid
    WHERE t.relname IS DISTINCT FROM index.table_name
    """,
)

creates = {
    "workflow_definitions": (
        "workflow_definitions_organization_id_fkey",
        "workflow_definitions_created_by_fkey",
        "workflow_definitions_trigger_type_check",
        "workflow_definitions_pkey",
        "idx_workflow_definitions_organization_id",
        "idx_workflow_definitions_is_active",
        "idx_workflow_definitions_trigger_type",
        "update_workflow_definitions_updated_at",
        "Users can view organization workflows",
        "Admins can insert workflows",
        "Admins can update workflows",
        "Admins can delete workflows",
        "Workers can view workflows",
        "Workers can update workflows",
    ),
    "workflow_execution_logs": (
        "workflow_execution_logs_workflow_id_fkey",
        "workflow_execution_logs_status_check",
        "workflow_execution_logs_pkey",
        "idx_workflow_execution_logs_workflow_id",
        "idx_workflow_execution_logs_status",
        "idx_workflow_execution_logs_created_at",
        "Users can view workflow logs",
        "System can insert workflow logs",
        "Workers can view workflow logs",
        "Workers can insert workflow logs",
        "Workers can update workflow logs",
    ),
    # Of the stand-ins.
    "organizations": ("organizations_pkey",),
    "profiles": ("profiles_pkey", "profiles_organization_id_fkey"),
}

STAND_IN = "Stand-in of workflow-models for a table or function of the application"
_STAND_IN_TABLE = "obj_description(to_regclass('public.{0}'), 'pg_class') = '" + STAND_IN + "'"

downgrade_drops = (
    "workflow_execution_logs",
    "workflow_definitions",
    "workflow_private.sealed_identity()",
    "workflow_private.identity()",
    "workflow_private.seal(text)",
    "workflow_private.session_secret",
    "workflow_private.matches(uuid, text[])",
    "workflow_private.administered_organization()",
    "workflow_private.worker_organization()",
    "workflow_private.worker_organization_exists()",
    "SELECT 'organizations' WHERE " + _STAND_IN_TABLE.format("organizations"),
    "SELECT 'profiles' WHERE " + _STAND_IN_TABLE.format("profiles"),
    f"""SELECT 'public.update_updated_at_column()'
    WHERE obj_description(to_regprocedure('public.update_updated_at_column()'), 'pg_proc') = '{STAND_IN}'""",
)
downgrade_losses = {
    "rows of workflow_definitions": "SELECT count(*) FROM workflow_definitions",
    "rows of workflow_execution_logs": "SELECT count(*) FROM workflow_execution_logs",
    **{
        # An application's own table is not counted: that could be refused.
        f"rows of the stand-in {table}": (
            f"SELECT 1 WHERE {_STAND_IN_TABLE.format(table)}",
            f"SELECT count(*) FROM public.{table}",
        )
        for table in ("organizations", "profiles")
    },
}


def upgrade() -> None:
    create_roles_and_schema()
    create_stand_ins()
    create_functions()
    for table in ("workflow_definitions", "workflow_execution_logs"):
        lift_force(table)
    create_definitions()
    create_logs()
    grant()


def create_roles_and_schema() -> None:
    for role in ("authenticated", "workflow_worker"):
        op.execute_unless(f"SELECT FROM pg_roles WHERE rolname = '{role}'", f"CREATE ROLE {role} NOLOGIN")
    op.execute_unless(
        "SELECT FROM pg_namespace WHERE nspname = 'workflow_private'", "CREATE SCHEMA workflow_private"
    )
    readers = ("authenticated", "workflow_worker", "service_role")
    op.set_privileges("SCHEMA", "workflow_private", dict.fromkeys(readers, ("USAGE",)), to_nobody_else=True)
    op.set_privileges(
        "TABLE", "workflow_private.alembic_version", dict.fromkeys(readers, ("SELECT",)), to_nobody_else=True
    )
    # An event trigger may have enabled it, as on each new table.
    op.execute_unless(
        "SELECT FROM pg_class WHERE oid = 'workflow_private.alembic_version'::regclass AND NOT relrowsecurity",
        "ALTER TABLE workflow_private.alembic_version DISABLE ROW LEVEL SECURITY",
    )


def create_stand_ins() -> None:
    """Create what the application owns, where there is no application."""
    for table, columns in (
        ("organizations", "id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL"),
        (
            "profiles",
            """id uuid PRIMARY KEY, organization_id uuid REFERENCES public.organizations (id),
            role text DEFAULT 'user'""",
        ),
    ):
        op.execute(f"""
            DO $stand_in$
            DECLARE
                other name;
            BEGIN
                IF to_regclass('public.{table}') IS NULL THEN
                    CREATE TABLE public.{table} ({columns});
                    COMMENT ON TABLE public.{table} IS '{STAND_IN}';
                    ALTER TABLE public.{table} ENABLE ROW LEVEL SECURITY;
                    REVOKE ALL ON public.{table} FROM PUBLIC;
                    FOR other IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
                        EXECUTE format('REVOKE ALL ON public.{table} FROM %I', other);
                    END LOOP;
                    IF to_regclass('public.workflow_definitions') IS NOT NULL THEN
                        RAISE NOTICE USING ERRCODE = '0NOTE', MESSAGE =
                            'public.{table} was missing, and is made as a stand-in: as long as it is empty, no user sees a workflow';
                    END IF;
                END IF;
            END
            $stand_in$
        """)
    op.execute(f"""
        DO $stand_in$
        BEGIN
            IF to_regprocedure('public.update_updated_at_column()') IS NULL THEN
                CREATE FUNCTION public.update_updated_at_column() RETURNS trigger LANGUAGE plpgsql
                SET search_path = pg_catalog, pg_temp
                AS $body$ BEGIN NEW.updated_at := now(); RETURN NEW; END $body$;
                COMMENT ON FUNCTION public.update_updated_at_column() IS '{STAND_IN}';
                REVOKE ALL ON FUNCTION public.update_updated_at_column() FROM PUBLIC;
            END IF;
        END
        $stand_in$
    """)


def create_functions() -> None:
    # Its currval() is a secret, another one on each connection.
    op.execute_unless(
        "SELECT WHERE to_regclass('workflow_private.session_secret') IS NOT NULL",
        "CREATE SEQUENCE workflow_private.session_secret",
    )
    op.set_privileges("SEQUENCE", "workflow_private.session_secret", {}, to_nobody_else=True)
    # Who a user is: {organization, role}; NULL is nobody. The profile's column is role or user_role.
    # A JSON text cannot be tried in PostgreSQL 15 without an exception, hence not parallel safe. What has been
    # sealed when this transaction began is not looked up again.
    op.execute("""
CREATE OR REPLACE FUNCTION workflow_private.identity() RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $body$
DECLARE
    subject text := nullif(current_setting('request.jwt.claim.sub', true), '');
    sealed text := current_setting('workflow.caller', true);
    caller text[];
BEGIN
    IF sealed <> '' THEN
        BEGIN
            IF left(sealed, 64) = workflow_private.seal(substr(sealed, 65)) THEN
                RETURN substr(sealed, 65)::text[];
            END IF;
        EXCEPTION WHEN object_not_in_prerequisite_state OR data_exception THEN
            NULL; -- it is forged: nothing has been sealed on this connection
        END;
    END IF;
    IF subject IS NULL THEN
        BEGIN
            subject := nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub';
        EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
            RETURN NULL;
        END;
    END IF;
    IF subject ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN
        SELECT ARRAY[
            profile.organization_id::text,
            coalesce(to_jsonb(profile) ->> 'user_role', to_jsonb(profile) ->> 'role')
        ]
        INTO caller FROM public.profiles AS profile WHERE profile.id = subject::uuid;
    END IF;
    RETURN caller;
END
$body$
""")
    op.execute("""
CREATE OR REPLACE FUNCTION workflow_private.seal(caller text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    RETURN encode(sha256(convert_to(ARRAY[
        currval('workflow_private.session_secret')::text,
        current_setting('request.jwt.claim.sub', true),
        current_setting('request.jwt.claims', true),
        extract(epoch FROM now())::text,
        caller
    ]::text, 'UTF8')), 'hex');
END
$body$
""")
    op.execute("""
CREATE OR REPLACE FUNCTION workflow_private.sealed_identity() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    caller text := workflow_private.identity()::text;
BEGIN
    IF caller IS NULL THEN
        RETURN NULL;
    END IF;
    BEGIN
        PERFORM currval('workflow_private.session_secret');
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
        IF current_setting('transaction_read_only')::boolean THEN
            RETURN NULL;
        END IF;
        PERFORM setval('workflow_private.session_secret',
            ('x' || left(encode(sha256(uuid_send(gen_random_uuid())), 'hex'), 16))::bit(64)::bigint
                & 9223372036854775807 | 1);
    END;
    RETURN workflow_private.seal(caller) || caller;
END
$body$
""")
    # Whether a row is for this caller: of the own organization, or any row for a super admin. Not SQL,
    # since PostgreSQL would inline it and, expecting few rows, leave the index. Asked once a row, so
    # without SET; every operator and type is qualified instead, for callers with a search_path of their own.
    op.execute("""
CREATE OR REPLACE FUNCTION workflow_private.matches(organization_id uuid, caller text[]) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $body$
BEGIN
    RETURN coalesce(organization_id OPERATOR(pg_catalog.=) caller[1]::pg_catalog.uuid, false)
        OR coalesce(caller[2] OPERATOR(pg_catalog.=) 'super_admin', false);
END
$body$
""")
    op.execute("""
CREATE OR REPLACE FUNCTION workflow_private.administered_organization() RETURNS uuid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT caller[1]::uuid FROM workflow_private.identity() AS caller
    WHERE caller[2] IN ('admin', 'super_admin')
$body$
""")
    op.execute("""
CREATE OR REPLACE FUNCTION workflow_private.worker_organization() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
AS $body$
    SELECT CASE
        WHEN pg_catalog.current_setting('workflow.organization_id', true)
            OPERATOR(pg_catalog.~) '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'
        THEN pg_catalog.current_setting('workflow.organization_id', true)::pg_catalog.uuid
    END
$body$
""")
    # For sessions, since a worker may not read organizations. Where our owner may not either, every one is
    # taken to exist: of one that does not there are no rows.
    op.execute("""
CREATE OR REPLACE FUNCTION workflow_private.worker_organization_exists() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $body$
BEGIN
    IF has_column_privilege('public.organizations', 'id', 'SELECT')
        AND NOT row_security_active('public.organizations')
    THEN
        RETURN EXISTS (
            SELECT FROM public.organizations AS organization
            WHERE organization.id = workflow_private.worker_organization()
        );
    END IF;
    RETURN true;
END
$body$
""")
    for functions, granted in (
        (
            ("identity()", "sealed_identity()", "matches(uuid, text[])", "administered_organization()"),
            {"authenticated": ("EXECUTE",)},
        ),
        (("worker_organization()", "worker_organization_exists()"), {"workflow_worker": ("EXECUTE",)}),
        (("seal(text)",), {}),
    ):
        names = [f"workflow_private.{function}" for function in functions]
        op.set_privileges("FUNCTION", names, granted, to_nobody_else=True)


def lift_force(table: str) -> None:
    """FORCE ROW LEVEL SECURITY would hide rows from the owner's own backfill and triggers."""
    op.execute_step(f"""
        DO $force$
        BEGIN
            IF EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('public.{table}') AND relforcerowsecurity) THEN
                ALTER TABLE public.{table} NO FORCE ROW LEVEL SECURITY;
                RAISE NOTICE USING ERRCODE = '0NOTE',
                    MESSAGE = 'FORCE ROW LEVEL SECURITY was lifted from {table}: it hides rows from its owner';
            END IF;
        END
        $force$
    """)


def name_primary_key(table: str) -> None:
    """A table that was renamed has kept the name of its key."""
    op.execute_step(f"""
        DO $name$
        DECLARE
            other name := (
                SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'p' AND conkey = ARRAY[(
                    SELECT attnum FROM pg_attribute WHERE attrelid = conrelid AND attname = 'id')]);
        BEGIN
            IF other <> '{table}_pkey' AND to_regclass('public.{table}_pkey') IS NULL THEN
                EXECUTE format('ALTER TABLE {table} RENAME CONSTRAINT %I TO {table}_pkey', other);
            END IF;
        END
        $name$
    """)


def create_definitions() -> None:
    op.ensure_table(
        "workflow_definitions",
        """
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        organization_id uuid,
        name text NOT NULL,
        description text,
        natural_language_prompt text NOT NULL,
        workflow_json jsonb NOT NULL,
        is_active boolean NOT NULL DEFAULT false,
        trigger_type text NOT NULL,
        trigger_config jsonb DEFAULT '{}'::jsonb,
        created_by uuid,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        last_executed_at timestamptz
        """,
        comment="Workflows: what starts them and which steps they run",
        comments={
            "organization_id": "Owner; NULL is a global workflow, which only super admins see",
            "natural_language_prompt": "The request in the words of its author, from which workflow_json was made",
            "workflow_json": "The steps that a run executes",
            "is_active": "Whether its trigger starts it",
            "trigger_type": "What starts it: manual, schedule, event or condition",
            "trigger_config": "Settings of the trigger; their shape follows trigger_type",
            "created_by": "Author, a row of auth.users",
            "updated_at": "Set by a trigger on each update",
            "last_executed_at": "When its latest run was recorded; NULL before the first",
        },
    )
    name_primary_key("workflow_definitions")
    op.create_foreign_key_not_valid(
        "workflow_definitions_organization_id_fkey",
        "workflow_definitions",
        "organizations",
        ["organization_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.validate_constraint("workflow_definitions_organization_id_fkey", "workflow_definitions")
    op.create_foreign_key_not_valid(
        "workflow_definitions_created_by_fkey",
        "workflow_definitions",
        "auth.users",
        ["created_by"],
        ["id"],
        if_referent_exists=True,
    )
    op.validate_constraint("workflow_definitions_created_by_fkey", "workflow_definitions")
    op.create_check_where_rows_allow(
        "workflow_definitions_trigger_type_check",
        "workflow_definitions",
        "trigger_type",
        "trigger_type IN ('manual', 'schedule', 'event', 'condition')",
    )
    for column in ("organization_id", "is_active", "trigger_type"):
        op.create_index_concurrently(f"idx_workflow_definitions_{column}", "workflow_definitions", [column])
    op.ensure_trigger(
        "update_workflow_definitions_updated_at",
        "workflow_definitions",
        "BEFORE UPDATE",
        "FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column()",
    )
    op.ensure_policy(
        "Users can view organization workflows",
        "workflow_definitions",
        "SELECT",
        to="authenticated",
        using="nullif(workflow_private.matches(organization_id, (SELECT workflow_private.identity())), false) IS NOT NULL",
    )
    administered = "organization_id = (SELECT workflow_private.administered_organization())"
    op.ensure_policy(
        "Admins can insert workflows",
        "workflow_definitions",
        "INSERT",
        to="authenticated",
        check=administered,
    )
    op.ensure_policy(
        "Admins can update workflows",
        "workflow_definitions",
        "UPDATE",
        to="authenticated",
        using=administered,
        check=administered,
    )
    op.ensure_policy(
        "Admins can delete workflows",
        "workflow_definitions",
        "DELETE",
        to="authenticated",
        using=administered,
    )
    own = "organization_id = (SELECT workflow_private.worker_organization())"
    op.ensure_policy(
        "Workers can view workflows", "workflow_definitions", "SELECT", to="workflow_worker", using=own
    )
    op.ensure_policy(
        "Workers can update workflows",
        "workflow_definitions",
        "UPDATE",
        to="workflow_worker",
        using=own,
        check=own,
    )
    enable_row_security("workflow_definitions")


def create_logs() -> None:
    op.ensure_table(
        "workflow_execution_logs",
        """
        id bigserial PRIMARY KEY,
        workflow_id uuid NOT NULL,
        execution_start timestamptz NOT NULL DEFAULT now(),
        execution_end timestamptz,
        status text NOT NULL,
        trigger_data jsonb,
        execution_result jsonb,
        error_details text,
        created_at timestamptz NOT NULL DEFAULT now()
        """,
        comment="Runs of workflows: a row is inserted when one starts, updated when it ends",
        comments={
            "workflow_id": "The workflow that ran; deleting it deletes its logs",
            "execution_end": "NULL while it runs",
            "status": "running, then success, error, or partial when only some steps succeeded",
            "trigger_data": "What its trigger handed over",
            "execution_result": "What it returned",
            "error_details": "Why it failed",
        },
    )
    name_primary_key("workflow_execution_logs")
    set_storage_parameters()
    op.create_foreign_key_not_valid(
        "workflow_execution_logs_workflow_id_fkey",
        "workflow_execution_logs",
        "workflow_definitions",
        ["workflow_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.validate_constraint("workflow_execution_logs_workflow_id_fkey", "workflow_execution_logs")
    op.create_check_where_rows_allow(
        "workflow_execution_logs_status_check",
        "workflow_execution_logs",
        "status",
        "status IN ('running', 'success', 'error', 'partial')",
    )
    for index, columns, include in (
        # An application's own one has the first column only.
        ("workflow_id", ["workflow_id", "created_at"], ()),
        ("status", ["status"], ()),
        # An application's own one is descending, which leaves its pages half empty, and carries nothing.
        ("created_at", ["created_at"], ("status",)),
    ):
        op.create_index_concurrently(
            f"idx_workflow_execution_logs_{index}", "workflow_execution_logs", columns, include=include
        )
    mine = """EXISTS (
        SELECT FROM public.workflow_definitions AS definition
        WHERE definition.id = workflow_id
            AND workflow_private.matches(definition.organization_id, (SELECT workflow_private.identity())))"""
    op.ensure_policy(
        "Users can view workflow logs", "workflow_execution_logs", "SELECT", to="authenticated", using=mine
    )
    op.ensure_policy(
        "System can insert workflow logs", "workflow_execution_logs", "INSERT", to="authenticated", check=mine
    )
    own = """EXISTS (
        SELECT FROM public.workflow_definitions AS definition
        WHERE definition.id = workflow_id
            AND definition.organization_id = (SELECT workflow_private.worker_organization()))"""
    op.ensure_policy(
        "Workers can view workflow logs", "workflow_execution_logs", "SELECT", to="workflow_worker", using=own
    )
    op.ensure_policy(
        "Workers can insert workflow logs",
        "workflow_execution_logs",
        "INSERT",
        to="workflow_worker",
        check=own,
    )
    op.ensure_policy(
        "Workers can update workflow logs",
        "workflow_execution_logs",
        "UPDATE",
        to="workflow_worker",
        using=own,
        check=own,
    )
    enable_row_security("workflow_execution_logs")


def set_storage_parameters() -> None:
    """Let autovacuum keep up with rows that are added for ever."""
    parameters = {
        "autovacuum_vacuum_scale_factor": "0.05",
        "autovacuum_vacuum_insert_scale_factor": "0.05",
        "autovacuum_analyze_scale_factor": "0.05",
    }
    wanted = [f"{name}={value}" for name, value in parameters.items()]
    op.execute_unless(
        f"SELECT FROM pg_class WHERE oid = 'workflow_execution_logs'::regclass AND reloptions @> ARRAY{wanted}",
        f"ALTER TABLE workflow_execution_logs SET ({', '.join(wanted)})",
    )


def enable_row_security(table: str) -> None:
    op.execute_unless(
        f"SELECT FROM pg_class WHERE oid = '{table}'::regclass AND relrowsecurity",
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
    )


def grant() -> None:
    every = ("SELECT", "INSERT", "UPDATE", "DELETE")
    op.set_privileges(
        "TABLE",
        "workflow_definitions",
        {
            "anon": (),
            "authenticated": every,
            "workflow_worker": ("SELECT", ("UPDATE", ("last_executed_at",))),
            "service_role": every,
        },
    )
    op.set_privileges(
        "TABLE",
        "workflow_execution_logs",
        {
            "anon": (),
            "authenticated": ("SELECT", "INSERT"),
            "workflow_worker": (
                "SELECT",
                "INSERT",
                ("UPDATE", ("execution_end", "status", "execution_result", "error_details")),
            ),
            "service_role": every,
        },
    )
    users = ("authenticated", "workflow_worker", "service_role")
    op.set_privileges(
        "SEQUENCE", "workflow_execution_logs_id_seq", {"anon": (), **dict.fromkeys(users, ("USAGE",))}
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS workflow_execution_logs")
    op.execute("DROP TABLE IF EXISTS workflow_definitions")
    op.execute("DROP FUNCTION IF EXISTS workflow_private.administered_organization()")
    op.execute("DROP FUNCTION IF EXISTS workflow_private.worker_organization_exists()")
    op.execute("DROP FUNCTION IF EXISTS workflow_private.worker_organization()")
    op.execute("DROP FUNCTION IF EXISTS workflow_private.matches(uuid, text[])")
    op.execute("DROP FUNCTION IF EXISTS workflow_private.sealed_identity()")
    op.execute("DROP FUNCTION IF EXISTS workflow_private.identity()")
    op.execute("DROP FUNCTION IF EXISTS workflow_private.seal(text)")
    op.execute("DROP SEQUENCE IF EXISTS workflow_private.session_secret")
    for kind, name in (
        ("TABLE", "public.profiles"),
        ("TABLE", "public.organizations"),
        ("FUNCTION", "public.update_updated_at_column()"),
    ):
        oid = f"to_reg{'class' if kind == 'TABLE' else 'procedure'}('{name}')"
        catalog = f"pg_{'class' if kind == 'TABLE' else 'proc'}"
        op.execute(f"""
            DO $stand_in$
            BEGIN
                IF obj_description({oid}, '{catalog}') = '{STAND_IN}' THEN
                    DROP {kind} {name};
                END IF;
            END
            $stand_in$
        """)
