"""How the facts of a schema are read: itself, its functions, and the settings that those see.

The queries give what those of a table do.
"""

# SQL reads better in its own lines.
# ruff: noqa: E501

from sqlalchemy import text

from .relation import NONE, comment

_GRANTEES = "coalesce(quote_ident(r.rolname), 'PUBLIC')"
_KIND = "CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END"
_SIGNATURE = (
    """quote_ident(:schema) || '.' || quote_ident(p.proname) || '(' || oidvectortypes(p.proargtypes) || ')'"""
)
_READ = "p.prokind IN ('f', 'p', 'w') AND (CAST(:names AS text[]) IS NULL OR p.proname = ANY (CAST(:names AS text[])))"
_ACL = """
    SELECT acl.* FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS acl WHERE acl.grantee <> p.proowner
"""
# What ALTER DEFAULT PRIVILEGES, or PostgreSQL itself, gave to others than the owner.
_REVOKE = """
E'DO $revoke$ DECLARE other text; BEGIN\\n    FOR other IN\\n'
|| E'        SELECT DISTINCT CASE grantee WHEN 0 THEN ''PUBLIC'' ELSE grantee::regrole::text END\\n'
|| E'        FROM pg_proc CROSS JOIN aclexplode(coalesce(proacl, acldefault(''f'', proowner)))\\n        WHERE oid = '
|| quote_literal(signature) || E'::regprocedure AND grantee <> proowner\\n    LOOP\\n        EXECUTE '
|| quote_literal('REVOKE ALL ON ' || kind || ' ' || signature || ' FROM ') || E' || other;\\n    END LOOP;\\nEND $revoke$'
"""

# Functions of a schema, procedures too; declared ones are read in pg_temp, those of :names, as if they were in :schema.
_FUNCTIONS = f"""
SELECT 'function', signature, attributes,
    ARRAY[definition, {_REVOKE}] || ARRAY(
        SELECT 'GRANT EXECUTE ON ' || kind || ' ' || signature || ' TO ' || {_GRANTEES}
            || CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
        FROM aclexplode(acls) AS acl LEFT JOIN pg_roles AS r ON r.oid = acl.grantee WHERE acl.grantee <> proowner
        ORDER BY 1
    ) || {comment("kind || ' ' || signature", "oid", "pg_proc")},
    ARRAY[definition], ARRAY['DROP ' || kind || ' ' || signature], false
FROM (
    SELECT p.oid, p.proowner, {_KIND} AS kind, {_SIGNATURE} AS signature,
        coalesce(p.proacl, acldefault('f', p.proowner)) AS acls,
        rtrim(replace(pg_get_functiondef(p.oid),
            ' ' || CASE n.oid WHEN pg_my_temp_schema() THEN 'pg_temp' ELSE quote_ident(n.nspname) END || '.' || quote_ident(p.proname) || '(',
            ' ' || quote_ident(:schema) || '.' || quote_ident(p.proname) || '('), E'\n') AS definition,
        jsonb_build_object(
            'kind', CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'w' THEN 'window function' ELSE 'function' END,
            'arguments', pg_get_function_arguments(p.oid), 'returns', pg_get_function_result(p.oid),
            'language', l.lanname,
            'volatility', CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END,
            'security', CASE WHEN p.prosecdef THEN 'DEFINER' ELSE 'INVOKER' END,
            'parallel', CASE p.proparallel WHEN 's' THEN 'SAFE' WHEN 'r' THEN 'RESTRICTED' ELSE 'UNSAFE' END,
            'strict', p.proisstrict, 'leakproof', p.proleakproof, 'cost', p.procost, 'rows', p.prorows,
            'support', p.prosupport::text, 'settings', (SELECT array_agg(s ORDER BY s) FROM unnest(p.proconfig) AS s),
            'body', coalesce(pg_get_function_sqlbody(p.oid), p.prosrc), 'library', p.probin, 'transforms', p.protrftypes
        ) AS attributes
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace JOIN pg_language AS l ON l.oid = p.prolang
    WHERE n.oid = CAST(:oid AS oid) AND {_READ}
    ORDER BY p.oid
) AS own
UNION ALL
SELECT 'grant', {_GRANTEES} || ': EXECUTE on ' || signature, jsonb_build_object('grantable', bool_or(is_grantable)),
    ARRAY['GRANT EXECUTE ON ' || kind || ' ' || signature || ' TO ' || {_GRANTEES}
        || CASE WHEN bool_or(is_grantable) THEN ' WITH GRANT OPTION' ELSE '' END], {NONE},
    ARRAY['REVOKE EXECUTE ON ' || kind || ' ' || signature || ' FROM ' || {_GRANTEES}
        || CASE WHEN bool_or(is_grantable) THEN ' CASCADE' ELSE '' END], false
FROM (
    SELECT acl.grantee, acl.is_grantable, {_KIND} AS kind, {_SIGNATURE} AS signature
    FROM pg_proc AS p CROSS JOIN LATERAL ({_ACL}) AS acl
    WHERE p.pronamespace = CAST(:oid AS oid) AND {_READ}
) AS own LEFT JOIN pg_roles AS r ON r.oid = own.grantee
GROUP BY r.rolname, kind, signature
UNION ALL
SELECT 'owner', signature, jsonb_build_object('value', r.rolname),
    ARRAY['ALTER ' || kind || ' ' || signature || ' OWNER TO ' || quote_ident(r.rolname)], {NONE}, {NONE}, false
FROM (
    SELECT p.proowner, {_KIND} AS kind, {_SIGNATURE} AS signature
    FROM pg_proc AS p WHERE p.pronamespace = CAST(:oid AS oid) AND {_READ}
) AS own JOIN pg_roles AS r ON r.oid = own.proowner
"""
FUNCTIONS = text(_FUNCTIONS.replace(":schema", "CAST(:schema AS text)"))

