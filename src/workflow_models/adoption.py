"""What an upgrade finds: the state that a database is in, and who can forge an identity in it."""

from collections.abc import Iterable, Mapping

# One text. Catalogs only: a look at the rows would scan the logs.
STATE = """
WITH found AS (
    SELECT to_regclass('public.organizations') AS organizations,
        to_regclass('public.workflow_definitions') AS definitions,
        to_regclass('public.workflow_execution_logs') AS logs
), logs AS (
    SELECT
        EXISTS (SELECT FROM pg_attribute WHERE attrelid = logs AND attname = 'trigger_id') AS orchestration,
        EXISTS (
            SELECT FROM pg_attribute WHERE attrelid = logs AND attname = 'organization_id') AS organization,
        EXISTS (
            SELECT FROM pg_constraint
            WHERE conrelid = logs AND contype = 'f' AND convalidated AND confrelid = organizations) AS key,
        EXISTS (
            SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
            WHERE i.indrelid = logs AND i.indisvalid
                AND c.relname = 'idx_workflow_execution_logs_organization_id') AS basic_index,
        EXISTS (
            SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
            WHERE i.indrelid = logs AND c.relname = 'idx_failed_workflow_executions') AS failed_index
    FROM found
)
SELECT CASE
    WHEN definitions IS NULL AND logs.logs IS NULL AND organizations IS NULL THEN 'an empty database'
    WHEN definitions IS NULL AND logs.logs IS NULL THEN 'an application without workflow tables'
    WHEN definitions IS NULL THEN 'the application''s workflow_execution_logs without workflow_definitions'
    WHEN logs.logs IS NULL THEN 'the application''s workflow_definitions without workflow_execution_logs'
    WHEN NOT organization AND NOT orchestration
        THEN 'the application''s tables before orchestration and organization_id'
    WHEN NOT organization THEN 'the application''s tables before the organization_id fix'
    WHEN NOT key OR NOT basic_index THEN 'a hand-written organization_id fix that stopped half way'
    WHEN failed_index THEN 'the application''s tables after its four hand-written migrations'
    ELSE 'the application''s tables after the hand-written organization_id fix'
END
FROM found CROSS JOIN (SELECT logs.*, found.logs FROM logs, found) AS logs
"""

# A row for each grant on profiles with which somebody who is not its owner may take an organization or
# a role, and that no missing policy stops.
PROFILE_WARNINGS = """
WITH profiles AS (
    SELECT oid, relowner, relrowsecurity, relacl FROM pg_class WHERE oid = to_regclass('public.profiles')
), granted AS (
    SELECT acl.grantee, acl.privilege_type, NULL::text AS column_name
    FROM profiles CROSS JOIN aclexplode(profiles.relacl) AS acl
    UNION ALL
    SELECT acl.grantee, acl.privilege_type, a.attname::text
    FROM profiles JOIN pg_attribute AS a ON a.attrelid = profiles.oid CROSS JOIN aclexplode(a.attacl) AS acl
), risky AS (
    SELECT granted.*, profiles.oid, profiles.relrowsecurity, profiles.relowner
    FROM granted CROSS JOIN profiles
    WHERE granted.privilege_type = 'INSERT' AND granted.column_name IS NULL
        OR granted.privilege_type IN ('INSERT', 'UPDATE')
            AND coalesce(granted.column_name, 'role') IN ('role', 'user_role', 'organization_id')
), allowed AS (
    -- A grant to everybody, or to a group, is used by whom a policy is for, and the other way round.
    SELECT risky.*, NULL::name AS polname, risky.grantee AS who FROM risky WHERE NOT risky.relrowsecurity
    UNION ALL
    SELECT risky.*, policy.polname,
        CASE
            WHEN member.role <> 0
                AND (risky.grantee = 0 OR NOT pg_has_role(risky.grantee, member.role, 'USAGE'))
            THEN member.role ELSE risky.grantee END
    FROM risky JOIN pg_policy AS policy
        ON policy.polrelid = risky.oid AND policy.polpermissive
        AND policy.polcmd IN (
            '*', CASE risky.privilege_type WHEN 'INSERT' THEN 'a'::"char" ELSE 'w'::"char" END)
    CROSS JOIN LATERAL unnest(policy.polroles) AS member (role)
    WHERE risky.relrowsecurity
        AND (0 IN (risky.grantee, member.role) OR pg_has_role(risky.grantee, member.role, 'USAGE')
            OR pg_has_role(member.role, risky.grantee, 'USAGE'))
)
SELECT DISTINCT format(
    '%s may %s: grant %s on profiles%s to %s, %s. Whoever may do that can choose an organization, '
    'or become a super admin, unless a trigger or the policy''s own text forbids it.',
    CASE who WHEN 0 THEN 'everybody' ELSE who::regrole::text END,
    CASE privilege_type
        WHEN 'INSERT' THEN 'insert a profile'
        ELSE 'change a profile''s role or organization' END,
    privilege_type,
    coalesce(' (' || quote_ident(column_name) || ')', ''),
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
    CASE WHEN polname IS NULL THEN 'row security is off' ELSE format('policy %I', polname) END)
FROM allowed LEFT JOIN pg_roles AS r ON r.oid = who
WHERE who <> relowner AND NOT coalesce(r.rolsuper OR r.rolbypassrls, false)
ORDER BY 1
"""


# Until its last key stands the revisions may still have to do with what the application has.
_ON_THE_WAY = """NOT EXISTS (
    SELECT FROM pg_constraint AS c
    WHERE c.conrelid = to_regclass('public.workflow_execution_logs') AND c.convalidated
        AND c.conname = 'workflow_execution_logs_workflow_id_organization_id_fkey')"""


# An application's own trigger on our logs is neither known nor ours to switch off.
TRIGGER_WARNINGS = f"""
SELECT format(
    'trigger %I on workflow_execution_logs is the application''s, and fires for each %s that is filled: '
    'what it changes is changed, what it refuses stops the upgrade. Disable it, unless it is meant.',
    t.tgname, CASE t.tgtype & 1 WHEN 1 THEN 'log' ELSE 'batch' END)
FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE t.tgrelid = to_regclass('public.workflow_execution_logs') AND NOT t.tgisinternal
    AND t.tgenabled IN ('O', 'A') AND t.tgtype & 16 = 16 AND n.nspname <> 'workflow_private'
    AND (t.tgattr = '' OR EXISTS (
        SELECT FROM pg_attribute AS a
        WHERE a.attrelid = t.tgrelid AND a.attname = 'organization_id' AND a.attnum = ANY (t.tgattr)))
    AND {_ON_THE_WAY}
ORDER BY 1
"""


# Who creates what is beside a table, functions above all, owns it.
OWNER_WARNINGS = """
SELECT format(
    '%s belongs to %s, and this runs as %s: what is made for it will belong to two roles, and %s can then '
    'neither check nor upgrade. Run it as %s, with ?options=-crole%%3D%s in the URL, or let an administrator '
    'run: ALTER TABLE %s OWNER TO %I;',
    oid::regclass, owner, current_user, owner, owner, owner, oid::regclass, current_user)
FROM (
    SELECT oid, relowner::regrole AS owner FROM pg_class
    WHERE oid IN (to_regclass('public.workflow_definitions'), to_regclass('public.workflow_execution_logs'))
) AS tables
WHERE owner <> to_regrole(quote_ident(current_user))
ORDER BY 1
"""


# As a bulk load, or a restore, leaves them.
KEY_WARNINGS = """
SELECT DISTINCT format(
    'the foreign key %I of %s does not hold: its triggers are disabled. Let a superuser run: '
    'ALTER TABLE %s ENABLE TRIGGER ALL; and look for rows that have got in meanwhile.',
    c.conname, c.conrelid::regclass, t.tgrelid::regclass)
FROM pg_trigger AS t JOIN pg_constraint AS c ON c.oid = t.tgconstraint AND c.contype = 'f'
WHERE c.conrelid IN (
        to_regclass('public.workflow_definitions'), to_regclass('public.workflow_execution_logs'))
    AND t.tgenabled = 'D'
ORDER BY 1
"""


# No policy holds for them.
ROLE_WARNINGS = """
SELECT format(
    'role %I is above row-level security, and sees every organization. Let a superuser run: '
    'ALTER ROLE %I NOSUPERUSER NOBYPASSRLS;',
    rolname, rolname)
FROM pg_roles
WHERE rolname IN ('anon', 'authenticated', 'workflow_worker') AND (rolsuper OR rolbypassrls)
ORDER BY 1
"""


# A hardened schema is closed to a role that the revisions create.
SCHEMA_WARNINGS = """
SELECT format(
    'role %I may not use the schema public, in which the tables are. Let its owner run, once the role is '
    'there: GRANT USAGE ON SCHEMA public TO %I;',
    name, name)
FROM pg_namespace AS n CROSS JOIN (VALUES ('authenticated'), ('workflow_worker')) AS ours (name)
LEFT JOIN pg_roles AS r ON r.rolname = ours.name
WHERE n.nspname = 'public' AND NOT CASE WHEN r.oid IS NULL THEN has_schema_privilege('public', n.oid, 'USAGE')
    ELSE has_schema_privilege(r.oid, n.oid, 'USAGE') END
ORDER BY 1
"""