# What is of a kind that is not modelled has no statements: it is named.
_SCHEMA = f"""
SELECT 'schema', nspname::text, '{{}}'::jsonb, ARRAY['CREATE SCHEMA ' || quote_ident(nspname)], {NONE},
    ARRAY['DROP SCHEMA ' || quote_ident(nspname)], false
FROM pg_namespace WHERE nspname = :schema
UNION ALL
SELECT 'owner', '', jsonb_build_object('value', r.rolname),
    ARRAY['ALTER SCHEMA ' || quote_ident(nspname) || ' OWNER TO ' || quote_ident(r.rolname)], {NONE}, {NONE}, false
FROM pg_namespace AS n JOIN pg_roles AS r ON r.oid = n.nspowner WHERE nspname = :schema
UNION ALL
SELECT 'grant', grantee || ': ' || privilege_type, jsonb_build_object('grantable', bool_or(is_grantable)),
    ARRAY['GRANT ' || privilege_type || ' ON SCHEMA ' || quote_ident(nspname) || ' TO ' || grantee
        || CASE WHEN bool_or(is_grantable) THEN ' WITH GRANT OPTION' ELSE '' END], {NONE},
    ARRAY['REVOKE ' || privilege_type || ' ON SCHEMA ' || quote_ident(nspname) || ' FROM ' || grantee
        || CASE WHEN bool_or(is_grantable) THEN ' CASCADE' ELSE '' END], false
FROM (
    SELECT n.nspname, {_GRANTEES} AS grantee, acl.privilege_type, acl.is_grantable
    FROM pg_namespace AS n CROSS JOIN LATERAL aclexplode(n.nspacl) AS acl LEFT JOIN pg_roles AS r ON r.oid = acl.grantee
    WHERE n.nspname = :schema AND acl.grantee <> n.nspowner
) AS own
GROUP BY nspname, grantee, privilege_type
UNION ALL
SELECT 'default privilege', maker || ' gives ' || grantee || ': ' || privilege_type || ' on ' || objects, '{{}}'::jsonb,
    ARRAY[altering || 'GRANT ' || privilege_type || ' ON ' || objects || ' TO ' || grantee], {NONE},
    ARRAY[altering || 'REVOKE ' || privilege_type || ' ON ' || objects || ' FROM ' || grantee], false
FROM (
    SELECT quote_ident(o.rolname) AS maker, {_GRANTEES} AS grantee, acl.privilege_type,
        'ALTER DEFAULT PRIVILEGES FOR ROLE ' || quote_ident(o.rolname) || ' IN SCHEMA ' || quote_ident(n.nspname) || ' ' AS altering,
        CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' ELSE 'TYPES' END AS objects
    FROM pg_default_acl AS d JOIN pg_namespace AS n ON n.oid = d.defaclnamespace
    CROSS JOIN LATERAL aclexplode(d.defaclacl) AS acl
    JOIN pg_roles AS o ON o.oid = d.defaclrole LEFT JOIN pg_roles AS r ON r.oid = acl.grantee
    WHERE n.nspname = :schema
) AS own
UNION ALL
SELECT 'other object', pg_describe_object(classid, objid, 0), '{{}}'::jsonb, {NONE}, {NONE}, {NONE}, false
FROM pg_depend AS d
WHERE refclassid = 'pg_namespace'::regclass AND refobjid = (SELECT oid FROM pg_namespace WHERE nspname = :schema)
    AND deptype = 'n'
    AND NOT (classid = 'pg_proc'::regclass AND objid IN (SELECT oid FROM pg_proc WHERE prokind IN ('f', 'p', 'w')))
    AND NOT (classid = 'pg_class'::regclass AND objid = ANY (CAST(:known AS oid[])))
    AND NOT (classid = 'pg_type'::regclass AND objid = ANY (CAST(:known_types AS oid[])))
    AND NOT (classid = 'pg_statistic_ext'::regclass
        AND objid IN (SELECT oid FROM pg_statistic_ext WHERE stxrelid = ANY (CAST(:known AS oid[]))))
    AND NOT (classid = 'pg_class'::regclass AND EXISTS (
        SELECT FROM pg_depend AS o WHERE o.classid = d.classid AND o.objid = d.objid AND o.deptype IN ('a', 'i')
            AND o.refclassid = 'pg_class'::regclass AND o.refobjid = ANY (CAST(:known AS oid[]))))
    AND classid <> 'pg_default_acl'::regclass
"""
SCHEMA = text(_SCHEMA)