def lost_defaults(columns: Iterable[tuple[str, str]]) -> str:
    """Give a query for a warning of each default of the application on a column that is to have none.

    :param columns: those columns, each after its table.
    """
    return f"""
SELECT format(
    '%I.%I loses its default, %s: who inserts a row then has to give the value. To have it back afterwards, '
    'which a check will name: ALTER TABLE %I ALTER COLUMN %I SET DEFAULT %s;',
    c.relname, a.attname, value, c.relname, a.attname, value)
FROM (VALUES {_listed(columns)}) AS bare (table_name, column_name)
JOIN pg_class AS c ON c.oid = to_regclass('public.' || bare.table_name)
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = bare.column_name AND a.attgenerated = ''
JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
CROSS JOIN LATERAL pg_get_expr(d.adbin, d.adrelid) AS value
WHERE {_ON_THE_WAY}
ORDER BY c.relname, a.attnum
"""


def lost_values(allowed: Mapping[str, Iterable[str]]) -> str:
    """Give a query for a warning of each CHECK of the application that allows more than ours of its name.

    Only of one that lists its values; of others that cannot be told.

    :param allowed: the values that ours allow, by their names.
    """
    values = _listed((name, value) for name, each in allowed.items() for value in each)
    return f"""
SELECT format(
    'the CHECK %I on %s is replaced, unless rows have other values, by one that refuses %s: have the '
    'application write another value first.',
    k.conname, k.conrelid::regclass, string_agg(DISTINCT quote_literal(value[1]), ', '))
FROM pg_constraint AS k
CROSS JOIN LATERAL pg_get_constraintdef(k.oid) AS definition
CROSS JOIN LATERAL regexp_matches(definition, '''([^'']*)''', 'g') AS value
WHERE k.contype = 'c' AND k.conrelid IN (
        to_regclass('public.workflow_definitions'), to_regclass('public.workflow_execution_logs'))
    AND definition ~ '= ANY [(]+ARRAY[[]' AND definition !~ ' AND | OR |~|[{{]'
    AND k.conname IN (SELECT name FROM (VALUES {values}) AS ours (name, value))
    AND (k.conname, value[1]) NOT IN (VALUES {values})
    AND {_ON_THE_WAY}
GROUP BY k.conname, k.conrelid
ORDER BY 1
"""


def lost_actions(keys: Iterable[tuple[str, str, str, str]]) -> str:
    """Give a query for a warning of each foreign key of the application that ours takes the place of.

    :param keys: the name of each of ours, its table and column, and the table that it refers to.
    """
    return f"""
SELECT format(
    'the foreign key %I of %s is replaced by one ON DELETE CASCADE: it was %s.',
    taken.conname, taken.conrelid::regclass, pg_get_constraintdef(taken.oid))
FROM (VALUES {_listed(keys)}) AS ours (name, table_name, column_name, referent)
CROSS JOIN LATERAL (
    -- As create_foreign_key_not_valid chooses.
    SELECT k.*, as_ours
    FROM pg_constraint AS k JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND k.conkey = ARRAY[a.attnum]
    CROSS JOIN LATERAL (
        VALUES (k.confdeltype = 'c' AND k.confupdtype = 'a' AND NOT k.condeferrable)) AS does (as_ours)
    WHERE k.contype = 'f' AND k.conrelid = to_regclass('public.' || ours.table_name)
        AND k.confrelid = to_regclass('public.' || ours.referent) AND a.attname = ours.column_name
    ORDER BY k.conname = ours.name DESC, as_ours DESC, k.convalidated DESC, k.conname LIMIT 1
) AS taken
WHERE NOT taken.as_ours AND {_ON_THE_WAY}
ORDER BY 1
"""


def _listed(rows: Iterable[tuple[str, ...]]) -> str:
    return ", ".join("(" + ", ".join(f"'{value}'" for value in row) + ")" for row in rows)


def foreign_policies(declared: Iterable[str]) -> str:
    """Give a query for a warning of each policy on our tables that is not ours and lets more be seen.

    Policies are OR-ed: one that an application has renamed, or added, stays beside ours.
    """
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in declared)
    # It is read by text().
    names = names.replace(":", r"\:")
    return f"""
SELECT format(
    'policy %I on %s is not of this package, and lets through what it allows besides; '
    'drop it, unless it is meant.',
    polname, polrelid::regclass)
FROM pg_policy
WHERE polrelid IN (
        to_regclass('public.workflow_definitions'), to_regclass('public.workflow_execution_logs'))
    AND polpermissive AND polname NOT IN ({names})
ORDER BY 1
"""