# Settings that functions read, since their names stand in the body; and the one that turns triggers off.
# The name of a database differs between environments. Whoever migrates may not be allowed to change them, so that
# what is as it should be by then is passed over.
_SETTINGS = f"""
SELECT 'setting', name, jsonb_build_object('value', value),
    ARRAY['DO $setting$ BEGIN IF NOT EXISTS (' || there || ' AND entry = ' || quote_literal(name || '=' || value) || E')\nTHEN EXECUTE format('
        || quote_literal('ALTER ' || target || ' SET ' || quoted_name || ' = %2$L')
        || ', current_database(), ' || quote_literal(value) || '); END IF; END $setting$'], {NONE},
    ARRAY['DO $setting$ BEGIN IF EXISTS (' || there || ' AND split_part(entry, ''='', 1) = ' || quote_literal(name) || E')\nTHEN EXECUTE format('
        || quote_literal('ALTER ' || target || ' RESET ' || quoted_name)
        || ', current_database()); END IF; END $setting$'], false,
    whose
FROM (
    SELECT name, substr(entry, length(name) + 2) AS value,
        (SELECT string_agg(quote_ident(part), '.') FROM unnest(string_to_array(name, '.')) AS part) AS quoted_name,
        E'SELECT FROM pg_db_role_setting, unnest(setconfig) AS entry\nWHERE setdatabase = '
            || CASE setdatabase WHEN 0 THEN '0' ELSE '(SELECT oid FROM pg_database WHERE datname = current_database())' END
            || ' AND setrole = ' || CASE setrole WHEN 0 THEN '0' ELSE quote_literal(quote_ident(r.rolname)) || '::regrole' END AS there,
        CASE WHEN setrole = 0 AND setdatabase <> 0 THEN 'DATABASE %1$I'
            ELSE 'ROLE ' || coalesce(replace(quote_ident(r.rolname), '%', '%%'), 'ALL')
                || CASE setdatabase WHEN 0 THEN '' ELSE ' IN DATABASE %1$I' END END AS target,
        CASE WHEN setrole = 0 AND setdatabase <> 0 THEN 'the database'
            ELSE 'role ' || coalesce(quote_ident(r.rolname), 'ALL')
                || CASE setdatabase WHEN 0 THEN '' ELSE ' in the database' END END AS whose
    FROM pg_db_role_setting LEFT JOIN pg_roles AS r ON r.oid = setrole
    CROSS JOIN LATERAL unnest(setconfig) AS entry CROSS JOIN LATERAL split_part(entry, '=', 1) AS name
    WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        AND (name = 'session_replication_role'
            OR position('.' IN name) > 0 AND position(lower(name) IN lower(CAST(:bodies AS text))) > 0)
) AS own
"""
SETTINGS = text(_SETTINGS)
